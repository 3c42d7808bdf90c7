"""Modules of a transformer with fewer units inside."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.linalg.lowrank import Projection, project
from eckart.methods.lowrank import HARDWARE_MULTIPLE, LowRank, balanced, covariance, fit_low_rank
from eckart.methods.registry import Members, compressor, together
from eckart.methods.units import (
    Fits,
    Part,
    Units,
    by_leverage,
    definite,
    kept_columns,
    kept_rows,
    nystrom,
    nystrom_gains,
    pair_scores,
    queries_of,
    remainders,
    rotated_order,
)
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics

RIDGE = 1.0
"""Ridge of the leverage scores, in mean eigenvalues of the covariance."""


@compressor(
    "modegpt",
    paper="Lin et al. 2024, arXiv 2408.09632",
    expression="Chain(Selection, Dense) + bias, Chain(Dense, Selection) + bias",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN),
    allocation="greedy",
)
def modegpt(weight: Tensor, statistics: Statistics) -> LowRank:
    """Modules with fewer units: of MLPs the hidden ones, of query-key and value-output pairs outputs of the heads.

    Matrices of other modules get the best low rank in the input metric. What modules see from outside keeps its
    shape: units that are not kept are zeros that no other matrix reads, so a cache of keys and values stays as large.
    Departures from the paper: statistics are centred, and what is constant goes into biases; heads of one layer may
    keep different numbers of outputs. Its allocation, a sparsity for each layer from the cosine of what goes into
    and comes out of a block, is left out: `greedy` goes by the errors, squared outputs of MLPs and attention, and
    squared scores of queries with keys before they are divided by the root of the size of a head. These are not of
    one unit; where they mislead, `uniform` keeps the same share of every module.
    """
    return fit_low_rank(weight, Metric(right=covariance(statistics)), mean=statistics.get(Need.INPUT_MEAN))


def _moments(members: Members) -> list[tuple[Tensor, Tensor]]:
    """Covariance, (in, in), and mean of the inputs of each member."""
    found = []
    for statistics in members.statistics:
        known = covariance(statistics)
        found.append((known.diag() if known.ndim == 1 else known, statistics.get(Need.INPUT_MEAN)))
    return found


def _doubles(members: Members) -> list[Tensor]:
    """The weights in float64; ValueError where they are not finite."""
    if not all(torch.isfinite(weight).all() for weight in members.weights):
        raise ValueError("the weight has NaN or Inf entries")
    return [weight.double() for weight in members.weights]


def _biases(members: Members) -> list[Tensor | None]:
    return list(members.biases) or [None] * len(members.weights)


def _step(units: int) -> int:
    return HARDWARE_MULTIPLE if units >= 16 * HARDWARE_MULTIPLE else 1


@together("modegpt", "mlp")
def fewer_hidden_units(members: Members) -> Units:
    """Hidden units of the highest ridge leverage; the matrix that reads them predicts what the others did (Nystrom)."""
    *readers, writer = _doubles(members)
    moment, mean = _moments(members)[-1]
    moment = definite(moment)
    order = by_leverage(moment, RIDGE * float(moment.diagonal().mean()))
    hidden, dtype = writer.shape[1], members.weights[0].dtype

    def fit(size: int) -> Fits:
        kept = order[:size].sort().values
        merged = nystrom(writer, moment, kept)
        bias = writer @ mean - merged @ mean[kept]
        rows = [(kept_rows(reader[kept], kept, hidden, dtype), None) for reader in readers]
        return [*rows, (kept_columns(merged, kept, hidden, dtype), bias.to(dtype))]

    added = 0 if _biases(members)[-1] is not None else len(writer)
    parts = [*(Part(reader.shape[1]) for reader in readers), Part(len(writer), bias=added)]
    losses = remainders(nystrom_gains(writer, moment, order))
    return Units(parts, losses, _step(hidden), dtype.itemsize, fit)


@together("modegpt", "query-key")
def fewer_scored(members: Members) -> Units:
    """Outputs of heads with the largest part in the scores, rotated pairs together (CR); the others are constant."""
    heads, dtype = members.heads, members.weights[0].dtype
    assert heads is not None
    weights = _doubles(members)
    squares, means, constants = [], [], []
    for weight, (moment, mean), bias in zip(weights, _moments(members), _biases(members), strict=True):
        constants.append(weight @ mean)
        mean_output = constants[-1] if bias is None else constants[-1] + bias
        means.append(mean_output.square())
        squares.append(((weight @ moment) * weight).sum(1).clamp_min(0) + means[-1])

    def scores(query: Tensor, key: Tensor) -> Tensor:
        return pair_scores(query.view(heads.keys, -1, heads.size), key.view(heads.keys, heads.size), heads.rotary)

    each = (scores(*squares) - scores(*means)).clamp_min(0)
    order, whole = rotated_order(each, heads.rotary)

    def fit(size: int) -> Fits:
        kept = order[:size].sort().values
        fits: Fits = []
        for weight, index, constant in zip(weights, (queries_of(kept, heads), kept), constants, strict=True):
            rest = constant.index_fill(0, index, 0.0).to(dtype)
            fits.append((kept_rows(weight[index], index, len(weight), dtype), rest))
        return fits

    added = [0 if bias is not None else len(weight) for weight, bias in zip(weights, _biases(members), strict=True)]
    columns = [weight.shape[1] for weight in weights]
    parts = [Part(columns[0], heads.queries // heads.keys, added[0]), Part(columns[1], 1, added[1])]
    step = _step(heads.keys * heads.size)
    return Units(parts, remainders(each.flatten()[order]), step, dtype.itemsize, fit, whole)


@together("modegpt", "value-output")
def fewer_values(members: Members) -> Units:
    """For each head of values the best low rank of its product with the outputs that read it, in the input metric."""
    heads, dtype = members.heads, members.weights[0].dtype
    assert heads is not None
    value, output = _doubles(members)
    (moment, mean), _ = _moments(members)
    served = heads.queries // heads.keys
    own = value.view(heads.keys, heads.size, -1)
    # [O_1; O_2; ...] of the query heads that read each head of values.
    read = output.view(len(output), heads.keys, served, heads.size).permute(1, 2, 0, 3).flatten(1, 2)
    products: list[tuple[Tensor, Projection]] = []
    for v, o in zip(own, read, strict=True):
        r = torch.linalg.qr(o).R @ v
        products.append((r, project(r, Metric(right=moment))))
    gains = torch.stack([-projection.errors.diff() for _, projection in products])
    order = gains.flatten().argsort(descending=True, stable=True)
    bias = _biases(members)[0]
    constant = (
        output
        @ ((value @ mean) if bias is None else (value @ mean) + bias)
        .view(heads.keys, 1, heads.size)
        .expand(-1, served, -1)
        .flatten()
    )

    def fit(size: int) -> Fits:
        ranks = (order[:size] // gains.shape[1]).bincount(minlength=heads.keys).tolist()
        rows, columns = [], []
        for rank, o, (r, projection) in zip(ranks, read, products, strict=True):
            left, right = projection.factors(r, rank)
            left, right = balanced(torch.linalg.qr(o).Q @ left, right)
            rows.append(right)
            columns.append(left.view(served, len(output), rank).transpose(0, 1))
        places = torch.cat([torch.arange(rank, device=value.device) + i * heads.size for i, rank in enumerate(ranks)])
        values, outputs = torch.cat(rows), torch.cat([c.flatten(1) for c in columns], 1)
        told = torch.cat([(x @ mean).expand(served, -1).flatten() for x in rows])
        rest = (constant - outputs @ told).to(dtype)
        return [
            (kept_rows(values, places, len(value), dtype), None if bias is None else -bias),
            (kept_columns(outputs, queries_of(places, heads), output.shape[1], dtype), rest),
        ]

    added = 0 if _biases(members)[1] is not None else len(output)
    parts = [Part(value.shape[1]), Part(len(output), served, added)]
    losses = remainders(gains.flatten()[order])
    return Units(parts, losses, _step(gains.numel()), dtype.itemsize, fit)
