"""LLM.int8(): the few input columns with outlier features stay as they are, the others become integers."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors.contract import Family, compressor
from eckart.errors import Refused
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.compose import Chain, Sum
from eckart.structures.dense import Dense
from eckart.structures.permutation import Selection
from eckart.structures.quantized import Quantized, finite_matrix

BITS = (2, 3, 4, 8)
SHARE = 128
"""One of so many input columns, rounded up, holds outliers; the paper finds 0.1 % to 1 % of them."""


@compressor(
    "llm-int8",
    paper="Dettmers et al. 2022, arXiv 2208.07339",
    expression="Sum(Quantized, Chain(Dense, Selection))",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="bits",
)
def llm_int8(weight: Tensor, statistics: Statistics) -> Family:
    """Columns of the largest inputs stay dense, the others are rounded with one symmetric scale a row; weights only.

    `W ~ Q + W[:, O] S_O`, O the ceil(in / 128) inputs of the largest E[x^2], S_O their selection, Q zero in them
    (section 3.2). Activations keep their dtype: what is kept of the paper is its split of the matrix, not its
    8-bit inputs. The paper's O are the inputs that ever exceed 6 in magnitude; where such outliers exist they lead
    E[x^2] too. It has 8 bits only; 4, 3 and 2 are offered as well.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    weight = finite_matrix(weight)
    out, columns = weight.shape
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    energy = moment if moment.ndim == 1 else moment.diagonal()
    if len(energy) != columns:
        raise Refused(f"second moment of {len(energy)} inputs does not fit a weight of shape {tuple(weight.shape)}")
    outliers = outlier_columns(energy, -(-columns // SHARE))

    def cost(bits: int) -> Cost:
        values = out * len(outliers)
        kept = Cost(values, values * weight.element_size() + 4 * len(outliers), values)
        return Quantized.empty(weight.shape, bits, columns, weight.dtype, symmetric=True).cost() + kept

    def fit(bits: int) -> Sum:
        rest = weight.index_fill(1, outliers, 0)
        kept = Chain(Dense(weight[:, outliers].contiguous()), Selection(outliers, size=columns))
        return Sum(Quantized.quantize(rest, bits, columns, symmetric=True), kept)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=moment), rounding)


def outlier_columns(energy: Tensor, count: int) -> Tensor:
    """The `count` inputs of the largest E[x^2] (in,), in ascending order: int64; the first of those that are equal."""
    return torch.argsort(energy, descending=True, stable=True)[:count].sort().values
