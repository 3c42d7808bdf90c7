"""Layers of known inputs and gradients, and the metric of each compressor as its paper has it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from eckart import METHODS, Metric, Need, Statistics
from eckart.compressors._low_rank import LowRank
from support import hard

TOKENS = 96


def inputs(columns: int, seed: int = 30) -> Tensor:
    """Correlated inputs x with a mean, (tokens, in)."""
    mixing = hard.orthogonal(columns, seed) * hard.decaying(columns, 1.5)
    return hard.normal(TOKENS, columns, seed=seed) @ mixing.T + 0.5 * hard.normal(1, columns, seed=seed + 1)


def statistics_of(x: Tensor, g: Tensor) -> Statistics:
    """All statistics of inputs x (tokens, in) and output gradients g (tokens, out); eight tokens are a sequence."""
    n = len(x)
    gradients = torch.einsum("sto,sti->soi", g.view(-1, 8, g.shape[1]), x.view(-1, 8, x.shape[1]))
    fisher = gradients.square().mean(0)
    return Statistics(
        tokens=n,
        input_second_moment=x.T @ x / n,
        input_mean=x.mean(0),
        input_abs_mean=x.abs().mean(0),
        input_abs_max=x.abs().amax(0),
        gradient_second_moment=g.T @ g / n,
        fisher_rows=fisher.sum(1),
        fisher_columns=fisher.sum(0),
        input_sample=x,
        gradient_pairs=torch.cat([x, g], 1),
    )


@cache
def layer(out: int, columns: int) -> tuple[Tensor, Tensor, Statistics]:
    """W (out, in), inputs and statistics of a layer. Not to be changed."""
    x = inputs(columns)
    return hard.normal(out, columns, seed=33), x, statistics_of(x, inputs(out, seed=35))


# Those whose candidates are the nested optima of a metric, up to the matrix itself.
NESTED = [name for name, card in METHODS.items() if isinstance(card.entry(*layer(12, 20)[::2]), LowRank)]


@cache
def hard_statistics(columns: int, out: int) -> dict[str, Statistics]:
    """Statistics of inputs and gradients that break careless moments."""
    x, g = inputs(columns), inputs(out, seed=35)
    zeros = torch.zeros_like(g)
    one = torch.zeros(columns, dtype=torch.float64).index_fill(0, torch.tensor([0]), 1e4)
    of = {
        "1e150": (1e150 * x, g),
        "1e-150": (1e-150 * x, g),
        "1e30": (1e30 * x, g),
        "zero": (0 * x, g),
        "constant": (torch.full_like(x, 0.7), g),
        "constant-ramp": (torch.linspace(-1, 1, columns, dtype=torch.float64).expand_as(x), g),
        "one-sample": (x[:1].expand_as(x), g),
        "far-from-zero": (x + 1e4, g),
        "outlier": (x + x[:, :1] * one, g),
        "no-gradients": (x, zeros),
        "constant-without-gradients": (torch.full_like(x, 0.7), zeros),
        "huge-gradients": (x, 1e120 * g),
        "tiny-gradients": (x, 1e-120 * g),
        "all-huge": (1e60 * x, 1e60 * g),
    }
    return {name: statistics_of(*each) for name, each in of.items()}


def covariance(s: Statistics) -> Tensor:
    mean = s.get(Need.INPUT_MEAN)
    return s.get(Need.INPUT_SECOND_MOMENT) - mean.outer(mean)


def damp(moment: Tensor, relative: float) -> Tensor:
    if moment.ndim == 1:
        return moment + relative * moment.mean()
    return moment + relative * moment.trace() / len(moment) * torch.eye(len(moment)).double()


def metric_of(name: str, s: Statistics) -> Metric:
    """The metric of a method as its paper has it."""
    if name in ("svd", "rtn"):
        return Metric()
    if name == "fwsvd":
        return Metric(right=damp(s.get(Need.FISHER_COLUMNS), 1e-6))
    if name == "asvd":
        return Metric(right=damp(s.get(Need.INPUT_ABS_MEAN), 1e-6))
    if name in ("gptq", "eora"):
        return Metric(right=s.get(Need.INPUT_SECOND_MOMENT))
    if name == "lord":
        return Metric(right=covariance(s))
    assert name == "kfac"
    return Metric(damp(s.get(Need.GRADIENT_SECOND_MOMENT), 1e-2), damp(covariance(s), 1e-2))


WITH_METRIC = [name for name in ("svd", "fwsvd", "asvd", "lord", "kfac", "eora", "rtn", "gptq") if name in METHODS]
