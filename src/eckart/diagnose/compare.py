"""How far a matrix has moved from another, and in which directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.diagnose.intruders import find_intruders
from eckart.diagnose.spectra import check, entropy


def noise_level(weight: Tensor) -> float:
    """What the spectral norm of the rounding of W in its own dtype comes to at most: eps rms(W) (sqrt out + sqrt in)."""
    out, columns = weight.shape
    rms = float(weight.double().square().mean().sqrt())
    return torch.finfo(weight.dtype).eps * rms * (math.sqrt(out) + math.sqrt(columns))


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of the principal angles between the spans of two orthonormal bases (n, k): (k,), descending.

    They are the singular values of a^T b (Bjorck and Golub 1973).
    """
    return torch.linalg.svdvals(a.T @ b).clamp_max(1)


def moved(base: Tensor, tuned: Tensor, *, k: int = 10, threshold: float = 0.5) -> dict[str, float | int | list[float]]:
    """A matrix against its base, both (out, in).

    `moved` is ||dW||_F / ||W||_F and `moved_spectral` ||dW||_2 / ||W||_2; `difference_rank` counts the singular values of
    dW above what rounding W to its dtype would leave, `difference_effective_rank` is the exponential of the entropy of
    all of them, and `difference_stable_rank` ||dW||_F^2 / ||dW||_2^2. `overlap_left` and `overlap_right` are the mean squared cosines of the principal angles
    between the top k singular subspaces before and after: 1 where they are the same, k / n for random ones.
    `difference_in_base` is the share of ||dW||_F^2 that the top k subspaces of the base hold, on both sides. `intruders`
    counts them, and `cosines` are those of `find_intruders`.

    Raises:
        ValueError: as `find_intruders`.
    """
    check(base)
    check(tuned)
    if base.shape != tuned.shape:
        raise ValueError(f"a base of shape {tuple(base.shape)} does not go with {tuple(tuned.shape)}")
    found = find_intruders(base, tuned, k=k, threshold=threshold)
    k = len(found.values)
    w = base.detach().double()
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    difference = tuned.detach().double() - w
    values = torch.linalg.svdvals(difference)
    size = float(values.square().sum())
    inside = float((u[:, :k].T @ difference @ vt[:k].T).square().sum())
    return {
        "moved": math.sqrt(size / float(s.square().sum())),
        "moved_spectral": float(values[0] / s[0]),
        "difference_norm": math.sqrt(size),
        "difference_rank": int((values > noise_level(tuned.detach())).sum()),
        "difference_stable_rank": size / float(values[0]) ** 2 if size > 0 else 0.0,
        "difference_effective_rank": math.exp(entropy(values)) if size > 0 else 0.0,
        "difference_in_base": inside / size if size > 0 else 0.0,
        "overlap_left": float(overlap(u[:, :k], found.left).square().mean()),
        "overlap_right": float(overlap(vt[:k].T, found.right).square().mean()),
        "intruders": len(found.index),
        "cosines": found.cosines.tolist(),
    }
