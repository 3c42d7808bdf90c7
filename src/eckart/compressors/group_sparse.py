"""Group sparsity: runs of 16 inputs of a row are dropped as a whole, and other inputs make up for them."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._groups import SortedInputs, cost_of, stored_groups
from eckart.compressors._masks import PERCENT
from eckart.compressors._one_by_one import OneByOne, paying
from eckart.compressors._shared_inputs import input_metric, input_side
from eckart.compressors.contract import compressor
from eckart.statistics.needs import Need, Statistics
from eckart.structures.compose import Chain
from eckart.structures.group_sparse import GroupSparse
from eckart.structures.quantized import finite_matrix


@compressor(
    "group-sparse",
    paper="Xu et al. 2023, arXiv 2310.19509",
    expression="Chain(GroupSparse, Permutation)",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="percent",
)
def group_sparse(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps groups of 16 inputs of a row, the form of sparsity that a processor multiplies as fast as it reads it.

    SparseByteNN has blocks of 1 x 16 for linear layers and 1 x 1 filters, a rearrangement of the network that makes
    them lose less, and training; its code was not published. Here the inputs of each matrix are sorted by
    `C_jj ||w_j||^2`, so that a group holds inputs that are worth about the same; the groups of largest
    `sum W_ij^2 C_jj` are kept, wherever they are; and optimal brain surgery from the least input to the largest has
    what is kept make up for what is dropped. Each lowers the error, which still is several times that of `sparsegpt` in
    as many bytes: a group holds no more large weights than any 16 do. A language model of 135 M parameters does not
    survive the loss of half of its groups without training (`--heal`); it is a form for mild sizes, or to train in.

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    weight = finite_matrix(weight)
    metric = input_metric(weight, statistics)

    def fit(percent: int) -> Chain:
        inputs = SortedInputs.of(weight, input_side(metric))
        kept, limit = inputs.kept(percent), torch.finfo(weight.dtype).max
        pruned = inputs.pruned(kept).clamp_(-limit, limit).to(weight.dtype)
        return inputs.chain(GroupSparse.from_dense(pruned, kept))

    cost = cost_of(weight, lambda kept: GroupSparse.empty(weight.shape, kept, weight.dtype))
    sizes = paying(weight, [p for p in PERCENT if stored_groups(weight, p)], cost)
    return OneByOne(weight, sizes, cost, fit, metric, lambda percent: (1 - percent / 100) ** 2)
