"""SparseGPT: weights are cut off column after column, and the columns not yet reached make up for the error."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from eckart.compressors._masks import NEIGHBOURS, largest_share, semistructured, share, unstructured
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors._shared_inputs import exact_dtype, input_metric, input_side, made_of
from eckart.compressors.contract import compressor
from eckart.linalg.optimal_brain_surgery import BLOCK, inverse_factor, sweep
from eckart.metrics import Metric
from eckart.ops.order_statistics import largest
from eckart.statistics.needs import Need, Statistics
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix
from eckart.structures.semisparse import SemiSparse

PAPER = "Frantar and Alistarh 2023, arXiv 2301.00774"


@compressor("sparsegpt", paper=PAPER, expression="Masked", needs=(Need.INPUT_SECOND_MOMENT,), size="percent")
def sparsegpt(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Cuts weights off column after column and lets the remaining columns make up for the error.

    What is kept is decided for 128 columns at once, when they are reached, so that rows may differ in how much they
    keep: the asked share of each block, to the nearest whole number of entries.

    The authors' code, in float32, cuts one entry more off in each block and agrees to 1e-3, in either direction: so
    much hangs on which entries at the threshold are kept. Where there is no threshold, two of four, it agrees to 5e-5
    (`benchmarks/peers/authors.py`).

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    metric = input_metric(finite_matrix(weight), statistics)
    out, columns = weight.shape

    def stored(percent: int) -> int:
        blocks, rest = divmod(columns, BLOCK)
        return blocks * share(percent, out * BLOCK) + share(percent, out * rest)

    def fit(percent: int) -> Masked:
        choose = partial(largest_share, percent=percent)
        return Masked.from_dense(*prune(weight, *_prepared(weight, metric), choose, BLOCK))

    return unstructured(weight, stored, fit, metric)


@compressor("sparsegpt-semi", paper=PAPER, expression="SemiSparse", needs=(Need.INPUT_SECOND_MOMENT,), size="kept")
def sparsegpt_semi(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Cuts off all but one, two or three of every four neighbours, and lets the columns behind make up for the error.

    Args:
        weight: (out, in).
        statistics: as for `sparsegpt`.

    Raises:
        Refused: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    metric = input_metric(finite_matrix(weight), statistics)

    def fit(kept: int) -> SemiSparse:
        pruned, places = prune(weight, *_prepared(weight, metric), partial(largest, kept=kept), NEIGHBOURS)
        return SemiSparse.from_dense(pruned, kept, NEIGHBOURS, places.to(weight.dtype))

    return semistructured(weight, fit, metric)


def _prepared(weight: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """`transfer_and_worth` of the inputs of a weight."""
    moment, dtype = input_side(metric), exact_dtype(weight)
    return made_of(moment, ("sparsegpt", dtype), lambda: transfer_and_worth(moment, dtype))


def transfer_and_worth(second_moment: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """How an error is passed on, and what a weight is worth, in a dtype.

    With U from `inverse_factor`:

    Returns:
        (in, in), U_jk / U_jj: by how much column k moves for a unit cut off from column j, k > j.
        (in,), 1 / U_jj relative to the largest, and 0 for an input that is always zero: times |w_ij| it is what
        cutting w_ij off costs, columns j+1, ... making up for it (eq. 4).
    """
    factor = inverse_factor(second_moment)
    pivot = factor.diagonal()
    worth = pivot.min() / pivot
    silent = second_moment.diagonal() <= 0
    worth = worth if silent.all() else worth.masked_fill(silent, 0.0)
    return (factor / pivot[:, None]).to(dtype), worth.to(dtype)


def prune(
    weight: Tensor, transfer: Tensor, worth: Tensor, choose: Callable[[Tensor], Tensor], width: int
) -> tuple[Tensor, Tensor]:
    """What is kept of W, and where: `linalg.surgeon.sweep` makes up for every weight that is cut off (algorithm 1).

    Args:
        weight: (out, in), finite.
        transfer, worth: see `transfer_and_worth`.
        choose: scores (out, width) of some columns, taken when they are reached -> what is kept of them, bool.
        width: how many columns are decided on at once; 128 or a divisor of it. The last ones may be fewer.

    Returns:
        What, in the dtype of the weight; and where it is kept, bool; both (out, in).
    """
    rest = weight.detach().T.to(transfer.dtype, copy=True, memory_format=torch.contiguous_format)
    kept = torch.empty(rest.shape, dtype=torch.bool, device=rest.device)

    def cut(j: int, error: Tensor) -> None:
        if j % width == 0:
            group = slice(j, j + width)
            kept[group] = choose((rest[group].abs() * worth[group, None]).T).T
        torch.mul(rest[j], ~kept[j], out=error)

    sweep(rest, transfer, cut)
    limit = torch.finfo(weight.dtype).max
    return rest.masked_fill_(~kept, 0.0).clamp_(-limit, limit).T.to(weight.dtype), kept.T
