"""GPTQ: every column is rounded in turn, and the columns not yet rounded make up for its error."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.methods.onebyone import Once, bits_family
from eckart.methods.registry import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.leaves import size_option
from eckart.structures.packing import pack, pad_columns, searched_grid
from eckart.structures.quantized import Quantized, finite_matrix

GROUP = 64
BLOCK = 128
DAMPING = 1e-2


@compressor(
    "gptq",
    paper="Frantar 2022, arXiv 2210.17323",
    expression="Quantized",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="bits",
)
def gptq(weight: Tensor, statistics: Statistics) -> Family:
    """Rounds column after column to an affine grid and lets the remaining columns make up for the error.

    On the same grid and order the authors' code, in float32, agrees to 5e-4. Its own defaults, columns as they come and
    grids from the smallest to the largest weight, are 11 to 99 % worse at 3 bits; with its ordering and its search of
    grids, which does not know what an error in a column costs, it is between 0.1 % better and 13 % worse
    (`benchmarks/peers.py`).

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        ValueError: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)
    _check_fit(weight, moment)

    def prepare() -> tuple[Tensor, Tensor]:
        order, factor = ordered_factor(moment)
        return order, factor.to(torch.promote_types(weight.dtype, torch.float32))

    prepared = Once(prepare)

    def fit(bits: int) -> Quantized:
        return _quantize(weight, *prepared(), bits, GROUP, symmetric=False)

    return bits_family(weight, fit, Metric(right=moment), GROUP)


def gptq_quantize(
    weight: Tensor,
    second_moment: Tensor,
    bits: int,
    group: int = GROUP,
    *,
    symmetric: bool = False,
    damping: float = DAMPING,
) -> Quantized:
    """Quantizes W to a small `||(W - What) C^1/2||_F` by optimal brain surgery in a fixed order of columns.

    With `(C + damping mean(diag C) I)^-1 = U^T U`, U upper triangular, column j is rounded to its grid, and
    `W[:, j+1:] -= (w_j - what_j) / U[j, j] U[j, j+1:]` (section 3.3, algorithm 1).

    Inputs of large second moment come first, while there are many others left to make up for their error. Groups stay
    runs of consecutive inputs, so this order visits them in turns; their grids are therefore chosen beforehand, each
    as the one that rounds its original weights best (`packing.searched_grid`), an error in column j counting
    `1 / U[j, j]^2` times, which is what it costs once later columns have made up for it. An input that is always zero
    changes no other and is rounded to nearest.

    Args:
        weight: (out, in), floating point; scales take its dtype.
        second_moment: C = E[x x^T], (in, in), symmetric positive semi-definite, singular or zero if need be.
        bits: 2 to 8.
        group: inputs that share a scale; `in` or more for one scale a row.
        symmetric: zero-point fixed at the middle code instead of stored.
        damping: what is added to the diagonal, relative to its mean.

    Raises:
        ValueError: weight or C is not finite, C does not fit W or is not positive semi-definite.
    """
    _check_fit(weight, second_moment)
    return _quantize(weight, *ordered_factor(second_moment, damping), bits, group, symmetric)


def _check_fit(weight: Tensor, moment: Tensor) -> None:
    columns = finite_matrix(weight).shape[1]
    if tuple(moment.shape) != (columns, columns):
        raise ValueError(
            f"second moment of shape {tuple(moment.shape)} does not fit a weight of shape {tuple(weight.shape)}"
        )


def _quantize(weight: Tensor, order: Tensor, factor: Tensor, bits: int, group: int, symmetric: bool) -> Quantized:
    weight = weight.detach()
    columns = weight.shape[1]
    group = min(size_option("gptq", "group", group), columns)
    exact = torch.promote_types(weight.dtype, torch.float32)
    factor = factor.to(exact)
    groups = pad_columns(weight.to(exact), group).reshape(len(weight), -1, group)
    worth = factor.diagonal().min() / factor.diagonal()
    importance = torch.empty_like(worth).index_copy_(0, order, worth.square())
    importance = pad_columns(importance, group).view(-1, group)
    scales, zeros = searched_grid(groups, bits, weight.dtype, symmetric, importance)
    # Transposed, so that a column of W is one run of memory.
    rest = weight.T.to(exact)[order].contiguous()
    scale = scales.T.to(exact)[order // group].contiguous()
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.full_like(scale, 1 << (bits - 1)) if zeros is None else zeros.T.to(exact)[order // group].contiguous()
    levels = torch.empty_like(rest)
    top = (1 << bits) - 1
    pivots = factor.diagonal().tolist()
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        errors = torch.empty_like(rest[first:last])
        for j in range(first, last):
            column, level, error = rest[j], levels[j], errors[j - first]
            torch.div(column, divisor[j], out=level).add_(zero[j]).round_().clamp_(0, top)
            torch.sub(level, zero[j], out=error).mul_(scale[j])
            torch.sub(column, error, out=error).div_(pivots[j])
            rest[j + 1 : last].addr_(factor[j, j + 1 : last], error, alpha=-1)
        rest[last:].addmm_(factor[first:last, last:].T, errors, alpha=-1)
    codes = levels.to(torch.uint8)
    natural = torch.empty_like(codes).index_copy_(0, order, codes).T.contiguous()
    return Quantized(pack(natural, bits), scales, zeros, bits=bits, group=group, columns=columns)


def ordered_factor(second_moment: Tensor, damping: float = DAMPING) -> tuple[Tensor, Tensor]:
    """The columns in the order they are rounded, (in,), and `inverse_factor` of the second moment in that order."""
    order = second_moment.diagonal().argsort(descending=True, stable=True)
    return order, inverse_factor(second_moment[order][:, order], damping)


def inverse_factor(second_moment: Tensor, damping: float = DAMPING) -> Tensor:
    """U (in, in), float64, upper triangular, `U^T U = (C + damping mean(diag C) I)^-1`.

    With J the reversal of order and `J C J = L L^T`: `C = R R^T` for the upper triangular `R = J L J`, and U = R^-1.
    One Cholesky factorisation and one triangular solve; C is never inverted.

    Raises:
        ValueError: C is not finite, or not positive semi-definite.
    """
    moment = second_moment.double()
    if not torch.isfinite(moment).all():
        raise ValueError("second moment has NaN or Inf entries")
    mean = float(moment.diagonal().mean())
    moment = (moment + moment.T) / 2
    moment.diagonal().add_(damping * mean if mean > 0 else 1.0)
    lower, info = torch.linalg.cholesky_ex(moment.flip(0, 1))
    if int(info) != 0:
        raise ValueError(f"second moment of shape {tuple(moment.shape)} is not positive semi-definite")
    return _inverse(lower.flip(0, 1))


def _inverse(upper: Tensor) -> Tensor:
    """The inverse of an upper triangular matrix, by halves: [[A, B], [0, D]]^-1 = [[A^-1, -A^-1 B D^-1], [0, D^-1]].

    A triangular solve against the identity takes no notice of its zeros, and twice as long.
    """
    n = len(upper)
    if n <= BLOCK:
        identity = torch.eye(n, dtype=upper.dtype, device=upper.device)
        solved: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
        return solved
    inverse, half = torch.zeros_like(upper), n // 2
    first, last = (slice(0, half), slice(half, n))
    inverse[first, first], inverse[last, last] = _inverse(upper[first, first]), _inverse(upper[last, last])
    inverse[first, last] = -inverse[first, first] @ (upper[first, last] @ inverse[last, last])
    return inverse
