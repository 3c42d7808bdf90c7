"""Magnitude pruning: the smallest weights are cut off."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._masks import NEIGHBOURS, largest_share, semistructured, share, unstructured
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors.contract import compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Statistics
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix
from eckart.structures.semisparse import SemiSparse

PAPER = "Han et al. 2015, arXiv 1506.02626"


@compressor("magnitude", paper=PAPER, expression="Masked", size="percent")
def magnitude(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps the largest weights of the matrix, wherever they are: the best sparse matrix in the Frobenius norm.

    One threshold for the whole matrix, at which exactly the asked share of its weights is kept. The training that
    follows in the paper is the user's.

    Args:
        weight: (out, in).
        statistics: not read.

    Raises:
        Refused: weight has NaN or Inf entries.
    """
    weight = finite_matrix(weight)

    def fit(percent: int) -> Masked:
        size = weight.abs().to(torch.promote_types(weight.dtype, torch.float32))
        return Masked.from_dense(weight, largest_share(size, percent))

    return unstructured(weight, lambda percent: share(percent, weight.numel()), fit, Metric())


@compressor("magnitude-semi", paper=PAPER, expression="SemiSparse", size="kept")
def magnitude_semi(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps the largest one, two or three weights of every four neighbours in a row.

    Args:
        weight: (out, in).
        statistics: not read.

    Raises:
        Refused: weight has NaN or Inf entries.
    """
    return semistructured(weight, lambda kept: SemiSparse.from_dense(weight, kept, NEIGHBOURS), Metric())
