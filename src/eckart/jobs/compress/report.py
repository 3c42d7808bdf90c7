"""What a report says of a compression: what was asked for, and what each matrix became."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from eckart._version import __version__
from eckart.compressors.contract import METHODS, CompressorCard
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.curves import Curve, dense_cost
from eckart.jobs.compress.recipe import Recipe, needs_data
from eckart.machine import peak_rss_bytes
from eckart.models.groups import Group
from eckart.report import compression as said
from eckart.report import requests as asked
from eckart.report.types import CountPair, Memory, Quality, Size, Speed
from eckart.structures import StructuredMatrix, input_bits

POINTS = 33
"""Candidates of a curve that a report names at most."""
SPECTRUM = 64
"""Singular values that a report names at most."""


def compression_report(
    result: Compression,
    *,
    model: str,
    max_loss: float | None,
    text: str,
    size: Size,
    quality: Quality | None,
    speed: Speed | None,
    seconds: Mapping[str, float],
    history: Sequence[said.MeasuredSize],
    warnings: Sequence[str],
    command: Sequence[str],
) -> said.CompressionReport:
    """All that is known of a compression; calibration is null where the method looked at no text."""
    recipe, calibration = result.recipe, result.calibration
    return said.CompressionReport(
        eckart=__version__,
        model=model,
        method=recipe.method,
        allocation=allocation_of(recipe, result.plan.method),
        seed=recipe.seed,
        requested=requested(recipe, max_loss),
        calibration=said.Calibration(text=text, **calibration) if needs_data(recipe) else None,
        size=size,
        quality=quality,
        speed=speed,
        memory=Memory(peak_rss_bytes=peak_rss_bytes()),
        seconds=said.Seconds(**seconds),
        sites=matrices(result),
        warnings=[*warnings, *result.notes, *result.warnings],
        coverage=result.coverage,
        distill=distilled(result),
        heal=healed(result),
        history=history,
        trials=[said.Trial(**trial) for trial in result.trials],
        command=command,
    )


def allocation_of(recipe: Recipe, method: CompressorCard) -> str | None:
    """How the budget is shared out; None where there is none."""
    return None if recipe.size else recipe.allocation or method.allocation


def requested(recipe: Recipe, max_loss: float | None) -> asked.Request:
    """What was asked for: a share of the whole, or a loss or a size of every matrix in its place."""
    options = recipe.options
    if max_loss is not None:
        return asked.RequestedLoss(max_loss=max_loss, **options)
    if recipe.size is not None:
        counts, each = recipe.size
        return asked.RequestedEach(counts=counts, each=each, **options)
    return asked.RequestedSize(keep=recipe.share, of=cast(asked.Currency, recipe.of), **options)


def size_change(before: Mapping[str, int], after: Mapping[str, int]) -> Size:
    """The sizes of both models, by name."""
    return Size(**{name: CountPair(before=size, after=after[name]) for name, size in before.items()})


def healed(result: Compression) -> said.Healed | None:
    """What the training of the blocks did; None where there was none."""
    healing = result.healing
    if healing is None:
        return None
    return said.Healed(steps=healing.steps, loss_before=healing.before, loss_after=healing.after)


def distilled(result: Compression) -> said.Distilled | None:
    """What the training end to end did; None where there was none."""
    distillation = result.distillation
    return None if distillation is None else said.Distilled(steps=distillation.steps, kl=distillation.kl)


def matrices(result: Compression) -> list[said.Matrix]:
    """What each matrix became, its error, and its nested curve."""
    return [matrix(result, group, i) for group in result.plan.groups for i in range(len(group.sites))]


def matrix(result: Compression, group: Group, position: int) -> said.Matrix:
    """What the matrix at a position of a group became."""
    site, halved = group.sites[position], result.plan.method.predicts_loss
    curve, size = result.plan.curves[group.name], result.choice[group.name]
    dense = dense_cost([site.weight])
    structure: StructuredMatrix | None = getattr(result.model.get_submodule(site.name), "structure", None)
    cost = dense if structure is None else structure.cost()
    error = result.errors.get(site.name, 0.0)
    alone = len(group.sites) == 1
    chosen: dict[str, Any] = {}
    if size is not None:
        name, own = curve.members[curve.sizes.index(size)]
        chosen = {"method": name, _counts(name, group.kind): own}
    return said.Matrix(
        name=site.name,
        structure="Dense" if structure is None else expression(structure),
        shape=site.shape,
        parameters=cost.parameters,
        bytes=cost.bytes,
        dense_bytes=dense.bytes,
        error=error / curve.zero_error if curve.zero_error > 0 else 0.0,
        dense=size is None,
        group=None if alone else group.name,
        curve=_points(curve, group.kind, halved) if alone else None,
        spectrum=_spectrum(curve) if alone else None,
        predicted_kl=error / 2 if halved else None,
        reason=curve.reason or None,
        input_bits=None if structure is None else input_bits(structure),
        **chosen,
    )


def expression(module: StructuredMatrix) -> str:
    """A structure as an expression: `Chain(Dense, Dense)`."""
    children = module.operands()
    name = type(module).__name__
    return f"{name}({', '.join(map(expression, children))})" if children else name


def _counts(method: str, kind: str) -> str:
    """What the sizes of a method count in a group of a kind: a word of `eckart.SIZES`."""
    card = METHODS.find(method)
    return card.counted.get(kind, card.size)


def _drawn(curve: Curve) -> bool:
    """Whether there is a curve to show."""
    return curve.errors is not None and curve.zero_error > 0 and len(curve.sizes) > 1


def _points(curve: Curve, kind: str, halved: bool) -> said.Curve | None:
    """At most `POINTS` of the candidates whose errors were measured."""
    if curve.errors is None or not _drawn(curve):
        return None
    sure = [i for i, size in enumerate(curve.sizes) if curve.known is None or size is None or size in curve.known]
    picked = [sure[i] for i in torch.linspace(0, len(sure) - 1, min(POINTS, len(sure))).round().long().tolist()]
    words = [f"{_counts(name, kind)} {own}" for name, own in curve.members]
    return said.Curve(
        parameters=[curve.costs[i].parameters for i in picked],
        bytes=[curve.costs[i].bytes for i in picked],
        error=[curve.errors[i] / curve.zero_error for i in picked],
        size=["dense" if curve.sizes[i] is None else words[i] for i in picked],
        predicted_kl=[max(0.0, curve.errors[i]) / 2 for i in picked] if halved else None,
    )


def _spectrum(curve: Curve) -> list[float] | None:
    """At most `SPECTRUM` singular values, where the method knows them."""
    if curve.spectrum is None or not _drawn(curve):
        return None
    at = torch.linspace(0, len(curve.spectrum) - 1, min(SPECTRUM, len(curve.spectrum))).round().long()
    return [float(v) for v in curve.spectrum[at].clamp_min(0).sqrt()]
