"""How far a matrix has moved from another, and in which directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eckart.diagnostics.contract import Change, Column, Numbers, diagnostic
from eckart.errors import Refused
from eckart.linalg.spectrum import entropy

TOP = 10
"""Leading directions that are compared."""


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


@diagnostic(
    "movement",
    paper="Bjorck and Golub 1973, Mathematics of Computation; Roy and Vetterli 2007, EUSIPCO",
    of="change",
    gives={
        "moved": Column(
            "Norm of the change by the norm of the other model's matrix",
            unit="ratio",
            short="moved",
            mean=True,
            extremes=True,
        ),
        "moved_spectral": Column(
            "The same in the spectral norm", unit="ratio", title="moved, spectral norm", place="table"
        ),
        "difference_norm": Column("Frobenius norm of the change", title="norm of the change", place="file"),
        "difference_rank": Column(
            "Its singular values above what rounding to the dtype leaves",
            kind="integer",
            unit="rank",
            title="rank of the change",
            short="rank of\nchange",
        ),
        "difference_stable_rank": Column(
            "Its squared Frobenius norm by its squared spectral norm",
            unit="rank",
            title="stable rank of the change",
            place="facts",
        ),
        "difference_effective_rank": Column(
            "exp of the entropy of its singular values",
            unit="rank",
            title="effective rank of the change",
            place="facts",
        ),
        "difference_in_base": Column(
            "Share of its squared norm between the top ten singular subspaces of the other model's matrix",
            unit="share",
            title="inside old directions",
            place="facts",
        ),
        "overlap_left": Column(
            "Mean squared cosine of the principal angles between the top ten left singular subspaces",
            unit="share",
            short="overlap\nleft",
            place="file",
        ),
        "overlap_right": Column("The same on the right", unit="share", short="right", place="file"),
    },
    unmeasured="norms and angles; the tests compute them anew",
)
def movement(change: Change) -> Numbers:
    """How far a matrix has moved from its base, over how many directions, and whether the leading ones turned.

    `moved` is ||dW||_F / ||W||_F and `moved_spectral` ||dW||_2 / ||W||_2. `difference_rank` counts the singular values
    of dW above what rounding W to its dtype would leave, `difference_stable_rank` is ||dW||_F^2 / ||dW||_2^2, and
    `difference_effective_rank` the exponential of the entropy of the singular values. `difference_in_base` is the
    share of ||dW||_F^2 between the top ten singular subspaces of the base. `overlap_left` and `overlap_right` are the
    mean squared cosines of the principal angles between those subspaces before and after: 1 where they are the same,
    k / n for random ones.

    Raises:
        Refused: squares of entries overflow or vanish.
    """
    base, tuned = change.base, change.tuned.detach()
    k = min(TOP, *base.shape)
    (u, s, vt), (new_u, _, new_vt) = change.before, change.after
    difference = tuned.double() - base.detach().double()
    values = torch.linalg.svdvals(difference)
    size, whole = float(values.square().sum()), float(s.square().sum())
    if not (whole > 0 and math.isfinite(whole + size)):
        raise Refused(f"squares of entries up to {float(change.base.abs().max()):.0e} do not fit float64; scale them")
    noise = noise_level(tuned) + float(values[0]) * max(base.shape) * torch.finfo(torch.float64).eps
    inside = float((u[:, :k].T @ difference @ vt[:k].T).square().sum())
    return {
        "moved": math.sqrt(size / whole),
        "moved_spectral": float(values[0] / s[0]),
        "difference_norm": math.sqrt(size),
        "difference_rank": int((values > noise).sum()),
        "difference_stable_rank": size / float(values[0]) ** 2 if size > 0 else 0.0,
        "difference_effective_rank": math.exp(entropy(values)) if size > 0 else 0.0,
        "difference_in_base": inside / size if size > 0 else 0.0,
        "overlap_left": float(overlap(u[:, :k], new_u[:, :k]).square().mean()),
        "overlap_right": float(overlap(vt[:k].T, new_vt[:k].T).square().mean()),
    }
