"""M-FAC: weights are cut off where a Fisher matrix of few gradients says that it costs least, and others make up."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from eckart.compressors._masks import largest_share, share, unstructured
from eckart.compressors._one_by_one import Once, OneByOne
from eckart.compressors._shared_inputs import exact_dtype
from eckart.compressors.contract import compressor
from eckart.errors import Refused
from eckart.metrics import Metric
from eckart.ops.powers_of_two import power_of_two
from eckart.statistics.needs import Need, Statistics
from eckart.structures.masked import Masked
from eckart.structures.quantized import finite_matrix

NEEDS = (Need.GRADIENT_SECOND_MOMENT, Need.INPUT_SECOND_MOMENT, Need.GRADIENT_PAIRS)
BLOCK = 2048
"""Entries of W, in whole rows, that have a Fisher matrix of their own."""
DAMPING = 0.1
"""Of the mean of the diagonal of F."""


@compressor(
    "mfac",
    paper="Frantar et al. 2021, arXiv 2107.03356",
    expression="Masked",
    needs=NEEDS,
    size="percent",
    predicts_loss=True,
)
def mfac(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Keeps the weights of largest w^2 / (2 [F^-1]_ii), F the Fisher matrix of up to 512 gradients; others make up.

    F = damping I + (1/m) sum_t vec(g_t x_t^T) vec(g_t x_t^T)^T, for about 2048 entries of W at a time, in whole rows.
    The inverse is Woodbury's, with a Cholesky factor of m x m: it equals the paper's recursion in a tenth of its time.

    Where it departs from the paper: a gradient is that of one token, which takes m (out + in) numbers where one of a
    batch takes m out in, so that those of all matrices fit in memory; labels are drawn from the model; damping is a
    share of the mean of F's diagonal, not 1e-5; what is left of W is the best for all that is cut off together, where
    published code adds up what makes up for each weight alone. Nothing is trained afterwards.

    Args:
        weight: (out, in).
        statistics: `gradient_pairs` are read; errors are `||L^1/2 (W - What) C^1/2||_F^2`, C the second moment of the
            inputs and L that of the gradients, half of which is the rise of the loss.

    Raises:
        Refused: weight or statistics have NaN or Inf entries, or do not fit each other.
    """
    weight, dtype = finite_matrix(weight), exact_dtype(weight)
    for need in NEEDS:
        statistics.get(need)  # which refuses
    left, right, pairs = (getattr(statistics, need.value) for need in NEEDS)  # not copies, of all matrices of a model
    metric = Metric.measured(left if statistics.uses == 1 else statistics.uses * left, right)
    sides(weight, pairs)
    worth = Once(lambda: saliencies(weight.to(dtype), *sides(weight, pairs)))

    def fit(percent: int) -> Masked:
        kept = largest_share(worth(), percent)
        limit = torch.finfo(weight.dtype).max
        found = made_up(weight.to(dtype), kept, *sides(weight, pairs))
        return Masked.from_dense(found.clamp_(-limit, limit).to(weight.dtype), kept)

    return unstructured(weight, lambda percent: share(percent, weight.numel()), fit, metric)


def sides(weight: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs x (m, in) and gradients g (m, out) of ordinary size, float32 at least; Refused where they do not fit."""
    out, columns = weight.shape
    if pairs.ndim != 2 or not len(pairs) or pairs.shape[1] != out + columns:
        raise Refused(f"gradient_pairs of shape {tuple(pairs.shape)} do not fit a weight of shape {(out, columns)}")
    x, g = (side.double() / power_of_two(side) for side in (pairs[:, :columns], pairs[:, columns:]))
    return x.to(exact_dtype(weight)), g.to(exact_dtype(weight))


def damping_of(x: Tensor, g: Tensor) -> float:
    """`DAMPING` times the mean of [F]_ii = (1/m) sum g_ti^2 x_tj^2; 1 where all is zero."""
    mean = float((g.double().square().mean(1) * x.double().square().mean(1)).mean())
    return DAMPING * mean if mean else 1.0


def blocks(x: Tensor, g: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some rows of W at a time: which, the gradients G (k, entries) by their entries, and G G^T (k, k), float64.

    Those of the m gradients are left out that are zero there, as of a table most are.
    """
    step = max(1, BLOCK // x.shape[1])
    for first in range(0, g.shape[1], step):
        some = g[:, first : first + step]
        there = some.any(1)
        some, inputs = some[there], x[there]
        gradients = (some[:, :, None] * inputs[:, None, :]).flatten(1)
        gram = (some.double() @ some.double().T) * (inputs.double() @ inputs.double().T)
        yield slice(first, first + step), gradients, gram


def saliencies(weight: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """w^2 / (2 [F^-1]_ii), (out, in): what the loss rises by where one weight is cut off and others make up (eq. 3).

    With `L L^T = m damping I + G G^T` and `V = L^-1 G` it is `[F^-1]_ii = (1 - sum_t V_ti^2) / damping`, which is not
    below 1 / [F]_ii, whatever rounding says.

    Args:
        weight: W (out, in).
        x, g: (m, in) and (m, out), in the dtype of W.
    """
    found, damping = torch.empty_like(weight), damping_of(x, g)
    for rows, gradients, gram in blocks(x, g):
        lower = factor(gram, len(x) * damping).to(x.dtype)
        whitened = torch.linalg.solve_triangular(lower, gradients, upper=False)
        least = damping / (damping + gradients.square().sum(0) / len(x))
        inverse = torch.maximum(1 - whitened.square().sum(0), least) / damping
        found[rows] = weight[rows].square() / (2 * inverse.view_as(weight[rows]))
    return found


def made_up(weight: Tensor, kept: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """W with zeros in all places but those that are kept, whose weights are then the best by F: (out, in).

    With K what is kept and P what is not, `w_K + F_KK^-1 F_KP w_P = w_K + G_K^T (m damping I + G_K G_K^T)^-1 G_P w_P`.
    """
    found, damping = weight.masked_fill(~kept, 0.0), damping_of(x, g)
    for rows, gradients, _ in blocks(x, g):
        stay = kept[rows].flatten()
        rest = gradients[:, stay]
        lost = gradients @ weight[rows].masked_fill(kept[rows], 0.0).flatten()
        lower = factor((rest @ rest.T).double(), len(x) * damping)
        moved = rest.T @ torch.cholesky_solve(lost.double()[:, None], lower)[:, 0].to(x.dtype)
        found[rows].view(-1)[stay] += moved
    return found


def factor(gram: Tensor, damping: float) -> Tensor:
    """L of `L L^T = damping I + G G^T`, float64."""
    lower: Tensor = torch.linalg.cholesky(gram + damping * torch.eye(len(gram)).to(gram))
    return lower
