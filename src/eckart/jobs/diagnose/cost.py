"""What compressing would cost: predicted for every rank of every linear map, and measured at whole sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.compressors.contract import METHODS
from eckart.errors import Refused, check_type
from eckart.jobs.compress.curves import Curve
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.trials import HELD_BACK, held_back
from eckart.jobs.diagnose.matrices import look_at
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.experts import per_token
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.progress import Progress
from eckart.statistics import statistics_for
from eckart.statistics.batches import Batch

METHOD = "kfac"
"""The method whose nested errors are the curves."""

CURRENCY = "linear-parameters"
"""What the sizes that are measured are shares of."""

CURVE_POINTS = 33


def check_measure(measure: Sequence[float], sequences: int) -> None:
    """Raises Refused for sizes that there cannot be, or where there are too few sequences to measure them on."""
    if not isinstance(measure, list | tuple):
        raise Refused(f"measure={measure!r:.80} is no list of shares, such as [0.8, 0.6]")
    for keep in measure:
        check_type("measure", keep, float)
        if not 0 < keep <= 1:
            raise Refused(f"measure={keep} is not in (0, 1]: it is the share of the linear parameters that is kept")
    if measure and not sequences:
        raise Refused("there is no text to measure on: name one with --text, or give tokens=")
    if measure and sequences < HELD_BACK:
        raise Refused(f"one sequence in {HELD_BACK} is held back to measure on: {sequences} are too few")


def split(tokens: Tensor | Sequence[Batch], measure: Sequence[float]) -> tuple[Sequence[Batch], Tensor]:
    """Batches for the statistics, and the sequences to measure on, which are none where nothing is to be measured."""
    if not isinstance(tokens, Tensor):
        return tokens, torch.empty(0)
    batches = list(torch.split(tokens, max(1, 1024 // tokens.shape[1])))
    return held_back(batches) if measure else (batches, tokens[:0])


def cost_plan(
    model: nn.Module,
    batches: Sequence[Batch],
    include: Sequence[str],
    exclude: Sequence[str],
    *,
    seed: int,
    cache: Path | None,
    memory: int | None,
    hold: bool,
    progress: Progress,
) -> Plan | None:
    """The candidates of every linear map, fitted; None where there are no linear maps.

    Args:
        model: dense.
        batches: for the statistics.
        include, exclude, seed, cache, memory: see `eckart.diagnose`.
        hold: keep the factors as far as memory allows; False where nothing will be built.
        progress: told of the phases.
    """
    inner = {site.name for site in find_sites(model)}
    sites = [site for site in look_at(model, include, exclude) if site.name in inner]
    if not sites:
        return None
    method = METHODS.find(METHOD)
    statistics, _ = statistics_for(
        model,
        {site.name: site.module for site in sites},
        method.needs,
        batches,
        seed=seed,
        cache=cache,
        memory=memory,
        on_progress=lambda done, total: progress("statistics", done, total),
    )
    plan = make_plan(model, sites, method, per_token(model, statistics))
    if not hold:
        plan.held_limit = 0
    plan.fit(None, lambda done, total: progress("curves", done, total))
    return plan


def cost_curves(plan: Plan) -> dict[str, dict[str, list[Any]]]:
    """For each linear map, by name, what each rank would cost: parameters, bytes, and the rise of the loss in nats."""
    return {name: _decimated(curve) for name, curve in plan.curves.items() if curve.errors and len(curve.sizes) > 1}


def _decimated(curve: Curve) -> dict[str, list[Any]]:
    assert curve.errors is not None
    count = len(curve.sizes)
    at = torch.linspace(0, count - 1, min(CURVE_POINTS, count)).round().long().tolist()
    sizes = [curve.sizes[i] for i in at]
    return {
        "size": ["dense" if size is None else f"rank {size}" for size in sizes],
        "parameters": [curve.costs[i].parameters for i in at],
        "bytes": [curve.costs[i].bytes for i in at],
        "macs": [curve.costs[i].macs for i in at],
        "predicted_kl": [max(0.0, curve.errors[i]) / 2 for i in at],
    }


def measured_costs(
    plan: Plan, model: nn.Module, sequences: Tensor, measure: Sequence[float], progress: Progress
) -> list[dict[str, Any]]:
    """What sizes of the whole model cost, predicted and measured, from the largest down.

    Each is chosen as `eckart.compress` chooses it, and built into a copy that shares all other tensors.

    Args:
        plan: of the model.
        model: a dense language model; not changed.
        sequences: token ids (n, length) that the statistics have not seen.
        measure: shares of the linear parameters.
        progress: told of the phase "measure".

    Raises:
        Refused: a share that cannot be had; the least that can is named.
    """
    shares = sorted(set(measure), reverse=True)
    choices = [plan.choose(keep, CURRENCY) for keep in shares]
    rows = []
    for done, (keep, choice) in enumerate(zip(shares, choices, strict=True), 1):
        trial = share(model)
        apply(trial, plan, choice)
        found = evaluate(trial, sequences, model, micro_batch=4)
        assert found.reference is not None
        rows.append(
            {
                "keep": keep,
                "of": CURRENCY,
                "predicted_kl": plan.error(choice) / 2,
                "kl": found.kl,
                "perplexity": {"before": found.reference.perplexity, "after": found.perplexity},
                "tokens": found.tokens,
            }
        )
        progress("measure", done, len(shares))
    return rows
