"""The job: structures that train stand in the places of a model's matrices from the start."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import torch
from torch import nn

from eckart.errors import Refused, check_type
from eckart.jobs.coverage import covered, reasons, warnings_of
from eckart.jobs.reparametrize.hooks import StepHooks
from eckart.models.fused_experts import unfuse
from eckart.models.modules import StructuredLinear
from eckart.models.places import replace, set_module
from eckart.models.presence import no_single_layer, present, without_peft
from eckart.models.saving import describe
from eckart.models.sites import Site, as_patterns, find_sites
from eckart.parametrizations.contract import (
    PARAMETRIZATIONS,
    Layer,
    ParametrizationCard,
    Schedule,
    Structures,
    keywords,
)
from eckart.report.numbers import shown_change, shown_count
from eckart.report.shown import Glance, Shown, noted
from eckart.report.types import Coverage
from eckart.statistics.cache import finite_weights
from eckart.structures import Dense, StructuredMatrix, patch_of

EMBEDDING = "an embedding, in whose place no parametrization stands"
HEAD = "the head, in whose place no parametrization stands"


@dataclass(repr=False)
class Reparametrization(Shown):
    """A model whose matrices are structures that train, and what happens to them in every step.

    Attributes:
        model: the model, its matrices replaced in place.
        method: the card of the parametrization.
        options: what it was told.
        names: the matrices that were replaced.
        left: why each of the others that were asked for is dense, by name.
        before: numbers in the matrices that were replaced.
        seed: of whatever is drawn.
        coverage: what share of the model's numbers was looked at, and what was left and why.
        seconds: what it took.
        warnings: what did not go as asked.
    """

    model: nn.Module
    method: ParametrizationCard
    options: dict[str, Any]
    names: list[str]
    left: dict[str, str]
    before: int
    seed: int
    coverage: Coverage
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    _hooks: StepHooks | None = None
    _layers: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def structures(self) -> dict[str, StructuredMatrix]:
        """What stands in the place of each matrix, by its name; once an ordinary layer does again, its matrix."""
        return {name: self._structure(self.model.get_submodule(name)) for name in self.names}

    def schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> StepHooks:
        """What a training loop calls in every step; calls that a method does not need do nothing.

        Args:
            optimizer: made after the model was reparametrized, of its parameters.
            steps: that the optimizer will take in all, interruptions included.

        Raises:
            Refused: no step at all, or the optimizer does not hold what trains.
        """
        check_type("steps", steps, int)
        if steps < 1:
            raise Refused(f"steps={steps} must be at least 1")
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, structure in self.structures.items():
            if not all(id(p) in held for p in structure.parameters() if p.requires_grad):
                raise Refused(f"the optimizer does not hold what trains in {name}: make it after reparametrize()")
        generator = torch.Generator().manual_seed(self.seed)
        made = _planned(self.method, self.structures, steps, generator, self.options)
        of = crc32(json.dumps([self.method.name, steps, self.seed, self.options], sort_keys=True).encode())
        self._hooks = StepHooks(made, optimizer, steps, generator, of)
        return self._hooks

    def finish(self) -> None:
        """Puts what is left of each structure in its place, once it is trained: zeros are stored no more, for one.

        Where that is a dense matrix, an ordinary layer stands there again.

        Raises:
            Refused: the method has a schedule that is not over.
        """
        if self.method.schedule is not None and (self._hooks is None or self._hooks.done < self._hooks.steps):
            at = "was not begun" if self._hooks is None else f"is at step {self._hooks.done} of {self._hooks.steps}"
            raise Refused(f"the schedule of {self.method.name} {at}: finish() comes after its last step")
        if self.method.fold is None:
            return
        told = {name: value for name, value in self.options.items() if name in keywords(self.method.fold)}
        for name in self.names:
            module = self.model.get_submodule(name)
            if isinstance(module, StructuredLinear):
                with torch.no_grad():
                    module.structure = self.method.fold(module.structure, **told)
                if isinstance(module.structure, Dense) and name in self._layers:
                    set_module(self.model, name, _filled(self._layers.pop(name), module))
        describe(self.model)

    def glance(self) -> Glance:
        """What was replaced, and by how many numbers."""
        after = sum(structure.cost().parameters for structure in self.structures.values())
        macs = sum(structure.cost().macs for structure in self.structures.values())
        rows = [
            (what, shown_count(self.before), shown_count(found), shown_change(self.before, found))
            for what, found in (("numbers in their place", after), ("multiply-adds of a product", macs))
        ]
        title = f"Reparametrization: {len(self.names)} matrices of {type(self.model).__name__} by {self.method.name}"
        left = [f"{name} stays dense: {why}" for name, why in self.left.items()]
        return Glance(title, rows, ("before", "after", "change"), noted([*self.warnings, *left], self.coverage))

    @staticmethod
    def _structure(module: nn.Module) -> StructuredMatrix:
        return module.structure if isinstance(module, StructuredLinear) else Dense(Site("", module).weight)


def reparametrize(
    model: nn.Module,
    method: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
    **options: object,
) -> Reparametrization:
    """Puts trainable structures in the places of a model's linear maps, before it is trained, in place.

    Args:
        model: any nn.Module, in float32 or float64; its linear layers and convolutions.
        method: a name from `eckart.PARAMETRIZATIONS`.
        include: patterns of the names of matrices to take, or regular expressions behind `re:`; all linear maps but
            the head of a language model where there are none.
        exclude: patterns of those to leave.
        seed: of whatever is drawn.
        **options: of the method; see its card. `keep=0.25` is the share of each matrix that is kept, of all matrices
            together where a method deals it out; with `of="bytes"` or `of="macs"` of those instead of numbers.

    Returns:
        What was replaced and what was not and why; its `schedule` is what the training loop calls.

    Raises:
        Refused: what is asked for is unknown or cannot be had, or weights are not finite; nothing is changed then.

    >>> import torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> made = eckart.reparametrize(net, "monarch", keep=0.5)
    >>> optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    >>> hooks = made.schedule(optimizer, steps=1)
    >>> hooks.before_step()
    >>> net(torch.ones(2, 64)).square().mean().backward()
    >>> hooks.after_backward()
    >>> optimizer.step()
    >>> hooks.after_step()
    >>> made.finish()
    """
    present(model)
    no_single_layer(model)
    without_peft(model)
    card = PARAMETRIZATIONS.find(method)
    check_type("seed", seed, int)
    _check_options(card, options)
    clock = time.perf_counter()
    unfuse(model)
    sites = find_sites(model, as_patterns(include), as_patterns(exclude))
    finite_weights({site.name: site.module for site in sites})
    made: dict[str, StructuredMatrix] = {}
    left: dict[str, str] = {}
    peers = tuple(_layer(site, torch.Generator()).dims for site in sites)
    for site in sites:
        try:
            made[site.name] = _begin(card, site, seed, options, peers)
        except Refused as error:
            left[site.name] = str(error)
    if not made:
        name, why = next(iter(left.items()))
        raise Refused(f"{method} takes none of the {len(left)} matrices; {name}: {why}")
    taken = [site for site in sites if site.name in made]
    reason = reasons(model, embeddings=False, head=False, left=left, of_embeddings=EMBEDDING, of_head=HEAD)
    account = covered(model, made, reason)
    layers = {
        site.name: _emptied(site.module) for site in taken if not site.tied and not hasattr(site.module, "_hf_hook")
    }
    for site in taken:
        replace(model, site, made[site.name])
    describe(model)
    before = sum(site.shape[0] * site.shape[1] for site in taken)
    result = Reparametrization(model, card, dict(options), list(made), left, before, seed, account, _layers=layers)
    result.warnings = warnings_of(account)
    result.seconds = time.perf_counter() - clock
    return result


def _emptied(module: nn.Module) -> nn.Module:
    """A layer like another one, without its numbers."""
    layer = copy.copy(module)
    layer._parameters = {
        name: None if p is None else nn.Parameter(torch.empty_like(p, device="meta"))
        for name, p in module._parameters.items()
    }
    return layer


def _filled(layer: nn.Module, module: StructuredLinear) -> nn.Module:
    """An emptied layer with the matrix of a structure and the bias beside it."""
    matrix = module.structure.to_dense().detach()
    layer.weight = nn.Parameter(Site("", layer).stored(matrix).contiguous())
    if module.bias is not None:
        layer.bias = module.bias
    return layer


def _layer(site: Site, generator: torch.Generator, peers: tuple[tuple[int, ...], ...] = ()) -> Layer:
    return Layer(site.weight, patch_of(site.module), generator, peers)


def _begin(
    card: ParametrizationCard,
    site: Site,
    seed: int,
    options: Mapping[str, object],
    peers: tuple[tuple[int, ...], ...],
) -> StructuredMatrix:
    """What stands in the place of one matrix."""
    weight = site.weight
    if weight.is_meta or weight.dtype not in (torch.float32, torch.float64):
        what = "is on the meta device and holds no numbers" if weight.is_meta else f"is in {weight.dtype}"
        raise Refused(
            f"it {what}: what trains is in float32, or small steps would be lost; model.float() makes it so, and "
            "torch.autocast computes in fewer bits"
        )
    generator = torch.Generator().manual_seed(seed ^ crc32(site.name.encode()))
    layer = _layer(site, generator, peers)
    told = {name: value for name, value in options.items() if name in keywords(card.entry)}
    with torch.no_grad():
        structure = card.entry(layer, **told)
    if not all(bool(torch.isfinite(p).all()) for p in structure.parameters()):
        raise Refused(f"what {card.name} starts from overflows: entries are up to {float(weight.abs().max()):.0e}")
    return structure


def _check_options(card: ParametrizationCard, options: Mapping[str, object]) -> None:
    for name, value in options.items():
        if name not in card.options:
            there = ", ".join(f"{known}=" for known in card.options) or "none"
            raise Refused(f"{card.name} has no option {name}={value!r:.80}; there are {there}")
        check_type(name, value, card.options[name].annotation)
    _planned(card, {}, 1, torch.Generator(), options)  # refuses values before anything is changed


def _planned(
    card: ParametrizationCard,
    structures: Structures,
    steps: int,
    generator: torch.Generator,
    options: Mapping[str, object],
) -> Schedule:
    """What the method does once a step, if anything."""
    if card.schedule is None:
        return Schedule()
    told = {name: value for name, value in options.items() if name in keywords(card.schedule)}
    return card.schedule(structures, steps, generator, **told)
