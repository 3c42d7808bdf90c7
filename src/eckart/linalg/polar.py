"""The orthogonal matrix that is nearest to a matrix."""

from __future__ import annotations

import numpy as np

from eckart.arrays import Dense


def polar(a: Dense) -> Dense:
    """U V^T of A = U S V^T: of all matrices of spectral norm 1 at most, that of the largest inner product with A.

    Args:
        a: (..., m, n); where A has not full rank, directions it says nothing about are filled in by its SVD.

    Returns:
        (..., m, n), orthonormal rows or columns, whichever are fewer.
    """
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    found: Dense = u @ vh
    return found
