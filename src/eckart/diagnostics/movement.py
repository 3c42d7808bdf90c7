"""How far a matrix has moved from another, and in which directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.diagnostics.intruder_dimensions import find_intruders
from eckart.linalg.spectrum import entropy


def noise_level(weight: Tensor) -> float:
    """A bound of the spectral norm of what rounding W to its dtype changes: eps rms(W) (sqrt out + sqrt in)."""
    out, columns = weight.shape
    rms = float(weight.double().square().mean().sqrt())
    return torch.finfo(weight.dtype).eps * rms * (math.sqrt(out) + math.sqrt(columns))


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of the principal angles between the spans of two orthonormal bases (n, k): (k,), descending.

    They are the singular values of a^T b (Bjorck and Golub 1973).
    """
    cosines: Tensor = torch.linalg.svdvals(a.T @ b)
    return cosines.clamp_max(1)


def moved(base: Tensor, tuned: Tensor, *, k: int = 10, threshold: float = 0.5) -> dict[str, float | int | list[float]]:
    """A matrix against its base, both (out, in).

    `moved` is ||dW||_F / ||W||_F and `moved_spectral` ||dW||_2 / ||W||_2. `difference_rank` counts the singular values
    of dW above what rounding W to its dtype would leave, `difference_stable_rank` is ||dW||_F^2 / ||dW||_2^2, and
    `difference_effective_rank` the exponential of the entropy of the singular values. `difference_in_base` is the
    share of ||dW||_F^2 between the top k singular subspaces of the base. `overlap_left` and `overlap_right` are the
    mean squared cosines of the principal angles between those subspaces before and after: 1 where they are the same,
    k / n for random ones. `intruders` counts them, and `cosines` are those of `find_intruders`.

    Raises:
        Refused: as `find_intruders`.
    """
    before, found = find_intruders(base, tuned, k=k, threshold=threshold)
    k = len(found.values)
    u, s, vt = before
    difference = tuned.detach().double() - base.detach().double()
    values = torch.linalg.svdvals(difference)
    size = float(values.square().sum())
    noise = noise_level(tuned.detach()) + float(values[0]) * max(base.shape) * torch.finfo(torch.float64).eps
    inside = float((u[:, :k].T @ difference @ vt[:k].T).square().sum())
    return {
        "moved": math.sqrt(size / float(s.square().sum())),
        "moved_spectral": float(values[0] / s[0]),
        "difference_norm": math.sqrt(size),
        "difference_rank": int((values > noise).sum()),
        "difference_stable_rank": size / float(values[0]) ** 2 if size > 0 else 0.0,
        "difference_effective_rank": math.exp(entropy(values)) if size > 0 else 0.0,
        "difference_in_base": inside / size if size > 0 else 0.0,
        "overlap_left": float(overlap(u[:, :k], found.left).square().mean()),
        "overlap_right": float(overlap(vt[:k].T, found.right).square().mean()),
        "intruders": len(found.index),
        "cosines": found.cosines.tolist(),
    }
