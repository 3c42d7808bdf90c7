"""Modules of a transformer with fewer units inside."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._fewer_units import (
    Fits,
    Part,
    Units,
    centred,
    definite,
    kept_columns,
    kept_rows,
    moments,
    new_bias,
    remainders,
)
from eckart.compressors._head_products import HeadProducts, pair_scores, queries_of, rotated_order
from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import Members, compressor, together
from eckart.linalg.nystrom import by_leverage, nystrom, nystrom_gains
from eckart.metrics import Metric
from eckart.statistics.moments import covariance
from eckart.statistics.needs import Need, Statistics
from eckart.structures.quantized import finite_matrix

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
    and comes out of a block, is `influence`; by default `greedy` goes by the errors, squared outputs of MLPs and
    attention, and squared scores of queries with keys before they are divided by the root of the size of a head.
    These are not of one unit; where they mislead, `uniform` keeps the same share of every module. `modegpt-narrow`
    has one width for all layers, which `export --to smaller` cuts out.
    """
    return fit_low_rank(weight, Metric.measured(right=covariance(statistics)), mean=statistics.get(Need.INPUT_MEAN))


@together("modegpt", "mlp")
def fewer_hidden_units(members: Members) -> Units:
    """Hidden units of the highest ridge leverage; the matrix that reads them predicts what the others did (Nystrom)."""
    return hidden_units(members, centre=True)


def hidden_units(members: Members, centre: bool) -> Units:
    """Those of one MLP, with or without a bias for what is constant."""
    *readers, writer = (finite_matrix(weight).double() for weight in members.weights)
    moment, mean = (centred(members) if centre else moments(members))[-1]
    moment = definite(moment)
    order = by_leverage(moment, RIDGE * float(moment.diagonal().mean()))
    hidden, dtype = writer.shape[1], members.weights[0].dtype

    def fit(size: int) -> Fits:
        kept = order[:size].sort().values
        merged = nystrom(writer, moment, kept)
        bias = (writer @ mean - merged @ mean[kept]).to(dtype) if centre else None
        rows = [(kept_rows(reader[kept], kept, hidden, dtype), None) for reader in readers]
        return [*rows, (kept_columns(merged, kept, hidden, dtype), bias)]

    last = Part(len(writer), bias=new_bias(members, -1) if centre else 0)
    parts = [*(Part(reader.shape[1]) for reader in readers), last]
    return Units(parts, remainders(nystrom_gains(writer, moment, order)), dtype.itemsize, fit)


@together("modegpt", "query-key")
def fewer_scored(members: Members) -> Units:
    """Outputs of heads with the largest part in the scores, rotated pairs together (CR); the others are constant."""
    heads, dtype = members.heads, members.weights[0].dtype
    assert heads is not None
    weights = [finite_matrix(weight).double() for weight in members.weights]
    squares, means, constants = [], [], []
    for weight, (moment, mean), bias in zip(weights, centred(members), members.biases, strict=True):
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

    (query, key), served = weights, heads.queries // heads.keys
    parts = [Part(query.shape[1], served, new_bias(members, 0)), Part(key.shape[1], 1, new_bias(members, 1))]
    return Units(parts, remainders(each.flatten()[order]), dtype.itemsize, fit, whole)


@together("modegpt", "value-output")
def fewer_values(members: Members) -> Units:
    """For each head of values the best low rank of its product with the outputs that read it, in the input metric."""
    heads, dtype = members.heads, members.weights[0].dtype
    assert heads is not None
    value, output = (finite_matrix(weight).double() for weight in members.weights)
    (moment, mean), _ = centred(members)
    served = heads.queries // heads.keys
    products = HeadProducts(value, output, heads, moment)
    gains, bias = products.gains.flatten(), members.biases[0]
    order = gains.argsort(descending=True, stable=True)
    mean_value = value @ mean if bias is None else value @ mean + bias
    constant = output @ mean_value.view(heads.keys, 1, heads.size).expand(-1, served, -1).flatten()

    def fit(size: int) -> Fits:
        ranks = (order[:size] // products.gains.shape[1]).bincount(minlength=heads.keys).tolist()
        rows, columns = products.factors(ranks)
        places = torch.cat([torch.arange(rank, device=value.device) + i * heads.size for i, rank in enumerate(ranks)])
        values, outputs = torch.cat(rows), torch.cat(columns, 1)
        told = torch.cat([(x @ mean).expand(served, -1).flatten() for x in rows])
        rest = (constant - outputs @ told).to(dtype)
        own = kept_rows(values, places, len(value), dtype), None if bias is None else -bias
        return [own, (kept_columns(outputs, queries_of(places, heads), output.shape[1], dtype), rest)]

    parts = [Part(value.shape[1]), Part(len(output), served, new_bias(members, 1))]
    return Units(parts, remainders(gains[order]), dtype.itemsize, fit)
