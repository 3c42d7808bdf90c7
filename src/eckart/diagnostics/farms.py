"""How heavy the tail of a spectrum is: the exponent of a power law, with and without the bias of the matrix's shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eckart.errors import Refused

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST = 50
"""Values below which no power law is fitted: Clauset, Shalizi and Newman call fewer unreliable."""

_COARSE = 8
_COMPLETED = 16
_BLOCK = 1 << 14


@dataclass(frozen=True)
class PowerLaw:
    """A tail p(x) ~ x^-alpha for x >= xmin.

    Attributes:
        alpha: the exponent.
        xmin: where the tail begins.
        distance: Kolmogorov-Smirnov distance between the tail and the law.
        sigma: standard error of alpha, (alpha - 1) / sqrt(count).
        count: values in the tail.
    """

    alpha: float
    xmin: float
    distance: float
    sigma: float
    count: int


def fit_power_law(values: Tensor) -> PowerLaw:
    """The power law that its tail follows most closely, over all cut-offs (Clauset, Shalizi and Newman 2009).

    For a tail of n values from x_i up, alpha_i = 1 + n / sum_j ln(x_j / x_i) is the maximum of the likelihood, and
    D_i = max_j |1 - (x_j / x_i)^(1 - alpha_i) - j / n| with j = 0, 1, ... its distance; the least D_i wins. The
    distances of all i are bounded from below on every eighth j, then on all j around the largest of these, and
    completed in the order of these bounds until none is left below the least: what is returned is the minimum over
    all i.

    Args:
        values: positive, in any order.

    Raises:
        Refused: fewer than `LEAST` values, values that are not positive, or values that are all equal.
    """
    x = checked(values)
    n = len(x)
    logs = np.log(x / x[-1])
    counts = np.arange(n, 1.0, -1.0)
    # The mean of ln(x_j / x_i) over the tail, 1 / (alpha_i - 1).
    excess = np.cumsum(logs[::-1])[::-1][:-1] / counts - logs[:-1]
    candidates = np.flatnonzero(excess > 1e-12)
    if not len(candidates):
        raise Refused("all values are equal, so they have no tail")

    rates, shares = -1 / excess, 1 / counts

    def distances(rows: Indices, step: int) -> tuple[Array, Indices]:
        """D_i, or its maximum over every `step`-th j, and the j where it is; rows ascending."""
        found, places = np.empty(len(rows)), np.empty(len(rows), np.int64)
        size = max(1, _BLOCK * step // n)
        for k in range(0, len(rows), size):
            part = rows[k : k + size]
            # A j below i counts as i; below exp(-40) is nothing, and slow to compute.
            law = np.multiply.outer(rates[part], logs[part[0] :: step]) - (rates[part] * logs[part])[:, None]
            gap = np.exp(np.clip(law, -40, 0, out=law), out=law)
            ranks = np.arange(part[0], n, step, dtype=np.float64)
            rank = np.multiply.outer(shares[part], ranks) - (shares[part] * part)[:, None]
            gap += np.maximum(rank, 0, out=rank)
            gap -= 1
            at = np.abs(gap, out=gap).argmax(1)
            found[k : k + size] = gap[np.arange(len(part)), at]
            places[k : k + size] = part[0] + step * at
        return found, places

    bound, places = distances(candidates, _COARSE)
    # Between two of those j both terms of D_i rise, so that it exceeds the bound by at most 8 / n.
    likely = bound <= (bound + _COARSE * shares[candidates]).min()
    rows = candidates[likely]
    j = np.clip(places[likely, None] + np.arange(1 - _COARSE, _COARSE), rows[:, None], n - 1)
    law = np.maximum(rates[rows, None] * (logs[j] - logs[rows, None]), -40)
    bound = np.abs(np.exp(law) - 1 + shares[rows, None] * (j - rows[:, None])).max(1)
    order = bound.argsort()
    least, i = math.inf, n
    for k in range(0, len(order), _COMPLETED):
        part = order[k : k + _COMPLETED]
        if bound[part[0]] > least + 1e-12:
            break
        part = np.sort(rows[part])
        complete, _ = distances(part, 1)
        least, i = min((least, i), *zip(complete.tolist(), part.tolist(), strict=True))
    alpha = 1 + 1 / float(excess[i])
    return PowerLaw(alpha, float(x[i]), least, (alpha - 1) / math.sqrt(n - i), n - i)


def hill(values: Tensor) -> float:
    """The exponent of the upper half of the values: alpha_i of `fit_power_law` with x_i the median (Hill 1975).

    Raises:
        Refused: as `fit_power_law`.
    """
    x = checked(values)
    tail = x[len(x) // 2 :]
    excess = float(np.log(tail / tail[0]).mean())
    if not excess > 1e-12:
        raise Refused("all values are equal, so they have no tail")
    return 1 + 1 / excess


def checked(values: Tensor) -> Array:
    """Values in ascending order and float64, enough of them and all positive."""
    if len(values) < LEAST:
        raise Refused(f"a fit needs {LEAST} values that are not zero, there are {len(values)}")
    x = np.sort(values.detach().double().cpu().numpy())
    if not 0 < x[0] <= x[-1] < math.inf:
        raise Refused(f"a power law is of positive finite values, got {x[0]} to {x[-1]}")
    return x


def window_eigenvalues(weight: Tensor, window: tuple[int, int], positions: int = 8) -> Tensor:
    """Squared singular values of windows of one size laid over a matrix, of all windows together.

    The shape of a matrix bends the spectrum of its noise; windows of one shape bend them all alike (Hu et al. 2025,
    FARMS). They stand at even distances, as few as cover the matrix and at most `positions` along each side.

    Args:
        weight: W (out, in), or the kernel of a convolution (out, in, height, width), which is a matrix (out, in) at
            each of its positions.
        window: along the shorter and along the longer side.
        positions: windows along a side.

    Returns:
        In float64, ascending, without those that are zero up to rounding.

    Raises:
        Refused: the matrix is smaller than the window, or has NaN or Inf entries.
    """
    slices = weight.detach().flatten(2).permute(2, 0, 1) if weight.ndim > 2 else weight.detach()[None]
    slices = slices.double() if slices.shape[1] <= slices.shape[2] else slices.mT.double()
    if not torch.isfinite(slices.sum()):
        raise Refused("NaN or Inf entries")
    rows, columns = slices.shape[1:]
    if rows < window[0] or columns < window[1] or min(window) < 1:
        raise Refused(f"a matrix of {rows} x {columns} has no windows of {window[0]} x {window[1]}")
    starts = [_starts(size, part, positions) for size, part in zip((rows, columns), window, strict=True)]
    found = []
    for i in starts[0]:
        for j in starts[1]:
            w = slices[:, i : i + window[0], j : j + window[1]]
            found.append(torch.linalg.eigvalsh(w @ w.mT if window[0] <= window[1] else w.mT @ w))
    values = torch.stack(found).flatten().sort().values
    return values[values > values[-1] * max(window) * torch.finfo(torch.float64).eps]


def _starts(size: int, part: int, positions: int) -> list[int]:
    count = min(positions, -(-size // part))
    return [round((size - part) * i / max(1, count - 1)) for i in range(count)]


def farms(weight: Tensor, window: tuple[int, int], positions: int = 8) -> float:
    """`hill` of `window_eigenvalues`: an exponent that the shape of the matrix does not bias.

    Raises:
        Refused: as these.
    """
    return hill(window_eigenvalues(weight, window, positions))


def common_window(shapes: Iterable[Sequence[int]], largest: int = 512) -> int | None:
    """The side of square windows that fit all matrices on which a tail can be fitted; None where there are none."""
    shorter = [min(shape) for shape in shapes if min(shape) >= LEAST]
    return min(largest, *shorter) if shorter else None
