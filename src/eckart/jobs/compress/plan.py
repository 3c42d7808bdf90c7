"""The candidates of every matrix of a model in one currency, and the choice among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from eckart.budget import Candidates, allocate
from eckart.budget.currencies import CURRENCIES
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors.contract import CompressorCard, Family, Fitted, JointFamily, Members, built, lazy, members
from eckart.errors import Refused
from eckart.jobs.compress.lazy_errors import measured, settle
from eckart.jobs.compress.tails import tail_exponents
from eckart.machine import executor_at
from eckart.models.groups import Group, find_groups
from eckart.models.sites import Site, model_cost
from eckart.statistics import Statistics
from eckart.structures import Cost

OnProgress = Callable[[int, int], None]


@dataclass
class Curve:
    """The candidates of one group without their factors.

    Attributes:
        members: of each candidate, the method it is from and its size there.
        sizes: of the candidates, see `eckart.SIZES`; the dense matrix, size None, comes last.
        costs: of each.
        errors: squared error of each in the method's metric; 0 for the dense matrix. None where they would cost a fit
            each and the allocation does not ask.
        zero_error: squared error of the zero matrix, what the errors are relative to.
        spectrum: squared singular values in the metric, descending, where the method knows them.
        reason: why the dense matrix is all there is, or "".
        known: errors by size as far as they were measured, the others being estimates; None where all were.
    """

    members: list[tuple[str, int]]
    sizes: list[int | None]
    costs: list[Cost]
    errors: list[float] | None
    zero_error: float = 0.0
    spectrum: Tensor | None = None
    reason: str = ""
    known: dict[int, float] | None = None

    def candidates(self, attribute: str, only: Sequence[int], share: float = 1.0) -> Candidates:
        """What the solver sees of some candidates, costs being that attribute of each `Cost`, times a share.

        Errors that were not measured are zero.
        """
        costs = np.array([share * getattr(self.costs[i], attribute) for i in only])
        if self.errors is None:
            return Candidates(costs, np.zeros(len(costs)))
        errors = np.array([max(0.0, self.errors[i]) for i in only])
        slope = max(0.0, self.zero_error - float(errors[0])) / max(1.0, costs[0])
        return Candidates(costs, errors, slope)


def dense_cost(weights: Sequence[Tensor]) -> Cost:
    each = [Cost(w.numel(), w.numel() * w.element_size(), w.numel()) for w in weights]
    return sum(each[1:], each[0])


@dataclass
class Plan:
    """Candidates for the sites of a model, fitted once and chosen from at any budget.

    Attributes:
        method: how the candidates are made.
        groups: where they go.
        statistics: by site name.
        curves: by group name.
        scheduler: where fits are made; see `fit`.
        factors: what the errors of candidates are multiplied by, by the method they are from.
    """

    method: CompressorCard
    groups: Sequence[Group]
    statistics: Mapping[str, Statistics]
    totals: dict[str, int]
    held_limit: int = field(default_factory=lambda: memory_available() // 3)
    curves: dict[str, Curve] = field(default_factory=dict)
    scheduler: str | None = None
    factors: dict[str, float] = field(default_factory=dict)
    _families: dict[str, Family | JointFamily] = field(default_factory=dict)
    _tails: list[float | None] = field(default_factory=list)

    @property
    def sites(self) -> list[Site]:
        """The matrices of all groups, in the order of the model."""
        return [site for group in self.groups for site in group.sites]

    def members(self, group: Group) -> Members:
        """What a method is given of a group."""
        statistics = tuple(self.statistics.get(site.name, Statistics()) for site in group.sites)
        weights, biases = tuple(site.weight for site in group.sites), tuple(site.bias for site in group.sites)
        return Members(weights, statistics, group.heads, biases, group.mixture)

    def fit(self, scheduler: str | None = None, on_progress: OnProgress | None = None, *, errors: bool = True) -> None:
        """Fits the candidates of all groups; one that cannot be fitted stays dense and says why.

        Args:
            scheduler: address of a Dask scheduler; None for threads of this process.
            on_progress: called with (groups done, groups in all).
            errors: learn the errors of the candidates; False for an allocation that does not look at them.
        """
        self.scheduler = scheduler
        held = 0
        with executor_at(scheduler) as executor:
            futures = [
                executor.submit(fit_or_reason, self.method, group.kind, self.members(group), errors)
                for group in self.groups
            ]
            for done, (group, future) in enumerate(zip(self.groups, futures, strict=True), 1):
                family, curve = future.result()
                self.curves[group.name] = curve
                usual = sum(4 * sum(site.shape) * min(site.shape) for site in group.sites)
                size = getattr(family, "held_bytes", usual)
                if family is not None and held + size <= self.held_limit:
                    self._families[group.name] = family
                    held += size
                if on_progress:
                    on_progress(done, len(self.groups))

    def add(self, group: Group, family: Family | JointFamily) -> None:
        """Enters candidates made elsewhere for a group."""
        self.curves[group.name] = curve_of(self.method, family, dense_cost([site.weight for site in group.sites]))
        self._families[group.name] = family

    def build(self, group: Group, size: int) -> Sequence[Fitted]:
        """The candidate of a size, one `Fitted` for each site of the group."""
        family = self._families.get(group.name)
        if family is None:  # memory did not allow to hold it
            family = self.method.candidates(group.kind, self.members(group))
        if lazy(family):
            family.known |= self.curves[group.name].known or {}
        return built(family, size)

    def choose(
        self, keep: float, of: str, allocation: str | None = None, floor: float = 0.1, only: str | None = None
    ) -> dict[str, int | None]:
        """The size of each group, as `solve` picks it, None for dense; of estimates, what is picked is measured."""

        def solve() -> dict[str, int | None]:
            return self.solve(keep, of, allocation, floor, only)

        if all(curve.known is None for curve in self.curves.values()):
            return solve()
        return settle(solve, self._measure, self.error)

    def _measure(self, choice: Mapping[str, int | None]) -> int:
        """Measures what is an estimate in a choice; returns how many candidates that were."""
        wanted = [(group, self.curves[group.name], choice[group.name]) for group in self.groups]
        open_ = [(g, c, n, c.known) for g, c, n in wanted if c.known is not None and n is not None and n not in c.known]
        if not open_:
            return 0
        with executor_at(self.scheduler) as executor:
            futures = []
            for group, _, size, known in open_:
                given = group.kind, self.members(group), self._families.get(group.name)
                futures.append(executor.submit(measured, self.method, *given, known, size))
            for (_, curve, _, _), future in zip(open_, futures, strict=True):
                curve.known, errors = future.result()
                factors = [self.factors.get(name, 1.0) for name, _ in curve.members]
                curve.errors = [error * factor for error, factor in zip(errors, factors, strict=True)] + [0.0]
        return len(open_)

    def solve(
        self, keep: float, of: str, allocation: str | None = None, floor: float = 0.1, only: str | None = None
    ) -> dict[str, int | None]:
        """The size of each group at which the whole model keeps a share of its cost, by the errors known so far.

        Args:
            keep: share in (0, 1].
            of: a currency; see `CURRENCIES`.
            allocation: see `eckart.budget.allocate`; None for the method's own.
            floor: least share of its dense cost that a group keeps.
            only: take no candidates but those of this method.

        Raises:
            Refused: the budget cannot be met; the least that can is named.
        """
        attribute = CURRENCIES[of]
        for site in self.sites:
            if of == "macs" and site.is_embedding and not site.tied:
                raise Refused(f"{site.name} is a look-up, which costs no macs: choose another currency for it")
        curves = [self.curves[group.name] for group in self.groups]
        rows = [[i for i, (n, _) in enumerate(c.members) if only in (None, n)] + [len(c.members)] for c in curves]
        shares = [group.sites[0].share if of == "macs" else 1.0 for group in self.groups]
        candidates = [c.candidates(attribute, row, share) for c, row, share in zip(curves, rows, shares, strict=True)]
        allocation = allocation or self.method.allocation
        if allocation == "farms":
            self._tails = self._tails or tail_exponents(self.groups)
            candidates = [replace(c, tail=tail) for c, tail in zip(candidates, self._tails, strict=True)]
        total = self.totals[of]
        fixed = total - sum(float(c.costs[-1]) for c in candidates)
        try:
            chosen = allocate(candidates, keep * total - fixed, allocation, floor=floor)
        except Refused as error:
            least = (fixed + sum(float(c.costs.min()) for c in candidates)) / total
            if keep >= least:
                raise
            failed = [
                f"; {n} stays dense: {c.reason}" for n, c in self.curves.items() if c.reason.startswith("fit failed")
            ]
            raise Refused(
                f"keep={keep} of {of} cannot be met with {self.method.name}: the least is {least:.4f} "
                f"({fixed / total:.1%} lies outside the matrices that are compressed){''.join(failed[:3])}"
            ) from error
        picked = zip(self.groups, curves, rows, chosen, strict=True)
        return {group.name: curve.sizes[row[i]] for group, curve, row, i in picked}

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiplies the errors of all candidates of a method by its factor, those yet to be measured too."""
        for curve in self.curves.values():
            if curve.errors is not None:
                errors = zip(curve.members, curve.errors, strict=False)
                curve.errors = [error * factors.get(name, 1.0) for (name, _), error in errors] + curve.errors[-1:]
        self.factors |= {name: self.factors.get(name, 1.0) * factor for name, factor in factors.items()}

    def error(self, choice: Mapping[str, int | None]) -> float:
        """The summed squared error of a choice; Refused where errors were not measured."""
        total = 0.0
        for name, size in choice.items():
            curve = self.curves[name]
            if curve.errors is None:
                raise Refused(f"the errors of {self.method.name} were not measured")
            total += curve.errors[curve.sizes.index(size)]
        return total


def make_plan(
    model: nn.Module, sites: Sequence[Site], method: CompressorCard, statistics: Mapping[str, Statistics]
) -> Plan:
    """A plan for a model, not yet fitted; its totals are measured on the model as it is."""
    cost = model_cost(model)
    unique = {t.data_ptr(): t for t in model.state_dict().values()}
    totals = {
        "linear-parameters": cost["linear_parameters"],
        "parameters": cost["parameters"],
        "bytes": sum(t.numel() * t.element_size() for t in unique.values()),
        "macs": cost["macs_per_token"],
    }
    return Plan(method, find_groups(model, sites, list(method.together)), statistics, totals)


_LinAlgError: type[Exception] = getattr(torch.linalg, "LinAlgError")  # noqa: B009  (not in its stubs)


def fit_or_reason(
    method: CompressorCard, kind: str, together: Members, errors: bool = True
) -> tuple[Family | JointFamily | None, Curve]:
    """Candidates of one group, or None and a curve that says why there are none."""
    dense = dense_cost(together.weights)
    try:
        family = method.candidates(kind, together)
        return family, curve_of(method, family, dense, errors or not isinstance(family, OneByOne))
    except (Refused, _LinAlgError) as error:
        return None, Curve([], [None], [dense], [0.0], reason=f"fit failed: {error}")


def curve_of(method: CompressorCard, family: Family | JointFamily, dense: Cost, with_errors: bool = True) -> Curve:
    """What is known of a family before anything is built, the dense matrix added."""
    sizes: list[int | None] = [*family.sizes]
    errors, known = None, None
    if with_errors:
        errors = [*map(float, family.estimates() if lazy(family) else family.errors), 0.0]
        known = dict(family.known) if lazy(family) else None
    reason = "" if sizes else "no size pays"
    spectrum = getattr(family, "spectrum", None)
    return Curve(
        members(family, method),
        [*sizes, None],
        [*family.costs, dense],
        errors,
        family.zero_error,
        spectrum,
        reason,
        known,
    )


def memory_available() -> int:
    """Bytes of memory that can be used without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // 2
