"""Wanda: weights are cut off where they are small and their inputs are."""

from __future__ import annotations

from torch import Tensor

from eckart.compressors._masks import NEIGHBOURS, semistructured, share, unstructured
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors._shared_inputs import input_metric, input_side
from eckart.compressors.contract import compressor
from eckart.metrics import Metric
from eckart.ops.order_statistics import largest
from eckart.statistics.needs import Need, Statistics
from eckart.structures.masked import Masked
from eckart.structures.semisparse import SemiSparse

PAPER = "Sun et al. 2023, arXiv 2306.11695"


@compressor("wanda", paper=PAPER, expression="Masked", needs=(Need.INPUT_SECOND_MOMENT,), size="percent")
def wanda(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps the weights of largest |W_ij| sqrt(E x_j^2), the same number of every row.

    The authors' code keeps the same (`benchmarks/peers/authors.py`), and stores them as a dense matrix with zeros.

    Args:
        weight: (out, in).
        statistics: of `input_second_moment` C the diagonal is read; errors are `||(W - What) C^1/2||_F^2`. Of more
            inputs than C is kept of, the diagonal is all there is, and stands for it.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    metric = known_metric(weight, statistics)
    moment = input_side(metric)
    out, columns = weight.shape

    def fit(percent: int) -> Masked:
        return Masked.from_dense(weight, largest(scores(weight, moment), share(percent, columns)))

    return unstructured(weight, lambda percent: out * share(percent, columns), fit, metric)


@compressor("wanda-semi", paper=PAPER, expression="SemiSparse", needs=(Need.INPUT_SECOND_MOMENT,), size="kept")
def wanda_semi(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps the weights of largest |W_ij| sqrt(E x_j^2), one, two or three of every four neighbours in a row.

    Args:
        weight: (out, in).
        statistics: as for `wanda`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    metric = known_metric(weight, statistics)
    moment = input_side(metric)

    def fit(kept: int) -> SemiSparse:
        return SemiSparse.from_dense(weight, kept, NEIGHBOURS, scores(weight, moment))

    return semistructured(weight, fit, metric)


def known_metric(weight: Tensor, statistics: Statistics) -> Metric:
    """Metric(right=C) of a weight, or of the diagonal of C where that is all there is; Refused as `input_metric`."""
    moment = statistics.input_second_moment
    if moment is not None and moment.shape == weight.shape[-1:]:
        return Metric.measured(right=moment)
    return input_metric(weight, statistics)


def scores(weight: Tensor, second_moment: Tensor) -> Tensor:
    """|W_ij| sqrt(E x_j^2) (eq. 1), (out, in), float64; |W_ij| where all inputs were zero.

    Args:
        weight: (out, in).
        second_moment: E[x x^T], (in, in), or its diagonal (in,).
    """
    diagonal = second_moment.diagonal() if second_moment.ndim == 2 else second_moment
    norm = diagonal.double().clamp_min(0).sqrt()
    magnitude = weight.detach().double().abs()
    return magnitude * norm if norm.any() else magnitude
