"""What a compression would take, do and cost, found out on a few matrices and a few tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from eckart._version import __version__
from eckart.budget import ALLOCATIONS
from eckart.compressors.contract import METHODS
from eckart.jobs.calibration import Body
from eckart.jobs.compress.blockwise.directory import of_larger
from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.coverage import covered_by, sites_of
from eckart.jobs.compress.curves import Curve, dense_cost, fit_or_reason
from eckart.jobs.compress.directory import check_limits, opened, read, room_for_statistics
from eckart.jobs.compress.plan import Plan, make_plan
from eckart.jobs.compress.prices import prices
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.jobs.compress.report import allocation_of, requested
from eckart.jobs.compress.rotated import kept_by_rotation, rotation_adds
from eckart.jobs.compress.sized import left_dense, sized
from eckart.jobs.compress.timed import attach_clock
from eckart.jobs.coverage import kind_of
from eckart.jobs.evaluate.quality import config_of
from eckart.jobs.material import Size, calibration_of
from eckart.jobs.texts import Texts, read_texts
from eckart.machine import executor_at
from eckart.models.experts import per_token
from eckart.models.groups import Group
from eckart.models.sites import Site, model_bytes
from eckart.models.tasks import writes
from eckart.models.transformers import Loaded
from eckart.progress import Progress, silent
from eckart.report import as_json
from eckart.statistics import Statistics, cache_directory, statistics_for
from eckart.statistics.batches import Batch, call
from eckart.statistics.precision import said_of

SEQUENCES = 2
"""Samples that the model is timed on."""


def dry_run(
    source: str,
    recipe: Recipe,
    texts: Texts,
    *,
    max_loss: float | None = None,
    memory: int | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Any]:
    """Says what `compress_directory` would do with these arguments, and writes nothing.

    One matrix (or group) of each shape is fitted, to statistics of a few random tokens: that gives the costs of its
    candidates, which do not depend on the data, and the time and memory of a fit.

    Returns:
        `coverage`: see `eckart.report.types.Coverage`. `budget`: the `least` share that can be kept, `size` before and
        after, and what each kind of matrix keeps, at the size that was said or if all keep the same share; None with
        `max_loss`. `seconds` and
        `memory` (bytes) expected, by what they are for. `notes`: what is not in these numbers.

    Raises:
        Refused: as `compress_directory` does for a request that cannot be met.
    """
    check_limits(max_loss, memory, None, texts, recipe)
    body, _ = read_texts(texts, needs_data(recipe))
    clock = time.perf_counter()
    loaded, where = read(source, device, progress)
    larger = of_larger(loaded.model, recipe, memory, where)
    if not larger:
        loaded.model.to(where)
    opened(loaded, recipe, texts)
    model = loaded.model
    rows = rows_of(loaded, recipe, texts, body)
    seconds = {"load": time.perf_counter() - clock}
    method, limit = recipe.card, room_for_statistics(memory, model_bytes(model))
    plan = make_plan(model, sites_of(model, recipe), method, {})
    plan.added = rotation_adds(model, recipe)
    sorts = _sorts(plan.groups)
    examples = [same[0] for same in sorts]
    passed = _Pass(model, rows, recipe, [site for group in examples for site in group.sites], plan.sites)
    plan.statistics = per_token(model, passed.statistics)
    seconds |= passed.seconds(texts, limit)
    blind = recipe.size is not None or ALLOCATIONS[recipe.allocation or method.allocation].blind
    fits = _fits(plan, examples, not blind or max_loss is not None, progress)
    for same, fit in zip(sorts, fits, strict=True):
        plan.curves |= {group.name: fit.curve for group in same}
    one_thread = sum(len(same) * fit.seconds for same, fit in zip(sorts, fits, strict=True))
    seconds["fit"] = one_thread / max(1, torch.get_num_threads())
    seconds["total"] = sum(seconds.values())
    needed = {
        "model": model_bytes(model),
        "statistics": min(limit, passed.bytes),
        "candidates": min(plan.held_limit, _held(plan)),
    }
    told = attach_clock(plan, model, recipe, cache_directory(), progress)
    choice = _choice(plan, recipe) if max_loss is None else {}
    warnings = left_dense(plan, choice, *recipe.size) if recipe.size else []
    return {
        "eckart": __version__,
        "model": source,
        "method": recipe.method,
        "allocation": allocation_of(recipe, method),
        "requested": as_json(requested(recipe, max_loss)),
        "coverage": as_json(covered_by(model, recipe, kept_by_rotation(model, dict(plan.added)))),
        "budget": None if max_loss is not None else _budget(plan, choice, recipe),
        "seconds": seconds,
        "memory": needed | {"total": sum(needed.values())},
        "notes": [*warnings, *told, *larger, *_notes(plan, recipe, blind, max_loss)],
    }


def _key(group: Group) -> tuple[Any, ...]:
    """What groups share whose candidates cost the same."""
    return group.kind, *((site.shape, site.weight.dtype, site.is_embedding) for site in group.sites)


def _sorts(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups whose candidates cost the same, together."""
    sorts: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        sorts.setdefault(_key(group), []).append(group)
    return list(sorts.values())


def rows_of(loaded: Loaded, recipe: Recipe, texts: Texts, body: Body | None) -> list[Batch]:
    """A few samples to time the model on: of random tokens, or else of the calibration; none where there is none."""
    if writes(loaded.model):
        size = SEQUENCES, recipe.length
        tokens = torch.randint(
            config_of(loaded.model).vocab_size, size, generator=torch.Generator().manual_seed(recipe.seed)
        )
        return [row[None] for row in tokens]
    if body is None:
        return []
    read = calibration_of(texts.calibration, body, loaded, Size(1, recipe.length, recipe.seed))
    return [*read.batches] * SEQUENCES


class _Pass:
    """The model on a few samples: statistics of some matrices, and what those of all would take.

    Attributes:
        statistics: of the examples.
        bytes: of the statistics of all matrices.
    """

    def __init__(
        self, model: nn.Module, rows: Sequence[Batch], recipe: Recipe, examples: Sequence[Site], sites: Sequence[Site]
    ) -> None:
        needs = METHODS.find(recipe.method).needs
        self._needed = bool(needs)
        self._samples = recipe.samples
        self._forward = 0.0
        with torch.inference_mode():
            for row in rows:  # the first one warms up
                self._forward = _timed(partial(call, model, row))

        def measured(some: Sequence[Site]) -> tuple[dict[str, Statistics], float]:
            modules = {site.name: site.module for site in some}
            clock = time.perf_counter()
            found, _ = statistics_for(model, modules, needs, rows, mixed_precision=recipe.mixed_precision)
            return found, (time.perf_counter() - clock) / max(1, len(rows))

        # One matrix alone costs the pass over the model; what the others add to that grows as their moments do.
        _, alone = measured(examples[:1])
        self.statistics, together = measured(examples)
        more = max(0.0, together - alone) / max(1, _squares(examples[1:]))
        self._pass = alone + more * _squares(sites) if self._needed else 0.0
        each = {site.name: _bytes(self.statistics[site.name]) for site in examples}
        shapes = {site.shape: each[site.name] for site in examples}
        self.bytes = sum(shapes[site.shape] for site in sites)

    def seconds(self, texts: Texts, limit: int) -> dict[str, float]:
        """Of the statistics, in as many passes as the memory asks for, and of the evaluation of both models."""
        passes = -(-self.bytes // max(1, limit)) if self._needed else 0
        evaluated = 2 * texts.eval_samples if texts.evaluation else 0
        return {"statistics": passes * self._samples * self._pass, "evaluate": evaluated * self._forward}


def _squares(sites: Sequence[Site]) -> int:
    return sum(n * n for site in sites for n in site.shape)


def _bytes(statistics: Statistics) -> int:
    tensors = (getattr(statistics, each.name) for each in fields(statistics))
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))


def _timed(act: Callable[[], object]) -> float:
    clock = time.perf_counter()
    act()
    return time.perf_counter() - clock


@dataclass(frozen=True)
class _Fit:
    """One group fitted: its candidates, and the seconds that one thread took."""

    curve: Curve
    seconds: float


def _fits(plan: Plan, examples: Sequence[Group], errors: bool, progress: Progress) -> list[_Fit]:
    def fit(group: Group) -> _Fit:
        clock = time.perf_counter()
        _, curve = fit_or_reason(plan.method, group.kind, plan.members(group), errors)
        return _Fit(curve, time.perf_counter() - clock)

    found = []
    with executor_at(None) as executor:
        for done, fitted in enumerate(executor.map(fit, examples), 1):
            found.append(fitted)
            progress("fit", done, len(examples))
    return found


def _held(plan: Plan) -> int:
    """Bytes of all candidates, if they are factors in float32."""
    return sum(4 * sum(site.shape) * min(site.shape) for site in plan.sites)


def _choice(plan: Plan, recipe: Recipe) -> Choice:
    """The size of every group that was said, or else those at which all keep the same share.

    Of several methods the largest candidate that fits a share may be the worst: there errors decide.
    """
    if recipe.size is not None:
        return sized(plan, *recipe.size)
    allocation = None if _by_errors(plan, recipe) else "uniform"
    return plan.solve(recipe.share, recipe.of, allocation, recipe.floor)


def _by_errors(plan: Plan, recipe: Recipe) -> bool:
    return recipe.allocation is None and plan.method.size == "candidate"


def _budget(plan: Plan, choice: Choice, recipe: Recipe) -> dict[str, Any]:
    """The least that can be kept, and what becomes of each kind of matrix at a choice."""
    total, saved = plan.total(recipe.of), {name: -plan.added.get(name, 0) for name in ("parameters", "bytes")}
    priced = prices(plan.groups, plan.curves, recipe.of, plan.clock)
    least = total + plan.added.get(recipe.of, 0) - sum(float(each[-1] - each.min()) for each in priced)
    kinds: dict[str, list[tuple[int | None, float, float]]] = {}
    forms: dict[str, set[tuple[str, int]]] = {}
    for group, price in zip(plan.groups, priced, strict=True):
        curve, dense = plan.curves[group.name], dense_cost([site.weight for site in group.sites])
        at = curve.sizes.index(choice[group.name])
        cost = curve.costs[at]
        saved["parameters"] += dense.parameters - cost.parameters
        saved["bytes"] += dense.bytes - cost.bytes
        size = choice[group.name]
        if size is not None and plan.method.size != "candidate":
            size = curve.members[at][1]
        kinds.setdefault(kind_of(group.name), []).append((size, float(price[at]), float(price[-1])))
        forms.setdefault(kind_of(group.name), set()).update(curve.members[at : at + 1])
    return {
        "least": least / total,
        "size": {
            name: {"before": plan.totals[name], "after": plan.totals[name] - less} for name, less in saved.items()
        },
        "matrices": [
            {
                "name": name,
                "count": len(rows),
                "counts": plan.method.size,
                "sizes": sorted({size for size, _, _ in rows if size is not None}),
                "forms": [f"{method} {size}" for method, size in sorted(forms[name])],
                "dense": sum(size is None for size, _, _ in rows),
                "keep": sum(cost for _, cost, _ in rows) / sum(dense for _, _, dense in rows),
            }
            for name, rows in kinds.items()
        ],
    }


def _notes(plan: Plan, recipe: Recipe, blind: bool, max_loss: float | None) -> Iterable[str]:
    yield "time and memory are guesses from a few tokens and one matrix of each shape"
    yield from said_of(recipe.mixed_precision)
    if max_loss is not None:
        yield "how small it gets depends on what is lost: the search evaluates several sizes, not counted here"
    elif _by_errors(plan, recipe):
        yield "what is picked is guessed from one matrix of each shape, on random tokens"
    elif not blind:
        allocation = recipe.allocation or METHODS.find(recipe.method).allocation
        yield f"sizes are as if every matrix kept the same share; {allocation} shares out by what each loses"
    yield "what is built, written and timed (--no-speed leaves the last out) is not counted"
    trained = [f"--{name}" for name in ("sequential", "heal", "distill") if getattr(recipe, name)]
    if trained:
        yield f"the time of {', '.join(trained)} is not counted"
    if recipe.method == "auto":
        yield "the trials of auto are not counted; where they find that bytes buy nothing, less is kept"
