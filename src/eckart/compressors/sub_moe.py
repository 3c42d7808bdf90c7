"""Experts that do nearly the same merged into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eckart.compressors._low_rank import LowRank, fit_low_rank
from eckart.compressors._merged_experts import MergedExperts
from eckart.compressors.contract import Members, compressor, together
from eckart.errors import Refused
from eckart.layouts.experts import Mixture
from eckart.linalg.clustering import cosine_clusters
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.quantized import finite_matrix

CHUNK = 256
"""Tokens whose outputs exist at a time."""
POOL = 2048
"""Tokens of all experts together whose outputs are compared; at least eight of each that was reached."""


@compressor(
    "sub-moe",
    paper="Li 2025, arXiv 2506.23266",
    expression="Dense or Shared",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_SAMPLE),
)
def sub_moe(weight: Tensor, statistics: Statistics) -> LowRank:
    """Experts with similar outputs merged: a cluster of them is one expert, the mean by how often each was visited.

    K-means by the cosine of the outputs of all experts on tokens of all of them. The paper merges a cluster in the
    joint decomposition [W_1 ... W_n] = U S [V_1 ... V_n] as U S (sum_i f_i V_i), f_i the share of the visits. That is
    sum_i f_i W_i: at full rank the decomposition cancels, and cut off at rank r it gives P_r sum_i f_i W_i, P_r the
    projection on r columns of U. As the mean is what minimises sum_i f_i ||A - W_i||^2, cutting off never brings it
    closer in this norm: it saves bytes, which no candidate here does. Neurons are averaged in the order they have, so
    experts with the same neurons in another order do not merge well. Biases stay each expert's own and are left out of
    the outputs. Matrices that are in no mixture get the best low rank in the input metric.
    """
    return fit_low_rank(weight, Metric(right=statistics.get(Need.INPUT_SECOND_MOMENT)))


@together("sub-moe", "experts", size="experts")
def merged_experts(members: Members) -> MergedExperts:
    """All experts of a layer, each with the same matrices."""
    assert members.mixture is not None
    weights, mixture = [finite_matrix(w) for w in members.weights], members.mixture
    samples = [_thinned(s, max(8, POOL // mixture.count)) for s in members.statistics]
    entering = [x for x in samples[:: len(weights) // mixture.count] if x is not None]
    if not entering:
        raise Refused("no token of the calibration data reached any of the experts")
    gram = output_gram(weights, mixture, torch.cat(entering))
    if not torch.isfinite(gram).all():
        raise Refused("the experts' outputs on calibration data have NaN or Inf entries")
    return MergedExperts(members, samples, cosine_clusters(gram, torch.Generator().manual_seed(0)))


def output_gram(weights: Sequence[Tensor], mixture: Mixture, inputs: Tensor) -> Tensor:
    """Inner products of the outputs of all experts on the same inputs (n, in): (experts, experts), float64."""
    gram = torch.zeros(mixture.count, mixture.count, dtype=torch.float64)
    for x in torch.split(inputs, CHUNK):
        y = torch.stack(list(mixture.outputs(weights, x))).flatten(1).double()
        gram += y @ y.T
    return gram


def _thinned(statistics: Statistics, most: int) -> Tensor | None:
    """At most so many sampled inputs of a matrix; None where no token reached it."""
    if not statistics.tokens:
        return None
    x = statistics.get(Need.INPUT_SAMPLE)
    return x[:: -(-len(x) // most)]
