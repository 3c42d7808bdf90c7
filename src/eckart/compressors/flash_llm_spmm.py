"""Flash-LLM: weights are loaded as a sparse matrix and multiplied as a dense one."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._masks import largest_share, share, unstructured
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors.contract import compressor
from eckart.linalg.low_rank import damped
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix

DAMPING = 1e-6


@compressor(
    "flash-llm-spmm",
    paper="Xia et al. 2023, arXiv 2309.10285",
    expression="Masked",
    needs=(Need.FISHER_ROWS, Need.FISHER_COLUMNS),
    size="percent",
)
def flash_llm_spmm(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps the weights of largest `w_ij^2 r_i c_j` wherever they are, for a product that reads them sparse.

    The paper is the product: each tile of a sparse W is loaded as values and places, spread out in fast memory and
    multiplied by a dense kernel. Here the product of `Masked` does that for more than 64 vectors: panels of rows are
    decoded into the cache and multiplied by the BLAS of PyTorch; fewer vectors are multiplied as rows are decoded. The
    paper stores 16 bits of place with each value of 16 bits, so that half of the entries take as many bytes as the
    dense matrix; here a place is one bit.

    Any mask would do, and the paper takes pruned models as they come. This one is the best in the metric of r and c,
    the row and column sums of the Fisher information, which stands for the squares of `w dloss/dw`.

    Args:
        weight: (out, in).
        statistics: `fisher_rows` r and `fisher_columns` c are read; errors are `||R^1/2 (W - What) C^1/2||_F^2`, R and
            C the diagonal matrices of r and c.

    Raises:
        Refused: weight or a statistic has NaN or Inf entries.
    """
    weight = finite_matrix(weight)
    r, c = (damped(statistics.get(need), DAMPING) for need in (Need.FISHER_ROWS, Need.FISHER_COLUMNS))
    metric = Metric(left=r, right=c)

    def fit(percent: int) -> Masked:
        return Masked.from_dense(weight, largest_share(scores(weight, r, c), percent))

    return unstructured(weight, lambda percent: share(percent, weight.numel()), fit, metric)


def scores(weight: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`|w_ij| (r_i c_j)^1/2` (out, in), float64: in the order of `w_ij^2 r_i c_j`, and without its overflow."""
    w = weight.double().abs()
    return (
        w
        / w.max().clamp_min(torch.finfo(torch.float64).tiny)
        * (rows / rows.max()).sqrt()[:, None]
        * (columns / columns.max()).sqrt()
    )
