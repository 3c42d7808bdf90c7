"""How much a row of a matrix matters: leverage scores, Lewis weights, lp sensitivities, and draws by them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import qr
from scipy.optimize import linprog

from eckart.arrays import Dense, Seed, generator_of, rows
from eckart.errors import Refused
from eckart.linalg.sketches import Sketch


def _whitened(a: Any, sketch: Sketch | None) -> Dense:
    """A V with (A V)^T (A V) the identity of A's rank, or nearly so where A's Gram matrix is that of a sketch."""
    small = a.toarray() if sketch is None and sparse.issparse(a) else a
    small = small if sketch is None else sketch.apply(a)
    size = np.linalg.norm(small, axis=0)
    scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
    if sketch is None:
        q, r, _ = qr(small * scale, mode="economic", pivoting=True)
        basis: Dense = q[:, : _rank(np.abs(r.diagonal()), small.shape)]
        return basis
    _, s, vh = np.linalg.svd(small * scale, full_matrices=False)
    k = _rank(s, small.shape)
    return np.asarray(a @ (scale[:, None] * vh[:k].T / s[:k]))


def _rank(descending: Dense, shape: tuple[int, ...]) -> int:
    if not descending.size or descending[0] == 0:
        return 0
    return int((descending > descending[0] * max(shape) * np.finfo(float).eps).sum())


def leverage_scores(a: Any, sketch: Sketch | None = None) -> Dense:
    """tau_i = a_i^T (A^T A)^+ a_i, the diagonal of the projection on the columns of A.

    Args:
        a: A (n, d), dense or sparse.
        sketch: of n rows; A^T A is that of S A then, which keeps every score up to the distortion of S.

    Returns:
        (n,), in [0, 1] and summing up to the rank of A where no sketch is used.
    """
    a = rows(a, "the matrix")
    found: Dense = np.square(_whitened(a, sketch)).sum(1)
    return found


def lewis_weights(a: Any, p: float, *, iterations: int = 200, tolerance: float = 1e-9) -> Dense:
    """w with w_i = tau_i(W^(1/2 - 1/p) A): the leverage scores of A in a change of density that fits lp.

    For p < 2 the fixed point of Cohen and Peng (2015), which contracts by |1 - p/2| a step; from 2 on w is replaced by
    the scores themselves (Lee 2016), whose Jacobian in log w has eigenvalues in [0, 1 - 2/p].

    Args:
        a: A (n, d), dense or sparse.
        p: above zero.
        iterations: at most.
        tolerance: of the largest relative change.

    Returns:
        (n,), summing up to the rank of A; zero for rows of zeros.
    """
    if not 0 < p < np.inf:
        raise Refused(f"p={p} is no exponent of a norm")
    a = rows(a, "the matrix")
    dense = a.toarray() if sparse.issparse(a) else a
    live = np.abs(dense).sum(1) > 0
    kept = dense[live]
    w = np.ones(len(kept))
    for _ in range(iterations):
        power = w ** (0.5 - 1 / p)
        scores = np.square(_whitened(kept * power[:, None], None)).sum(1)
        new = scores if p >= 2 else (scores / power**2) ** (p / 2)
        change = np.abs(new / w - 1).max(initial=0)
        w = new
        if change < tolerance:
            break
    found = np.zeros(len(dense))
    found[live] = w
    return found


def lp_sensitivities(a: Any, p: float, which: Any = None) -> Dense:
    """sigma_i = max_x |a_i x|^p / |A x|_p^p, one regression a row: a linear program for p = 1, else by weights.

    Args:
        a: A (n, d), dense or sparse.
        p: at least 1.
        which: rows of which they are wanted; all where None.

    Returns:
        (n,) or as many as are wanted.
    """
    if not 1 <= p < np.inf:
        raise Refused(f"p={p}: sensitivities are computed for p of at least 1")
    a = rows(a, "the matrix")
    dense = a.toarray() if sparse.issparse(a) else a
    index = np.arange(len(dense)) if which is None else np.asarray(which)
    _, r, order = qr(dense, mode="economic", pivoting=True)
    basis = dense[:, order[: _rank(np.abs(r.diagonal()), dense.shape)]]
    solve = _least_l1 if p == 1 else _least_lp
    found = np.zeros(len(index))
    for place, i in enumerate(index):
        if np.abs(basis[i]).any():
            found[place] = min(1.0, 1 / solve(basis, basis[i], p))
    return found


def _least_l1(a: Dense, row: Dense, p: float) -> float:
    """min |A x|_1 with row x = 1."""
    n, d = a.shape
    cost = np.concatenate([np.zeros(d), np.ones(n)])
    sides = sparse.csr_array(np.concatenate([a, -a]))
    bounds = sparse.hstack([sides, sparse.vstack([-sparse.eye_array(n)] * 2)]).tocsr()
    found = linprog(cost, bounds, np.zeros(2 * n), np.concatenate([row, np.zeros(n)])[None], [1.0], bounds=(None, None))
    return float(found.fun)


def _least_lp(a: Dense, row: Dense, p: float) -> float:
    """min |A x|_p^p with row x = 1, by least squares with weights |r|^(p - 2) and steps that are halved while it rises.

    From p = 2 on the first length that is tried, 1/(p - 1), is that of Newton's step.
    """
    x, value = np.zeros(a.shape[1]), np.inf
    weight, length = np.ones(len(a)), 1.0
    for _ in range(300):
        towards = np.linalg.lstsq(a.T @ (weight[:, None] * a), row, rcond=None)[0]
        step, before = towards / (row @ towards) - x, value
        while length > 1e-9:
            tried = float((np.abs(a @ (x + length * step)) ** p).sum())
            if tried < value:
                x, value = x + length * step, tried
                break
            length /= 2
        if not value < (1 - 1e-13) * before:
            break
        residual = np.abs(a @ x)
        weight = np.maximum(residual, 1e-10 * residual.max()) ** (p - 2)
        length = 1 / (p - 1) if p > 2 else 1.0
    return value


def sample_rows(scores: Dense, count: float, p: float = 2.0, generator: Seed = None) -> tuple[Dense, Dense]:
    """Rows drawn by themselves, row i with probability q_i = min(1, c s_i), and their weights q_i^(-1/p).

    E |W A x|_p^p = |A x|_p^p for every x. c is such that `count` rows are kept in the mean.

    Args:
        scores: s (n,), not negative.
        count: rows in the mean; all with a score where it is more.
        p: of the norm.
        generator: of the draws.

    Returns:
        Indices, ascending, and their weights.
    """
    s = np.asarray(scores, np.float64)
    if s.ndim != 1 or not np.isfinite(s).all() or (s < 0).any() or not count > 0:
        raise Refused(f"scores of shape {s.shape}, and count={count}: scores are finite and not negative")
    q = np.where(s > 0, 1.0, 0.0)
    if count < q.sum():
        order = np.sort(s[s > 0])[::-1]
        beyond = np.cumsum(order[::-1])[::-1]
        kept = np.arange(len(order))
        # With the k largest kept for sure, the others share count - k by their scores; the least k that is consistent.
        c = (count - kept) / beyond
        fits = np.flatnonzero((c * order <= 1) & (c > 0))
        q = np.minimum(1, c[fits[0]] * s)
    drawn = np.flatnonzero(generator_of(generator).random(len(s)) < q)
    return drawn, q[drawn] ** (-1 / p)
