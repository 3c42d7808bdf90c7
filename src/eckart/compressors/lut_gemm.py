"""LUT-GEMM: sums of planes of signs, which are multiplied by looking up sums of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne, paying, rounding
from eckart.compressors.contract import Family, compressor
from eckart.errors import Refused
from eckart.metrics import Metric
from eckart.ops.packing import grouped
from eckart.statistics.needs import Need, Statistics
from eckart.structures.base import Cost
from eckart.structures.binary_coded import BinaryCoded
from eckart.structures.quantized import finite_matrix

GROUP = 128
BITS = (2, 3, 4)
ROUNDS = 15


@compressor(
    "lut-gemm",
    paper="Park et al. 2022, arXiv 2206.09557; fit: Xu et al. 2018, arXiv 1802.00150",
    expression="BinaryCoded",
    needs=(Need.INPUT_SECOND_MOMENT,),
    size="bits",
)
def lut_gemm(weight: Tensor, statistics: Statistics, *, group: int = GROUP) -> Family:
    """Every weight becomes a sum of +-a_0 .. +-a_(q-1), with scales a for 128 inputs of a row: levels on no grid.

    `min sum_j f_j (w_j - sum_p a_p b_pj)^2` over signs b and scales a of each group of a row, see `binary_coding`. Here
    f_j is the mean square of input j; the papers have f = 1. Four columns of a plane are the number of one of sixteen
    sums of inputs, so that a product adds up what it looks up (`structures.BinaryCoded`).

    It is for 2 bits: on matrices that were never quantized it is then better than rounding to nearest at equal bytes.
    At 4 bits rounding to nearest and `nf4` are better in fewer bytes, and `gptq` is at every size.

    Args:
        weight: (out, in).
        statistics: the diagonal of `input_second_moment` C is read; errors are `||(W - What) diag(C)^1/2||_F^2`.
        group: inputs that share scales, a multiple of 16.

    Raises:
        Refused: weight or C has NaN or Inf entries, C does not fit the weight, or a group that is no multiple of 16.
    """
    importance = statistics.input_moment(finite_matrix(weight)).diagonal()

    def cost(bits: int) -> Cost:
        return BinaryCoded.empty(weight.shape, bits, group, weight.dtype).cost()

    def fit(bits: int) -> BinaryCoded:
        return binary_coding(weight, bits, group, importance)

    return OneByOne(weight, paying(weight, BITS, cost), cost, fit, Metric(right=importance), rounding)


def binary_coding(weight: Tensor, bits: int, group: int = GROUP, importance: Tensor | None = None) -> BinaryCoded:
    """Fits planes of signs and their scales to each group of each row.

    Greedy: `b_p = sign(r)` and a_p the mean of |r|, of what is left, r. Then scales by least squares for the signs,
    `a = (B^T F B)^+ B^T F w`, and signs of the nearest of the 2^bits sums take turns. Neither step can raise the error;
    rounds end where no sign changes, or after 15.

    Args:
        weight: (out, in), floating point; scales take its dtype.
        bits: number of planes, 1 to 8.
        group: inputs that share scales.
        importance: f (in,), weights of the squared errors, not negative; None for ones.

    Raises:
        Refused: weight is no finite matrix, or importance has negative or infinite entries.
    """
    w = finite_matrix(weight).double()
    f = w.new_ones(w.shape[1]) if importance is None else importance.to(w)
    if f.shape != w.shape[1:] or not torch.isfinite(f).all() or (f < 0).any():
        raise Refused(f"importance must be {w.shape[1]} finite numbers, none negative, got shape {tuple(f.shape)}")
    group = min(group, w.shape[1])
    inside = grouped(torch.ones_like(f), group)
    f = grouped(f, group)
    f = torch.where(f.sum(-1, keepdim=True) > 0, f, inside)  # inputs that are always zero are as good as any others
    f = f / f.amax(-1, keepdim=True)
    rows = grouped(w, group)
    unit = rows.abs().amax(-1, keepdim=True)
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))
    rows = (rows / unit).contiguous()
    codes, rest = torch.zeros_like(rows, dtype=torch.int64), rows
    for plane in range(bits):
        positive = rest >= 0
        mean = (f * rest.abs()).sum(-1, keepdim=True) / f.sum(-1, keepdim=True)
        rest = rest - torch.where(positive, mean, -mean)
        codes += positive.to(torch.int64) << plane
    scales = _least_squares(rows, codes, f, bits)
    for _ in range(ROUNDS):
        nearest = _nearest(rows, scales)
        if torch.equal(nearest, codes):
            break
        codes = nearest
        scales = _least_squares(rows, codes, f, bits)
    scales = (scales * unit).to(weight.dtype)
    codes = _nearest(rows, scales / unit).flatten(1)[:, : w.shape[1]]
    planes = torch.stack([(codes >> plane & 1).bool() for plane in range(bits)])
    return BinaryCoded.from_planes(planes, scales, group=group)


def _signs(bits: int, like: Tensor) -> Tensor:
    """The signs (2^bits, bits) that each code stands for, -1 or 1, in the dtype of another tensor."""
    codes = torch.arange(1 << bits, device=like.device)
    return ((codes[:, None] >> torch.arange(bits, device=like.device) & 1) * 2 - 1).to(like.dtype)


def _least_squares(rows: Tensor, codes: Tensor, f: Tensor, bits: int) -> Tensor:
    """Scales (out, groups, bits) of least error; the shortest where planes repeat each other."""
    signs = _signs(bits, rows)
    # B^T F B and B^T F w need no B: entries of one code have one row of it.
    empty = rows.new_zeros(*rows.shape[:-1], 1 << bits)
    count, total = empty.scatter_add(-1, codes, f.expand_as(rows)), empty.scatter_add(-1, codes, f * rows)
    inverse: Tensor = torch.linalg.pinv((signs.T * count[..., None, :]) @ signs, hermitian=True)
    return (inverse @ (total @ signs)[..., None]).squeeze(-1)


def _nearest(rows: Tensor, scales: Tensor) -> Tensor:
    """Codes (out, groups, group) of the sum of scales (out, groups, bits) nearest to each entry of rows."""
    sums, order = (scales.to(rows.dtype) @ _signs(scales.shape[-1], rows).T).sort(dim=-1, stable=True)
    return order.gather(-1, torch.searchsorted((sums[..., 1:] + sums[..., :-1]) / 2, rows))
