"""Products of a tensor with a matrix along each of its modes, which are those of Kronecker products with vectors."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from eckart.arrays import Dense


def unfold(t: Dense, mode: int) -> Dense:
    """The fibres of a mode as columns: (n_mode, product of the others), the last mode fastest."""
    return np.moveaxis(t, mode, 0).reshape(t.shape[mode], -1)


def mode_products(t: Dense, matrices: Sequence[Dense | None]) -> Dense:
    """t x_1 A_1 x_2 A_2 ...: entry (i, j, ...) is the sum over (a, b, ...) of A_1[i, a] A_2[j, b] ... t[a, b, ...].

    Args:
        t: (n_1, ..., n_K).
        matrices: A_k (m_k, n_k); None for the identity.
    """
    for mode, a in enumerate(matrices):
        if a is not None:
            # tensordot puts the new mode first; the others keep their order.
            t = np.moveaxis(np.tensordot(a, t, (1, mode)), 0, mode)
    return t


def kron_matvec(matrices: Sequence[Dense], v: Dense) -> Dense:
    """(A_1 kron A_2 kron ...) v, without the product: (product of m_k,) of v (product of n_k,)."""
    return mode_products(v.reshape([a.shape[1] for a in matrices]), matrices).reshape(prod(map(len, matrices)))


def outer(vectors: Sequence[Dense]) -> Dense:
    """The tensor of one term, v_1[i] v_2[j] ...: (n_1, ..., n_K)."""
    found: Dense = vectors[0]
    for v in vectors[1:]:
        found = np.multiply.outer(found, v)
    return found
