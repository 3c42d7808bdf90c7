"""Intruder dimensions: strong directions of a fine-tuned matrix that its base did not have."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.spectrum import check

Triples = tuple[Tensor, Tensor, Tensor]
"""U (out, k), s (k,) and V^T (k, in), in float64."""


@dataclass(frozen=True)
class Intruders:
    """Of the top k singular triples of a fine-tuned matrix, how new they are.

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
        """Which of the k are intruders."""
        return torch.nonzero(self.cosines < self.threshold).squeeze(1)


def find_intruders(base: Tensor, tuned: Tensor, *, k: int = 10, threshold: float = 0.5) -> tuple[Triples, Intruders]:
    """The top k directions of a fine-tuned matrix held against all of its base (Shuttleworth et al. 2024).

    u_i, a left singular vector of `tuned`, is an intruder where max_j |<u_i, u_j>| < threshold over the left singular
    vectors u_j of `base`.

    Args:
        base: W (out, in).
        tuned: W + dW, of the same shape.
        k: how many to look at; all where there are fewer.
        threshold: in (0, 1].

    Returns:
        The singular triples of the base, and what the top k of the fine-tuned matrix are beside them.

    Raises:
        Refused: shapes that differ, entries that are not finite, a zero matrix, or a bad k or threshold.
    """
    check(base)
    check(tuned)
    if base.shape != tuned.shape:
        raise Refused(f"a base of shape {tuple(base.shape)} does not go with {tuple(tuned.shape)}")
    if k < 1 or not 0 < threshold <= 1:
        raise Refused(f"k={k} and threshold={threshold} must be at least 1, and in (0, 1]")
    if not (base.any() and tuned.any()):
        raise Refused("a zero matrix has no singular vectors")
    k = min(k, *base.shape)
    before = _triples(base)
    u, s, vt = _triples(tuned)
    cosines = (before[0].T @ u[:, :k]).abs().amax(0)
    return before, Intruders(u[:, :k], s[:k], vt[:k].T, cosines, threshold)


def _triples(matrix: Tensor) -> Triples:
    u, s, vt = torch.linalg.svd(matrix.detach().double(), full_matrices=False)
    return u, s, vt


def mitigate(base: Tensor, tuned: Tensor, scale: float, *, k: int = 10, threshold: float = 0.5) -> tuple[Tensor, int]:
    """W + dW + (scale - 1) sum_i s_i u_i v_i^T over the intruders i: their singular values scaled.

    Args:
        base, tuned, k, threshold: see `find_intruders`.
        scale: in [0, 1]; 0 takes the intruders out, 1 leaves all as it is.

    Returns:
        (out, in), in the dtype of `tuned`, and the number of intruders.
    """
    if not 0 <= scale <= 1:
        raise Refused(f"scale={scale} is not in [0, 1]; 0 takes the intruders out, 1 leaves them")
    _, found = find_intruders(base, tuned, k=k, threshold=threshold)
    i = found.index
    change = (found.left[:, i] * found.values[i]) @ found.right[:, i].T
    return (tuned.detach().double() + (scale - 1) * change).to(tuned.dtype), len(i)
