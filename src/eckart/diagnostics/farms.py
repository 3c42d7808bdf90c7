"""How heavy the tail of a spectrum is, without the bias of the matrix's shape."""

from __future__ import annotations

import torch
from torch import Tensor

from eckart.diagnostics._tails import hill
from eckart.diagnostics.contract import Column, Numbers, Windows, diagnostic
from eckart.errors import Refused


def window_eigenvalues(weight: Tensor, window: tuple[int, int], positions: int = 8) -> Tensor:
    """Squared singular values of windows of one size laid over a matrix, of all windows together.

    The shape of a matrix bends the spectrum of its noise; windows of one shape bend them all alike. They stand at even
    distances, as few as cover the matrix and at most `positions` along each side.

    Args:
        weight: W (out, in), or the filters of a convolution (out, in, height, width), which is a matrix (out, in) at
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


@diagnostic(
    "farms",
    paper="Hu et al. 2025, arXiv 2506.06280",
    of="windows",
    gives={
        "alpha_farms": Column(
            "alpha_hill over windows of one shape, which the shape of the matrix does not bias",
            title="alpha over windows",
            short="farms",
            mean=True,
            extremes=True,
        )
    },
    noun="alpha_farms",
)
def alpha_over_windows(windows: Windows) -> Numbers:
    """Hill's exponent of the eigenvalues of square windows that are laid over the matrix.

    The shape of a matrix bends the spectrum of its noise, and with it the exponent of a tail; windows of one size bend
    those of all matrices alike, so that they compare.

    Raises:
        Refused: as `farms`.
    """
    return {"alpha_farms": farms(windows.weight, (windows.side, windows.side))}
