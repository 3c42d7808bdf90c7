"""DSnoT: weights are exchanged between the kept and the dropped of a row, so that its mean output comes right."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._masks import share, unstructured
from eckart.compressors._one_by_one import OneByOne
from eckart.compressors.contract import compressor
from eckart.compressors.wanda import scores
from eckart.metrics import Metric
from eckart.ops.order_statistics import largest
from eckart.statistics.needs import Need, Statistics
from eckart.structures.masked import Masked

CYCLES = 50


@compressor(
    "dsnot",
    paper="Zhang et al. 2023, arXiv 2310.08915",
    expression="Masked",
    needs=(Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN),
    size="percent",
)
def dsnot(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Starts from the mask of `wanda` and exchanges weights of a row while that brings its mean output nearer.

    With `e = sum W_ij E[x_j]` over what row i has dropped, an exchange takes back the weight of largest
    `sign(e) W_ij E[x_j] / var(x_j)` and drops the one of least `|W_ij| sqrt(E x_j^2)` among those whose absence lowers
    |e|, at most 50 times and as long as e keeps its sign (algorithm 1). No weight changes its value.

    Where it departs from the authors' code: that stops at |e| < 0.1 too, which depends on the scale of the outputs, and
    leaves the matrices of MLPs alone unless told otherwise (`skip_layer`); here all matrices are refined. What is
    refined is the mean alone, and the squared error may rise meanwhile: a row in which it does keeps its mask. The
    paper's table at 70 % could not be repeated by users with the authors' code (its issue 6).

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C and `input_mean`; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        Refused: weight, C or the mean has NaN or Inf entries, or they do not fit.
    """
    moment = statistics.input_moment(weight)
    mean = statistics.get(Need.INPUT_MEAN)
    out, columns = weight.shape

    def fit(percent: int) -> Masked:
        w, worth = weight.detach().double(), scores(weight, moment)
        before = largest(worth, share(percent, columns))
        after = refined(w, before, worth, mean, moment.diagonal() - mean.square())
        pays = _errors(w, after, moment) < _errors(w, before, moment)
        return Masked.from_dense(weight, torch.where(pays[:, None], after, before))

    return unstructured(weight, lambda percent: out * share(percent, columns), fit, Metric(right=moment))


def refined(weight: Tensor, kept: Tensor, worth: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """The mask after the exchanges, as many weights in each row as before.

    Args:
        weight: W (out, in), float64.
        kept: where W is kept, (out, in), bool.
        worth: what a kept weight is worth, (out, in).
        mean: E[x], (in,).
        variance: var(x), (in,); what rounding leaves below zero counts as zero.
    """
    kept, rows = kept.clone(), torch.arange(len(weight), device=weight.device)
    shift = weight * mean
    gain = shift / variance.clamp_min(float(variance.amax().clamp_min(0)) * 1e-12 + torch.finfo(torch.float64).tiny)
    error = shift.masked_fill(kept, 0.0).sum(1)
    for _ in range(CYCLES):
        sign = error.sign()[:, None]
        back = (sign * gain).masked_fill(kept | (sign * shift <= 0), -torch.inf).max(1)
        gone = worth.masked_fill(~kept | (sign * shift >= 0), torch.inf).min(1)
        moved = error - shift[rows, back.indices] + shift[rows, gone.indices]
        go = torch.isfinite(back.values) & torch.isfinite(gone.values) & (moved.sign() == error.sign())
        if not go.any():
            break
        kept[rows[go], back.indices[go]] = True
        kept[rows[go], gone.indices[go]] = False
        error = torch.where(go, moved, error)
    return kept


def _errors(weight: Tensor, kept: Tensor, moment: Tensor) -> Tensor:
    """Squared error of each row in the metric of C, (out,)."""
    lost = weight.masked_fill(kept, 0.0)
    return ((lost @ moment) * lost).sum(1)
