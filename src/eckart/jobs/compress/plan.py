"""The candidates of every matrix of a model in one currency, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from eckart.budget import allocate
from eckart.compressors.contract import CompressorCard, Family, Fitted, JointFamily, Members, built, lazy
from eckart.errors import Refused
from eckart.jobs.compress.choices import Choice, settle, summed, unmet, weights_of
from eckart.jobs.compress.curves import Curve, curve_of, dense_cost, fit_or_reason, measured, not_fitted
from eckart.jobs.compress.prices import Clock, prices
from eckart.jobs.compress.store import Store
from eckart.jobs.compress.tails import block_of, tail_exponents
from eckart.machine import executor_at, memory_available
from eckart.models import places
from eckart.models.groups import Group, find_groups
from eckart.models.layers import is_compressed
from eckart.models.sites import Site, model_bytes, model_cost
from eckart.progress import Progress, silent
from eckart.statistics import Statistics
from eckart.statistics.moments import without_bias

OnProgress = Callable[[int, int], None]


@dataclass(repr=False)
class Plan:
    """Candidates for the sites of a model, fitted once and chosen from at any budget.

    Attributes:
        method: how the candidates are made.
        groups: where they go.
        statistics: by site name.
        curves: by group name.
        scheduler: where fits are made; see `fit`.
        compressed_before: matrices of the model that are no sites, because a structure stands in for them already.
        totals: of the model as it was given, by currency.
        added, without: what a rotation has added to them; what is said of options that would take more of the model.
        clock, seconds: of products, and totals in currencies of time; where such a budget is asked for.
        factors: what the errors of candidates are multiplied by, by the method they are from.
        negligible: an error of all together that nothing is spent to avoid; see `trials`.
        influence: of blocks, by name; where such an allocation is asked for.
        portions: of some groups, those whose weights and statistics are at hand together, one lot after the other.
    """

    method: CompressorCard
    groups: Sequence[Group]
    statistics: Mapping[str, Statistics]
    totals: dict[str, int]
    held_limit: int = field(default_factory=lambda: memory_available() // 3)
    curves: dict[str, Curve] = field(default_factory=dict)
    scheduler: str | None = None
    factors: dict[str, float] = field(default_factory=dict)
    negligible: float = 0.0
    compressed_before: int = 0
    added: Mapping[str, int] = field(default_factory=dict)
    without: str = ""
    clock: Clock | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    influence: Mapping[str, float] = field(default_factory=dict)
    portions: Callable[[Sequence[Group]], Iterable[Sequence[Group]]] = lambda groups: [groups]
    _families: dict[str, Family | JointFamily] = field(default_factory=dict)
    _tails: list[float | None] = field(default_factory=list)

    @property
    def sites(self) -> list[Site]:
        """The matrices of all groups, in the order of the model."""
        return [site for group in self.groups for site in group.sites]

    def members(self, group: Group) -> Members:
        """What a method is given of a group, in the memory of the CPU, where candidates are fitted."""
        known = ((site.takes_bias, self.statistics.get(site.name, Statistics())) for site in group.sites)
        statistics = tuple(each if takes_bias else without_bias(each) for takes_bias, each in known)
        weights = tuple(site.weight.cpu() for site in group.sites)
        biases = tuple(None if site.bias is None else site.bias.cpu() for site in group.sites)
        return Members(weights, statistics, group.heads, biases, group.mixture, group.layers)

    def fit(self, scheduler: str | None = None, on_progress: OnProgress | None = None, *, errors: bool = True) -> None:
        """Fits the candidates of all groups; one that cannot be fitted stays dense and says why.

        Args:
            scheduler: address of a Dask scheduler; None for threads of this process.
            on_progress: called with (groups done, groups in all).
            errors: learn the errors of the candidates; False for an allocation that does not look at them.
        """
        self.scheduler = scheduler
        for portion in self.portions(self.groups):
            self.fit_portion(portion, on_progress, errors)

    def fit_portion(self, portion: Sequence[Group], on_progress: OnProgress | None = None, errors: bool = True) -> None:
        """Fits the candidates of groups that are at hand, as `fit` does those of all."""
        held = 0
        with executor_at(self.scheduler) as executor:
            futures = [executor.submit(fit_or_reason, self.method, g.kind, self.members(g), errors) for g in portion]
            for group, future in zip(portion, futures, strict=True):
                family, curve = future.result()
                self.curves[group.name] = curve
                size = getattr(family, "held_bytes", sum(4 * sum(s.shape) * min(s.shape) for s in group.sites))
                if family is not None and held + size <= self.held_limit:
                    self._families[group.name] = family
                    held += size
                if on_progress:
                    on_progress(len(self.curves), len(self.groups))

    def release(self) -> None:
        """Lets go of candidates; those that are asked for again are fitted again."""
        self._families.clear()

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
        self,
        keep: float,
        of: str,
        allocation: str | None = None,
        floor: float = 0.1,
        only: str | None = None,
        even: bool = False,
    ) -> Choice:
        """The size of each group, as `solve` picks it, None for dense; of estimates, what is picked is measured."""

        def solve() -> Choice:
            return self.solve(keep, of, allocation, floor, only, even)

        if all(curve.known is None for curve in self.curves.values()):
            return solve()
        weights = weights_of(self.curves, even)
        least = self._negligible(keep)
        return settle(solve, self._measure, lambda choice: summed(self.curves, choice, weights, least))

    def _negligible(self, keep: float) -> float:
        """An error of a group that nothing is spent to avoid, where anything is to be saved."""
        return self.negligible / max(1, len(self.groups)) if keep < 1 else 0.0

    def _measure(self, choice: Mapping[str, int | None]) -> int:
        """Measures what is an estimate in a choice; returns how many candidates that were."""
        wanted = [(group, self.curves[group.name], choice[group.name]) for group in self.groups]
        open_ = [(g, c, n, c.known) for g, c, n in wanted if c.known is not None and n is not None and n not in c.known]
        asked = {group.name: (curve, known, size) for group, curve, size, known in open_}
        for portion in self.portions([g for g, _, _, _ in open_]):
            with executor_at(self.scheduler) as executor:
                given = [(g.kind, self.members(g), self._families.get(g.name), *asked[g.name][1:]) for g in portion]
                futures = [executor.submit(measured, self.method, *each) for each in given]
                for group, future in zip(portion, futures, strict=True):
                    asked[group.name][0].enter(*future.result(), self.factors)
        return len(open_)

    def solve(
        self,
        keep: float,
        of: str,
        allocation: str | None = None,
        floor: float = 0.1,
        only: str | None = None,
        even: bool = False,
    ) -> Choice:
        """The size of each group at which the whole model keeps a share of its cost, by the errors known so far.

        Args:
            keep: share in (0, 1]; 1 for no budget.
            of: a currency; see `CURRENCIES`.
            allocation: see `eckart.budget.allocate`; None for the method's own.
            floor: least share of its dense cost that a group keeps.
            only: take no candidates but those of this method.
            even: take the error of the zero matrix for the same in all matrices for each number they have, instead of
                what the metric says, which a few tokens of calibration may say badly.

        Raises:
            Refused: the budget cannot be met; the least that can is named.
        """
        curves = [self.curves[group.name] for group in self.groups]
        rows = [[i for i, (n, _) in enumerate(c.members) if only in (None, n)] + [len(c.members)] for c in curves]
        priced = zip(curves, prices(self.groups, self.curves, of, self.clock), rows, strict=True)
        weights = weights_of(self.curves, even)
        candidates = [
            curve.candidates(each, row, weights[group.name], self._negligible(keep))
            for group, (curve, each, row) in zip(self.groups, priced, strict=True)
        ]
        allocation = allocation or self.method.allocation
        if allocation == "farms":
            self._tails = self._tails or tail_exponents(self.groups)
            candidates = [replace(c, tail=tail) for c, tail in zip(candidates, self._tails, strict=True)]
        if allocation == "influence":
            known = [self.influence.get(block_of(group.name)) for group in self.groups]
            candidates = [replace(c, influence=s) for c, s in zip(candidates, known, strict=True)]
        total = self.total(of)
        dense = sum(float(c.costs[-1]) for c in candidates)
        fixed = total + self.added.get(of, 0) - dense
        try:
            chosen = allocate(candidates, keep * total - fixed if keep < 1 else dense, allocation, floor=floor)
        except Refused as error:
            least = (fixed + sum(float(c.costs.min()) for c in candidates)) / total
            if keep >= least:
                raise
            why = f"the least is {least:.4f}{self.without} ({fixed / total:.1%} lies outside the matrices to compress)"
            if of != "bytes" and not any(c.costs.min() < c.costs[-1] for c in candidates):
                why = f"it leaves {of} as they are; count bytes, --of bytes"
            words = f"keep={keep} of {of} cannot be met with {self.method.name}: {why}"
            raise Refused(unmet(self.failures(), self.compressed_before) + words) from error
        picked = zip(self.groups, curves, rows, chosen, strict=True)
        return {group.name: curve.sizes[row[i]] for group, curve, row, i in picked}

    def total(self, of: str) -> float:
        """What the whole model costs as it is."""
        return self.seconds[of] if of in self.seconds else self.totals[of]

    def failures(self) -> dict[str, str]:
        """Why groups that could not be fitted stay dense, by name."""
        return {name: curve.reason for name, curve in self.curves.items() if curve.failed}

    def fail(self, group: Group, reason: str) -> None:
        """Leaves a group dense."""
        self.curves[group.name] = not_fitted([site.weight for site in group.sites], reason)

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiplies the errors of all candidates of a method by its factor, those yet to be measured too."""
        for curve in self.curves.values():
            curve.scale(factors)
        self.factors |= {name: self.factors.get(name, 1.0) * factor for name, factor in factors.items()}

    def error(self, choice: Mapping[str, int | None], weights: Mapping[str, float] | None = None) -> float:
        """The summed squared error of a choice, each group's by its weight; Refused where errors were not measured."""
        if any(self.curves[name].errors is None for name in choice):
            raise Refused(f"the errors of {self.method.name} were not measured")
        return summed(self.curves, choice, weights or dict.fromkeys(choice, 1.0))


def make_plan(
    model: nn.Module,
    sites: Sequence[Site],
    method: CompressorCard,
    statistics: Mapping[str, Statistics],
    added: Mapping[str, int] | None = None,
) -> Plan:
    """A plan for a model, not yet fitted; its totals are measured on the model, less what a rotation added to it."""
    cost, more = model_cost(model), added or {}
    totals = {"linear-parameters": cost["linear_parameters"], "parameters": cost["parameters"]}
    totals |= {"bytes": model_bytes(model), "macs": cost["macs_per_token"]}
    totals = {name: total - more.get(name, 0) for name, total in totals.items()}
    before = 0 if more else sum(map(is_compressed, model.modules()))
    groups = find_groups(model, sites, list(method.together))
    return Plan(method, groups, statistics, totals, compressed_before=before, added=more)


def apply(
    model: nn.Module,
    plan: Plan,
    choice: Choice,
    store: Store | None = None,
    progress: Progress = silent,
    groups: Sequence[Group] | None = None,
) -> dict[str, float]:
    """Builds the chosen candidates of all groups, or of those that are at hand; returns squared errors by site name.

    A group whose candidate turns out not to fit into its dtype stays dense, is None in the choice from then on, and
    among the failures of the plan.
    """
    errors = {}
    position = {group.name: i for i, group in enumerate(plan.groups, 1)}
    for group in plan.groups if groups is None else groups:
        size = choice[group.name]
        fitted = store.get(group.name, size) if store and size is not None else None
        if fitted is None and size is not None:
            try:
                fitted = plan.build(group, size)
            except Refused as error:
                plan.fail(group, str(error))
                choice[group.name] = None
            else:
                if store:
                    store.put(group.name, size, fitted)
        for site, one in zip(group.sites, fitted or (), strict=fitted is not None):
            put(model, site, one)
            errors[site.name] = one.error
        progress("build", position[group.name], len(plan.groups))
    return errors


def put(model: nn.Module, site: Site, fitted: Fitted) -> None:
    """Puts a candidate in the place of a matrix."""
    places.replace(model, site, fitted.structure, fitted.bias if site.takes_bias else None)
