"""The job: a model with fewer numbers that loses as little as possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from eckart import methods
from eckart.budget.solve import ALLOCATIONS
from eckart.calibration import Calibration, as_batches
from eckart.heal import Healing, cut, heal
from eckart.models.sites import Site, find_sites, replace
from eckart.models.tree import checkpointed, in_eval_mode
from eckart.models.written import written
from eckart.plan import CURRENCIES, Plan, make_plan, memory_available
from eckart.progress import Progress, silent
from eckart.sequential import refit
from eckart.statistics import statistics_for
from eckart.statistics.cache import finite_weights
from eckart.statistics.collect import Batch
from eckart.streams import observe


@dataclass(frozen=True)
class Recipe:
    """What is asked for; it travels with the compressed model.

    Attributes:
        method: a name from `eckart methods`.
        keep: share in (0, 1] of the cost that is kept.
        of: what cost: linear-parameters, parameters, bytes or macs.
        allocation: uniform, greedy or exact; None for the method's own.
        floor: least share of its dense cost that a matrix keeps.
        include, exclude: patterns of module names; see `find_sites`.
        embeddings, head: take these matrices too.
        sequential: fit block by block again, on what the compressed blocks before it hand on.
        heal: steps of training for each block, after all else; 0 for none.
        samples: calibration sequences.
        length: tokens in a calibration sequence.
        seed: of everything random.
    """

    method: str = "kfac"
    keep: float = 0.8
    of: str = "linear-parameters"
    allocation: str | None = None
    floor: float = 0.1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    embeddings: bool = False
    head: bool = False
    sequential: bool = False
    heal: int = 0
    samples: int = 64
    length: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        methods.find(self.method)
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep={self.keep} is not a share in (0, 1]; 0.8 keeps 80 %")
        if self.of not in CURRENCIES:
            raise ValueError(f"of={self.of!r} is unknown; there are {', '.join(CURRENCIES)}")
        if self.of == "linear-parameters" and (self.embeddings or self.head):
            raise ValueError("embeddings and the head are not counted in linear-parameters: say of='parameters'")
        if self.allocation is not None and self.allocation not in ALLOCATIONS:
            raise ValueError(f"unknown allocation {self.allocation!r}; there are {', '.join(ALLOCATIONS)}")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor={self.floor} is not a share in [0, 1)")
        if self.samples < 1 or self.length < 2:
            raise ValueError(f"samples={self.samples} and length={self.length} must be at least 1 and 2")
        if self.heal < 0:
            raise ValueError(f"heal={self.heal} steps a block cannot be made; 0 is none, 50 a good many")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} is not in 0..2^63 - 1")


@dataclass
class Compression:
    """A compressed model and what is known about it.

    Attributes:
        model: the model, its matrices replaced in place.
        recipe: what was asked for.
        plan: the candidates of every matrix.
        choice: the size chosen for each site, None for dense.
        calibration: fingerprint, tokens, passes, sequential, gradient_checkpointing.
        seconds: by phase.
        errors: squared error of each site that is not dense, in the method's metric, as it was fitted.
        healing: what the training of the blocks did; None where there was none.
    """

    model: nn.Module
    recipe: Recipe
    plan: Plan
    choice: dict[str, int | None]
    errors: dict[str, float]
    calibration: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    healing: Healing | None = None

    @property
    def error(self) -> float:
        """Summed squared error in the method's metric; for kfac half of it predicts the rise of the loss in nats."""
        return sum(self.errors.values())


def compress(
    model: nn.Module,
    method: str = "kfac",
    *,
    keep: float = 0.8,
    of: str = "linear-parameters",
    calibration: Calibration | None = None,
    tokenizer: Any = None,
    **options: Any,
) -> Compression:
    """Compresses a model in place.

    Args:
        model: any nn.Module with linear layers, in eval mode.
        method: a name from `eckart.methods.METHODS`.
        keep: share in (0, 1] of the cost that is kept.
        of: `linear-parameters`, `parameters`, `bytes` or `macs`.
        calibration: text, texts, token ids (sequences, length), or batches the model can be called with; None lets a
            language model write its own text.
        tokenizer: turns text into ids; needed for text.
        **options: further fields of `Recipe`.

    Raises:
        ValueError: what is asked for is unknown or cannot be had, or weights are not finite; nothing is changed then.

    >>> import torch, eckart
    >>> net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    >>> data = torch.randn(256, 64)
    >>> result = eckart.compress(net, method="kfac", keep=0.5, calibration=[data])
    >>> net[0].structure.cost().parameters < 64 * 64
    True
    """
    recipe = Recipe(method=method, keep=keep, of=of, **options)
    sites_of(model, recipe)
    if calibration is None and needs_data(recipe) and hasattr(model, "generation_config"):
        calibration = written(model, recipe.samples, recipe.length, recipe.seed)
    batches, info = as_batches(calibration, tokenizer, recipe.samples, recipe.length, recipe.seed)
    return run(model, recipe, batches, info)


def sites_of(model: nn.Module, recipe: Recipe) -> list[Site]:
    """The matrices a recipe is about; ValueError where a pattern matches none, or weights are not finite."""
    sites = find_sites(model, recipe.include, recipe.exclude, embeddings=recipe.embeddings, head=recipe.head)
    finite_weights({site.name: site.module for site in sites})
    return sites


def needs_data(recipe: Recipe) -> bool:
    """Whether a recipe has to be calibrated."""
    return bool(methods.find(recipe.method).needs) or recipe.sequential or recipe.heal > 0


def run(
    model: nn.Module,
    recipe: Recipe,
    batches: Sequence[Batch],
    info: Mapping[str, Any],
    *,
    cache: Path | None = None,
    memory: int | None = None,
    scheduler: str | None = None,
    store: Store | None = None,
    search: Callable[[Plan, nn.Module], dict[str, int | None]] | None = None,
    progress: Progress = silent,
) -> Compression:
    """`compress` with its parts handed in.

    Args:
        model: changed in place.
        recipe: what to do.
        batches, info: from `as_batches`.
        cache: directory for statistics; None keeps them in memory.
        memory: bytes the statistics may take in one pass.
        scheduler: address of a Dask scheduler for the fits.
        store: where finished sites are kept, so that an interrupted run goes on; None for nowhere.
        search: picks the sizes instead of `recipe.keep`.
        progress: told of the phases.
    """
    method = methods.find(recipe.method)
    sites = sites_of(model, recipe)
    modules = {site.name: site.module for site in sites}
    if needs_data(recipe) and not batches:
        needs = ", ".join(need.value for need in method.needs) or "the pass over the blocks"
        raise ValueError(f"{method.name} needs calibration data (for {needs}): pass calibration=")
    allocation = recipe.allocation or method.allocation
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(phase: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[phase] = seconds.get(phase, 0.0) + now - clock
        clock = now

    def report(phase: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(phase, done, total)

    with in_eval_mode(model):
        observed = None
        if recipe.sequential or recipe.heal:
            observed = observe(model, sites, cut(batches) if recipe.heal else batches)
        lap("statistics")
        with checkpointed(model, _activation_bytes(sites, batches) > (memory or memory_available()) // 2) as recomputed:
            statistics, passes = statistics_for(
                model,
                modules,
                method.needs,
                batches,
                seed=recipe.seed,
                cache=cache,
                memory=memory,
                on_progress=report("statistics"),
            )
        lap("statistics")
        plan = make_plan(model, sites, method, statistics)
        plan.fit(scheduler, report("fit"), errors=search is not None or allocation != "uniform")
        lap("fit")
        if search is not None:
            choice = search(plan, model)
        else:
            choice = plan.choose(recipe.keep, recipe.of, allocation, recipe.floor)
        lap("solve")
        errors = apply(model, plan, choice, store, progress)
        lap("build")
        if observed is not None and recipe.sequential:
            errors |= refit(model, plan, choice, observed, on_progress=report("sequential"))
            lap("sequential")
        healing = None
        if observed is not None and recipe.heal:
            healing = heal(model, observed, recipe.heal, seed=recipe.seed, on_progress=report("heal"))
            lap("heal")
    calibration = {
        **info,
        "passes": passes,
        "sequential": recipe.sequential,
        "gradient_checkpointing": recomputed,
    }
    warnings = [f"{n} stays dense: {c.reason}" for n, c in plan.curves.items() if c.reason.startswith("fit failed")]
    return Compression(model, recipe, plan, choice, errors, calibration, seconds, warnings, healing)


def _activation_bytes(sites: Sequence[Site], batches: Sequence[Batch]) -> int:
    """Roughly what a backward pass over one batch holds: inputs and outputs of every site, twice, in float32."""
    first = next(iter(batches), None)
    tokens = first.numel() if isinstance(first, Tensor) and not first.is_floating_point() else 0
    return 8 * tokens * sum(sum(site.shape) for site in sites if not site.is_embedding)


class Store(Protocol):
    """Keeps finished sites."""

    def get(self, name: str, size: int) -> methods.Fitted | None: ...

    def put(self, name: str, size: int, fitted: methods.Fitted) -> None: ...


def apply(
    model: nn.Module,
    plan: Plan,
    choice: Mapping[str, int | None],
    store: Store | None = None,
    progress: Progress = silent,
) -> dict[str, float]:
    """Builds the chosen candidates and puts them in; returns their squared errors by site name."""
    errors = {}
    for done, site in enumerate(plan.sites, 1):
        size = choice[site.name]
        if size is not None:
            fitted = store.get(site.name, size) if store else None
            if fitted is None:
                fitted = plan.family(site).build(size)
                if store:
                    store.put(site.name, size, fitted)
            put(model, site, fitted)
            errors[site.name] = fitted.error
        progress("build", done, len(plan.sites))
    return errors


def put(model: nn.Module, site: Site, fitted: methods.Fitted) -> None:
    replace(model, site, fitted.structure, None if site.is_embedding else fitted.bias)
