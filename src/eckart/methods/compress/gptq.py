"""GPTQ: every column is rounded in turn, and the columns not yet rounded make up for its error."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.methods.bits import Bits
from eckart.methods.registry import Family, compressor
from eckart.metrics import Metric
from eckart.statistics.needs import Need, Statistics
from eckart.structures.packing import decode, encode, grid, pack
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

    Args:
        weight: (out, in).
        statistics: `input_second_moment` C is read; errors are `||(W - What) C^1/2||_F^2`.

    Raises:
        ValueError: weight or C has NaN or Inf entries, or C does not fit the weight.
    """
    moment = statistics.get(Need.INPUT_SECOND_MOMENT)

    def fit(bits: int) -> Quantized:
        return gptq_quantize(weight, moment, bits, GROUP)

    return Bits(weight, fit, Metric(right=moment), GROUP)


def gptq_quantize(
    weight: Tensor,
    second_moment: Tensor,
    bits: int,
    group: int = GROUP,
    *,
    symmetric: bool = False,
    damping: float = DAMPING,
    order: str = "activation",
) -> Quantized:
    """Quantizes W to a small `||(W - What) C^1/2||_F` by optimal brain surgery in a fixed order of columns.

    With `(C + damping mean(diag C) I)^-1 = U^T U`, U upper triangular, column j is rounded to its grid, and
    `W[:, j+1:] -= (w_j - what_j) / U[j, j] U[j, j+1:]` (section 3.3, algorithm 1). The grid of a group is
    that of its weights as they are when the group is reached.

    Columns of large second moment come first, while there are many others left to make up for their error. Groups
    stay the consecutive inputs they are: whole groups are ordered by their largest second moment, and the columns of
    a group within it. An input that is always zero changes nothing else and is rounded to nearest.

    Args:
        weight: (out, in), floating point; scales take its dtype.
        second_moment: C = E[x x^T], (in, in), symmetric positive semi-definite, singular or zero if need be.
        bits: 2 to 8.
        group: inputs that share a scale; `in` or more for one scale a row.
        symmetric: zero-point fixed at the middle code instead of stored.
        damping: what is added to the diagonal, relative to its mean.
        order: "activation", or "natural" for left to right.

    Raises:
        ValueError: weight or C is not finite, C does not fit W or is not positive semi-definite.
    """
    weight = finite_matrix(weight)
    out, columns = weight.shape
    if tuple(second_moment.shape) != (columns, columns):
        raise ValueError(
            f"second moment of shape {tuple(second_moment.shape)} does not fit a weight of {out}x{columns}"
        )
    runs = column_order(second_moment.diagonal(), group, order)
    permutation = torch.cat(runs)
    exact = torch.promote_types(weight.dtype, torch.float32)
    factor = inverse_factor(second_moment[permutation][:, permutation], damping).to(exact)
    # Transposed, so that a column of W is one run of memory.
    rest = weight.T[permutation].to(exact).contiguous()
    codes = torch.empty(columns, out, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(len(runs), out, dtype=weight.dtype, device=weight.device)
    zeros = None if symmetric else torch.empty(len(runs), out, dtype=torch.uint8, device=weight.device)
    start = 0
    for run in runs:
        stop = start + len(run)
        index = int(run[0]) // group
        scale, zero = grid(rest[start:stop].T, bits, weight.dtype, symmetric)
        scales[index] = scale
        if zeros is not None and zero is not None:
            zeros[index] = zero
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            errors = _round_block(
                rest[first:last], codes[first:last], factor[first:last, first:last], scale, zero, bits
            )
            rest[last:].addmm_(factor[first:last, last:].T, errors, alpha=-1)
        start = stop
    natural = torch.empty_like(codes).index_copy_(0, permutation, codes)
    return Quantized(
        pack(natural.T.contiguous(), bits),
        scales.T.contiguous(),
        None if zeros is None else zeros.T.contiguous(),
        bits=bits,
        group=group,
        columns=columns,
    )


def _round_block(block: Tensor, codes: Tensor, factor: Tensor, scale: Tensor, zero: Tensor | None, bits: int) -> Tensor:
    """Rounds the columns of W in `block` (k, out) in turn, fills `codes`, returns the errors over U[j, j], (k, out)."""
    errors = torch.empty_like(block)
    exact_scale = scale.to(block.dtype)
    diagonal = factor.diagonal().tolist()
    for j, (w, pivot) in enumerate(zip(block, diagonal, strict=True)):
        codes[j] = encode(w, scale, zero, bits)
        torch.sub(w, decode(codes[j], exact_scale, zero, bits), out=errors[j]).div_(pivot)
        block[j + 1 :].addr_(factor[j, j + 1 :], errors[j], alpha=-1)
    return errors


def column_order(energy: Tensor, group: int, order: str) -> list[Tensor]:
    """The columns of each group, in the order in which groups and their columns are rounded.

    Args:
        energy: (in,), second moment of each input.
        group: size of the groups of consecutive columns.
        order: "activation" or "natural".
    """
    runs = list(torch.split(torch.arange(len(energy), device=energy.device), group))
    if order == "natural":
        return runs
    if order != "activation":
        raise ValueError(f"order is 'activation' or 'natural', got {order!r}")
    largest = torch.stack([energy[run].max() for run in runs])
    ranked = [runs[i] for i in largest.argsort(descending=True, stable=True).tolist()]
    return [run[energy[run].argsort(descending=True, stable=True)] for run in ranked]


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
    identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    factor: Tensor = torch.linalg.solve_triangular(lower.flip(0, 1), identity, upper=True)
    return factor
