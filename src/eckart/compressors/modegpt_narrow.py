"""Transformers with fewer units inside, as many in every layer."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._fewer_units import (
    Even,
    Fits,
    Part,
    Units,
    centred,
    kept_columns,
    kept_rows,
    moments,
    remainders,
)
from eckart.compressors._head_products import HeadProducts, pair_scores, queries_of, rotated_order
from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors.contract import Members, compressor, together
from eckart.compressors.modegpt import hidden_units
from eckart.metrics import Metric
from eckart.statistics.moments import covariance
from eckart.statistics.needs import Need, Statistics
from eckart.structures.quantized import finite_matrix

HARDWARE = 8
"""What sizes of heads are multiples of, where heads are at least four times as large."""


@compressor(
    "modegpt-narrow",
    paper="Lin et al. 2024, arXiv 2408.09632",
    expression="Chain(Selection, Dense), Chain(Dense, Selection)",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN),
)
def modegpt_narrow(weight: Tensor, statistics: Statistics) -> LowRank:
    """MoDeGPT with one hidden width and one size of heads for all layers, so that `export --to smaller` can cut them.

    What is exported is a smaller model of the same architecture, with a smaller cache of keys and values. For that
    all heads of all layers keep the same rotated pairs, those with the largest part in the scores of all of them
    together (CR), because the rotation is common to all; and heads of values have one rank. As in the paper,
    statistics are not centred, except where the matrix that reads the units has a bias. Attention with norms on
    queries and keys (Qwen3, Gemma 3) is left to the best low rank: the norm of a head reads all of its outputs, so
    none can go and leave the others as they were; `--include "*.mlp.*"` narrows the MLPs of such a model.
    Narrower heads cost much, since one choice of pairs serves all: compare before you rely on them, or leave heads
    whole in that way.
    """
    return fit_low_rank(weight, Metric.measured(right=covariance(statistics)), mean=statistics.get(Need.INPUT_MEAN))


@together("modegpt-narrow", "mlps")
def narrow_mlps(members: Members) -> Even:
    """Of every layer the same number of hidden units, by leverage and Nystrom as in modegpt."""
    return Even([hidden_units(layer, centre=layer.biases[-1] is not None) for layer in members.by_layer()])


@together("modegpt-narrow", "attentions")
def narrow_attentions(members: Members) -> Even:
    """Of all heads the same rotated pairs of queries and keys, and the same rank of value-output products."""
    heads, layers = members.heads, members.by_layer()
    assert heads is not None
    scores = torch.stack([_scores(layer) for layer in layers])
    order, whole = rotated_order(scores.sum(0)[None], heads.rotary)
    step = HARDWARE if heads.size >= 4 * HARDWARE else 1
    whole &= torch.arange(heads.size + 1, device=whole.device) % step == 0
    return Even([_narrow(layer, own[order], order, whole) for layer, own in zip(layers, scores, strict=True)])


def _scores(layer: Members) -> Tensor:
    """The part of each output in the squared scores of all heads of a layer, (size,)."""
    heads, squares = layer.heads, []
    assert heads is not None
    for weight, (moment, mean), bias in zip(layer.weights[:2], moments(layer), layer.biases, strict=False):
        w = finite_matrix(weight).double()
        own = ((w @ moment) * w).sum(1)
        squares.append(own.clamp_min(0) if bias is None else (own + 2 * bias * (w @ mean) + bias**2).clamp_min(0))
    query, key = squares[0].view(heads.keys, -1, heads.size), squares[1].view(heads.keys, heads.size)
    return pair_scores(query, key, heads.rotary).sum(0)


def _narrow(layer: Members, scores: Tensor, order: Tensor, whole: Tensor) -> Units:
    """One attention; scores of its outputs in the order in which they stay."""
    heads, dtype = layer.heads, layer.weights[0].dtype
    assert heads is not None
    query, key, value, output = (finite_matrix(weight).double() for weight in layer.weights)
    query_bias, key_bias, value_bias, output_bias = layer.biases
    served = heads.queries // heads.keys
    moment, mean = centred(layer)[2] if output_bias is not None else moments(layer)[2]
    told = value  # what values are made of: the inputs, and one where they have a bias that nothing else can take up
    if output_bias is None and value_bias is not None:
        told = torch.cat([value, value_bias.double()[:, None]], 1)
        moment = torch.cat([torch.cat([moment, mean[:, None]], 1), torch.cat([mean, mean.new_ones(1)])[None]])
    products = HeadProducts(told, output, heads, moment)
    first = heads.size * torch.arange(heads.keys, device=value.device)[:, None]

    def fit(size: int) -> Fits:
        kept = (first + order[:size].sort().values).flatten()
        fits: Fits = []
        for weight, bias, index in (query, query_bias, queries_of(kept, heads)), (key, key_bias, kept):
            rest = None if bias is None else (-bias).index_fill(0, index, 0.0)
            fits.append((kept_rows(weight[index], index, len(weight), dtype), rest))
        rows, columns = products.factors([size] * heads.keys)
        values, outputs = torch.cat(rows), torch.cat(columns, 1)
        places = (first + torch.arange(size, device=value.device)).flatten()
        new = None if value_bias is None else -value_bias
        rest = None
        if output_bias is not None:
            whole_mean = value @ mean if value_bias is None else value @ mean + value_bias
            seen = torch.stack([whole_mean.view(heads.keys, -1)] * served, 1).flatten()
            left = (values @ mean).view(heads.keys, 1, size).expand(-1, served, -1).flatten()
            rest = (output @ seen - outputs @ left).to(dtype)
        elif new is not None:
            new = new.index_add(0, places, values[:, -1].to(new.dtype))
            values = values[:, :-1]
        fits.append((kept_rows(values, places, len(value), dtype), new))
        return [*fits, (kept_columns(outputs, queries_of(places, heads), output.shape[1], dtype), rest)]

    width, out = query.shape[1], len(output)
    parts = [Part(width, heads.queries), Part(key.shape[1], heads.keys), Part(value.shape[1], heads.keys)]
    losses = remainders(scores) + remainders(products.gains.sum(0))
    return Units([*parts, Part(out, heads.queries)], losses, dtype.itemsize, fit, whole)
