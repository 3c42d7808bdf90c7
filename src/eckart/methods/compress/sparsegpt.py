"""SparseGPT: weights are cut off column after column, and the columns not yet reached make up for the error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eckart.methods.compress.gptq import inverse_factor
from eckart.methods.onebyone import Once, OneByOne
from eckart.methods.registry import compressor
from eckart.methods.sparse import NEIGHBOURS, input_moment, largest, semistructured, share, unstructured
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.masked import Masked
from eckart.structures.semisparse import SemiSparse

PAPER = "Frantar and Alistarh 2023, arXiv 2301.00774"
BLOCK = 128


@compressor("sparsegpt", paper=PAPER, expression="Masked", needs=(Need.INPUT_SECOND_MOMENT,), size="percent")
def sparsegpt(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Cuts weights off column after column and lets the remaining columns make up for the error.

    What is kept is decided for 128 columns at once, when they are reached, so that rows may differ in how much they
    keep: the asked share of each block, to the nearest whole number of entries.

    The authors' code, in float32, cuts one entry more off in each block and agrees to 1e-3, in either direction: so
    much hangs on which entries at the threshold are kept. Where there is no threshold, two of four, it agrees to 5e-5
    (`benchmarks/peers.py`).

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        ValueError: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    moment = input_moment(weight, statistics)
    out, columns = weight.shape
    surgery = _prepared(weight, moment)

    def stored(percent: int) -> int:
        blocks, rest = divmod(columns, BLOCK)
        return blocks * share(percent, out * BLOCK) + share(percent, out * rest)

    def fit(percent: int) -> Masked:
        def choose(score: Tensor) -> Tensor:
            return largest(score.reshape(1, -1), share(percent, score.numel())).view(score.shape)

        return Masked.from_dense(*prune(weight, *surgery(), choose, BLOCK))

    return unstructured(weight, stored, fit, Metric(right=moment))


@compressor("sparsegpt-semi", paper=PAPER, expression="SemiSparse", needs=(Need.INPUT_SECOND_MOMENT,), size="kept")
def sparsegpt_semi(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Cuts off all but one, two or three of every four neighbours, and lets the columns behind make up for the error.

    Args:
        weight: (out, in).
        statistics: as for `sparsegpt`.

    Raises:
        ValueError: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    moment = input_moment(weight, statistics)
    surgery = _prepared(weight, moment)

    def fit(kept: int) -> SemiSparse:
        def choose(score: Tensor) -> Tensor:
            return largest(score, min(kept, score.shape[1]))

        pruned, places = prune(weight, *surgery(), choose, NEIGHBOURS)
        return SemiSparse.from_dense(pruned, kept, NEIGHBOURS, places.to(weight.dtype))

    return semistructured(weight, fit, Metric(right=moment))


def _prepared(weight: Tensor, moment: Tensor) -> Once[tuple[Tensor, Tensor]]:
    """`surgeon` of a second moment in the precision that the weight is pruned in."""
    exact = torch.promote_types(weight.dtype, torch.float32)

    def prepare() -> tuple[Tensor, Tensor]:
        transfer, worth = surgeon(moment)
        return transfer.to(exact), worth.to(exact)

    return Once(prepare)


def surgeon(second_moment: Tensor) -> tuple[Tensor, Tensor]:
    """How an error is passed on, and what a weight is worth.

    With `(C + 1e-2 mean(diag C) I)^-1 = U^T U`, U upper triangular:

    Returns:
        (in, in), float64, U_jk / U_jj: by how much column k moves for a unit cut off from column j, k > j.
        (in,), float64, 1 / U_jj relative to the largest, and 0 for an input that is always zero: times |w_ij| it is
        what cutting w_ij off costs, columns j+1, ... making up for it (eq. 4).
    """
    factor = inverse_factor(second_moment)
    pivot = factor.diagonal()
    worth = pivot.min() / pivot
    silent = second_moment.diagonal() <= 0
    return factor / pivot[:, None], worth if silent.all() else worth.masked_fill(silent, 0.0)


def prune(
    weight: Tensor, transfer: Tensor, worth: Tensor, choose: Callable[[Tensor], Tensor], width: int
) -> tuple[Tensor, Tensor]:
    """Optimal brain surgery in the order of the columns (algorithm 1): `W[:, j+1:] -= w_j U[j, j+1:] / U[j, j]`.

    Args:
        weight: (out, in), finite.
        transfer: (in, in), see `surgeon`.
        worth: (in,), likewise.
        choose: scores (out, width) of some columns, taken when they are reached -> what is kept of them, bool.
        width: how many columns are decided on at once; 128 or a divisor of it. The last ones may be fewer.

    Returns:
        What, in the dtype of the weight; and where it is kept, bool; both (out, in).
    """
    exact = torch.promote_types(weight.dtype, torch.float32)
    transfer, worth = transfer.to(exact), worth.to(exact)
    # Transposed, so that a column of W is one run of memory.
    rest = weight.detach().T.to(exact, copy=True, memory_format=torch.contiguous_format)
    kept = torch.empty(rest.shape, dtype=torch.bool, device=rest.device)
    columns = len(rest)
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        cut, off = torch.empty_like(rest[first:last]), torch.empty_like(rest[first:last])
        for j in range(first, last):
            if (j - first) % width == 0:
                group = slice(j, min(j + width, last))
                kept[group] = choose((rest[group].abs() * worth[group, None]).T).T
                off[group.start - first : group.stop - first] = ~kept[group]
            torch.mul(rest[j], off[j - first], out=cut[j - first])
            rest[j + 1 : last].addr_(transfer[j, j + 1 : last], cut[j - first], alpha=-1)
        rest[last:].addmm_(transfer[first:last, last:].T, cut, alpha=-1)
    limit = torch.finfo(weight.dtype).max
    return rest.masked_fill_(~kept, 0.0).clamp_(-limit, limit).T.to(weight.dtype), kept.T
