"""Intruder dimensions: strong directions of a fine-tuned matrix that its base did not have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.diagnostics.contract import Change, Column, Numbers, diagnostic
from eckart.errors import Refused


@dataclass(frozen=True)
class Intruders:
    """The top k singular triples of a fine-tuned matrix, and how new they are.

    Attributes:
        left: (out, k), descending by singular value.
        values: (k,).
        right: (in, k).
        cosines: (k,), of each left vector the largest |cos| with any left singular vector of the base.
        threshold: an intruder has a cosine below it.
    """

    left: Tensor
    values: Tensor
    right: Tensor
    cosines: Tensor
    threshold: float

    @property
    def index(self) -> Tensor:
        """The positions, among the k, of the intruders."""
        return torch.nonzero(self.cosines < self.threshold).squeeze(1)


def find_intruders(change: Change, *, k: int = 10, threshold: float = 0.5) -> Intruders:
    """The top k directions of a fine-tuned matrix held against all of its base (Shuttleworth et al. 2024).

    u_i, a left singular vector of `tuned`, is an intruder where max_j |<u_i, u_j>| < threshold over the left singular
    vectors u_j of `base`.

    Args:
        change: the two matrices.
        k: how many directions to look at; all where there are fewer.
        threshold: in (0, 1].

    Raises:
        Refused: a bad k or threshold.
    """
    if k < 1 or not 0 < threshold <= 1:
        raise Refused(f"k={k} and threshold={threshold} must be at least 1, and in (0, 1]")
    u, s, vt = change.after
    cosines = (change.before[0].T @ u[:, :k]).abs().amax(0)
    return Intruders(u[:, :k], s[:k], vt[:k].T, cosines, threshold)


def mitigate(base: Tensor, tuned: Tensor, scale: float, *, k: int = 10, threshold: float = 0.5) -> tuple[Tensor, int]:
    """W + dW + (scale - 1) sum_i s_i u_i v_i^T over the intruders i: their singular values scaled.

    Args:
        base, tuned: see `Change`.
        scale: in [0, 1]; 0 takes the intruders out, 1 leaves all as it is.
        k, threshold: see `find_intruders`.

    Returns:
        (out, in), in the dtype of `tuned`, and the number of intruders.

    Raises:
        Refused: as `Change` and `find_intruders`, or a bad scale.
    """
    if not 0 <= scale <= 1:
        raise Refused(f"scale={scale} is not in [0, 1]; 0 takes the intruders out, 1 leaves them")
    found = find_intruders(Change(base, tuned), k=k, threshold=threshold)
    i = found.index
    change = (found.left[:, i] * found.values[i]) @ found.right[:, i].T
    return (tuned.detach().double() + (scale - 1) * change).to(tuned.dtype), len(i)


@diagnostic(
    "intruder-dimensions",
    paper="Shuttleworth et al. 2024, arXiv 2410.21228",
    of="change",
    gives={
        "intruders": Column(
            "Of the top ten left singular vectors, those with no cosine of 0.5 to any of the other model's",
            kind="integer",
            title="intruder dimensions",
            short="intruders",
            extremes=True,
        ),
        "cosines": Column("The largest cosine of each of the ten", kind="numbers"),
    },
    noun="intruder dimensions",
)
def new_directions(change: Change) -> Numbers:
    """The strong directions of the tuned matrix that its base did not have, of the ten strongest.

    An intruder is a left singular vector whose largest |cosine| with any left singular vector of the base is below 0.5.
    Low-rank training makes them, and they are where a model forgets; `eckart.mitigate_intruders` scales them down.
    """
    found = find_intruders(change)
    return {"intruders": len(found.index), "cosines": found.cosines.tolist()}
