"""Compressing a model of which one block is in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eckart.budget.contract import find as find_allocation
from eckart.errors import Refused
from eckart.jobs.compress.block_streams import blocks_of
from eckart.jobs.compress.blockwise.records import curves_in, put_curves
from eckart.jobs.compress.blockwise.shards import Shards
from eckart.jobs.compress.blockwise.units import Units, sites_by_unit
from eckart.jobs.compress.blockwise.walk import Walk
from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.coverage import covered_by, sites_of
from eckart.jobs.compress.data import known_of
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.rounded_inputs import rounded_inputs
from eckart.jobs.compress.sized import check_offered, left_dense, sizes_of
from eckart.jobs.coverage import warnings_of
from eckart.models.block_files import BlockFiles
from eckart.models.saving import describe
from eckart.models.sharing import share
from eckart.progress import Laps, Progress, phase
from eckart.statistics.batch_checks import check_batches
from eckart.statistics.batches import Batch
from eckart.statistics.cache import finite_weights
from eckart.statistics.precision import said_of


def opened_files(model: nn.Module, recipe: Recipe, files: Sequence[Path], device: torch.device) -> BlockFiles:
    """The blocks of a model in its files, and no longer in the model; Refused where it has none that can be read.

    What is in no block is put on the device, and blocks will be while they are worked on.
    """
    prefix, _ = blocks_of(model, sites_of(model, recipe))
    return BlockFiles(model, prefix, files, device)


def run_blockwise(
    model: nn.Module,
    files: BlockFiles,
    recipe: Recipe,
    batches: Sequence[Batch],
    info: Mapping[str, Any],
    finished: Path,
    *,
    limit: int,
    scheduler: str | None,
    lap: Laps,
    progress: Progress,
) -> tuple[Compression, Shards]:
    """As `run`, for a model whose blocks are in files, and whose compressed blocks go into files.

    A size of every matrix takes one pass: a block is measured, fitted, built and written before the next one is read.
    A budget takes two: the errors of all candidates are learned first, and statistics are kept until the blocks that
    were chosen are built.

    Args:
        model: its blocks on the meta device; those of the compressed model too.
        files, recipe: what is compressed, and how.
        batches, info: from `as_batches`.
        finished: directory of what an interrupted run goes on from.
        limit: bytes that the statistics of one pass over a block may take.
        scheduler, lap, progress: see `run`.

    Returns:
        What is known of the compression, and the files of the compressed model.
    """
    method, dense = recipe.card, share(model)
    check_batches(dense, batches)
    finite_weights({"": dense})  # as far as they are there
    sites = sites_of(dense, recipe)
    walk = None
    if method.needs:
        by_unit = sites_by_unit(sites, files)
        walk = Walk(
            dense,
            files,
            by_unit,
            method.needs,
            batches,
            seed=recipe.seed,
            mixed_precision=recipe.mixed_precision,
            directory=finished,
            limit=limit,
        )
    plan = make_plan(dense, sites, method, {})
    plan.scheduler = scheduler
    kept = None if recipe.size else finished
    units = Units(dense, files, plan, walk, kept, phase(progress, "statistics"))
    plan.portions = units
    shards = Shards(model, dense, files.prefix, len(files), finished)
    job = _Job(model, recipe, plan, units, shards, finished, lap, progress)
    choice, errors = job.each(*recipe.size) if recipe.size else job.together()
    for name in ("statistics", "fit", "solve"):  # none of them is lacking where all was found finished
        lap(name)
    describe(model)
    found = covered_by(dense, recipe)
    amiss = [f"{name} stays dense: {reason}" for name, reason in plan.failures().items()]
    amiss += left_dense(plan, choice, *recipe.size) if recipe.size else []
    result = Compression(
        model,
        recipe,
        plan,
        choice,
        errors,
        calibration=known_of(info, recipe, int(walk is not None)),
        seconds=lap.seconds,
        notes=rounded_inputs(model) + said_of(recipe.mixed_precision),
        warnings=amiss + warnings_of(found),
        coverage=found,
    )
    return result, shards


class _Job:
    """The two ways through the units of a model."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        plan: Plan,
        units: Units,
        shards: Shards,
        finished: Path,
        lap: Laps,
        progress: Progress,
    ) -> None:
        self._model, self._recipe, self._plan, self._units, self._shards = model, recipe, plan, units, shards
        self._finished, self._lap, self._progress = finished, lap, progress

    def each(self, word: str, size: int) -> tuple[Choice, dict[str, float]]:
        """Every matrix at one size, in one pass."""
        plan, choice, errors = self._plan, Choice(), dict[str, float]()
        for unit in self._units.order:
            groups, curves = self._units.groups[unit], curves_in(self._curves(unit))
            before = None if curves is None else self._shards.restored(unit)
            if curves is not None and before is not None:
                plan.curves |= curves
                choice |= before[0]
                errors |= before[1]
                continue
            with self._units.at_hand(unit):
                self._lap("statistics")
                plan.fit_portion(groups, errors=False)
                here = sizes_of(plan, groups, word, size)
                made = apply(self._model, plan, here, None, self._progress, groups)
                self._lap("build")
                put_curves(self._curves(unit), {group.name: plan.curves[group.name] for group in groups})
                self._shards.write(unit, here, made)
                self._lap("write")
            choice |= here
            errors |= made
        check_offered(plan, choice, word, size)
        return choice, errors

    def together(self) -> tuple[Choice, dict[str, float]]:
        """The sizes of all matrices under one budget."""
        plan, recipe, units = self._plan, self._recipe, self._units
        learned = not find_allocation(recipe.allocation or plan.method.allocation).blind
        for unit in units.order:
            curves = curves_in(self._curves(unit))
            if curves is not None and units.kept(unit):
                plan.curves |= curves
            elif units.groups[unit]:
                with units.at_hand(unit):
                    self._lap("statistics")
                    plan.fit_portion(units.groups[unit], phase(self._progress, "fit"), errors=learned)
                    put_curves(self._curves(unit), {g.name: plan.curves[g.name] for g in units.groups[unit]})
                self._lap("fit")
        choice = plan.choose(recipe.share, recipe.of, recipe.allocation, recipe.floor)
        self._lap("solve")
        errors: dict[str, float] = {}
        for unit in units.order:
            groups = units.groups[unit]
            here = {group.name: choice[group.name] for group in groups}
            before = self._shards.restored(unit, here)
            if before is None:
                with units.at_hand(unit):
                    made = apply(self._model, plan, here, None, self._progress, groups)
                    self._lap("build")
                    self._shards.write(unit, here, made)
                    self._lap("write")
                before = here, made
            units.finished(unit)
            choice |= before[0]
            errors |= before[1]
        return choice, errors

    def _curves(self, unit: int) -> Path:
        return self._finished / f"curves-{unit:05d}.safetensors"


def refused_blockwise(recipe: Recipe, max_loss: float | None) -> str:
    """What of a request needs the whole model at once, as a sentence; "" where nothing does."""
    asked = [f"{name}={getattr(recipe, name)}" for name in ("rotate", "sequential", "heal", "distill")]
    wanted = [said for said in asked if not said.endswith(("=False", "=0"))]
    wanted += [f"method={recipe.method!r}"] if recipe.method == "auto" else []
    wanted += [f"of={recipe.of!r}"] if recipe.of.endswith("-time") else []
    allocation = recipe.allocation or recipe.card.allocation
    wanted += [f"allocation={allocation!r}"] if allocation in ("farms", "influence") else []
    wanted += [] if max_loss is None else [f"max_loss={max_loss}"]
    return f"{wanted[0]} works on the whole model at once" if wanted else ""


def check_blockwise(recipe: Recipe, max_loss: float | None) -> None:
    """Raises Refused for a request that needs the whole model at once."""
    if said := refused_blockwise(recipe, max_loss):
        raise Refused(f"{said}, and it does not fit in memory: leave that out, or allow more --memory")
