"""Minima of quadratic functions, blocks of coordinates at a time, by which blocks and which steps."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import DisjointSet
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse.linalg import splu

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of, rows
from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch

SYMMETRIC = 1e-10
"""By the largest entry of the diagonal: what rounding may have done to symmetry and to eigenvalues of zero."""
Selection = Literal["shuffled", "cyclic", "random", "gs", "gsl", "gsd", "gsq", "aged", "forest"]
_THRESHOLDED = 10
"""Steps of iterative hard thresholding for "gsq"."""


def _ridge(generator: np.random.Generator) -> dict[str, Any]:
    """The normal equations of a small ridge regression."""
    a = generator.standard_normal((30, 12))
    return {"hessian": a.T @ a + np.eye(12), "b": a.T @ generator.standard_normal(30), "block": 4}


def _one_block(rng: np.random.Generator) -> Planted:
    """All coordinates in a block: one step of Newton's."""
    given = _ridge(rng) | {"block": 12}
    exact = np.linalg.solve(given["hessian"], given["b"])
    return Planted(given, lambda found: np.abs(found.value - exact).max() + (found.iterations != 1), 1e-10)


@sketch(
    "greedy-bcd",
    paper="Nutini, Laradji and Schmidt 2017, arXiv 1712.08859",
    gives="the minimizer (n,)",
    error="of the condition for a minimum, as asked for; stated",
    problem=_ridge,
    limit=_one_block,
)
def block_descent(
    hessian: Array,
    b: Array,
    *,
    block: int = 10,
    selection: Selection = "shuffled",
    update: Literal["newton", "lipschitz"] = "newton",
    l1: float = 0.0,
    nonnegative: bool = False,
    tolerance: float = 1e-8,
    iterations: int = 10_000,
    start: Array = None,
    generator: Seed = None,
) -> Solution[Array]:
    """min x^T H x / 2 - b^T x + l1 |x|_1, perhaps over x >= 0, by steps in one block of coordinates after the other.

    The greedy rules take the coordinates with the largest |g_i| ("gs"), |g_i|/sqrt(H_ii) ("gsl") or |g_i|/sqrt(sum_j
    |H_ij|) ("gsd"), g being what a step of one coordinate sees. With exact steps in a block and correlated coordinates
    they pick the same again and again. Going round in a new order each time ("shuffled", the default) takes fewer steps
    there, also than going round in one order ("cyclic"); "aged" is "gsl" times the steps that a coordinate has waited.
    "gsq" looks for the block that lowers the function most, by ten steps of iterative hard thresholding, each a product
    with H. "forest" takes the coordinates of "gsl" in turn as long as H has no cycle among them, at most `block`: that
    is solved in as many operations as it has coordinates, and may hold half of all.
    "newton" solves the block, "lipschitz" takes a gradient step of length 1/|H_bb|.

    Args:
        hessian: H (n, n), symmetric positive semi-definite, dense or sparse, with a positive diagonal.
        b: (n,).
        block: coordinates of a step, at most for "forest".
        selection: which; "forest" is for sparse H and neither `l1` nor `nonnegative`.
        update: what is done with them.
        l1: not negative.
        nonnegative: whether x >= 0.
        tolerance: of |x - prox(x - g/L)| L, by the largest such at zero.
        iterations: steps at most.
        start: x_0; zero by default.
        generator: of "random" and "shuffled".

    Returns:
        x of the kind of b; `history` what the tolerance is of, every n/block steps; `calls` the columns of H that were
        read.
    """
    h, y = rows(hessian, "H"), dense(b, "b", ndim=1)
    n = len(y)
    h = sparse.csc_array(h) if sparse.issparse(h) else h
    diagonal = np.asarray(h.diagonal())
    if h.shape != (n, n) or not n or not diagonal.min() > 0:
        raise Refused(f"H of shape {h.shape} for b of {n}: a square one with a positive diagonal is wanted")
    if not block >= 1 or not 0 <= l1 < np.inf:
        raise Refused(f"block={block} must be at least 1, and l1={l1} finite and not negative")
    if abs(h - h.T).max() > SYMMETRIC * diagonal.max():
        raise Refused("H is not symmetric: hand in (H + H.T) / 2, of which the function is the same")
    if not sparse.issparse(h) and not _definite(h + SYMMETRIC * n * diagonal.max() * np.eye(n)):
        raise Refused("H has a negative eigenvalue, so that the function has no minimum")
    if selection not in get_args(Selection) or update not in ("newton", "lipschitz"):
        rules = ", ".join(get_args(Selection))
        raise Refused(f"selection={selection!r} and update={update!r}: {rules}; newton or lipschitz")
    if selection == "forest" and (not sparse.issparse(h) or l1 or nonnegative or update != "newton"):
        raise Refused("forests are of a sparse H, without l1, nonnegative and lipschitz: take another selection")
    k, rng = min(block, n), generator_of(generator)
    bounds = np.asarray(abs(h).sum(0)).ravel() if selection == "gsd" else diagonal
    steepest = float(np.asarray(abs(h).sum(0)).max())
    x = np.zeros(n) if start is None else dense(start, "the start", ndim=1).copy()
    g = np.asarray(h @ x) - y
    age, order, place = np.ones(n), np.arange(n), 0

    def step_of(x: Dense, g: Dense, size: Dense) -> Dense:
        moved = x - g / size
        shrunk = np.sign(moved) * np.maximum(np.abs(moved) - l1 / size, 0)
        return (np.maximum(shrunk, 0) if nonnegative else shrunk) - x

    scale = float(np.abs(step_of(np.zeros(n), -y, diagonal) * diagonal).max()) or 1.0
    history, steps, each, read = [], 0, -(-n // k), 0
    for steps in range(iterations + 1):
        seen = step_of(x, g, diagonal) * diagonal
        if steps % each == 0:
            history.append(float(np.abs(seen).max()) / scale)
        if np.abs(seen).max() <= tolerance * scale or steps == iterations:
            break
        if selection in ("cyclic", "shuffled"):
            if selection == "shuffled" and place == 0:
                order = rng.permutation(n)
            chosen, place = order[place : place + k], (place + k if place + k < n else 0)
        elif selection == "random":
            chosen = rng.choice(n, k, replace=False)
        elif selection == "gsq":
            chosen = _thresholded(h, seen, steepest, k)
        elif selection == "forest":
            chosen = _forest(h, np.argsort(-np.abs(seen) / np.sqrt(diagonal), kind="stable"), k)
        else:
            score = np.abs(seen) / (1 if selection == "gs" else np.sqrt(bounds)) * (age if selection == "aged" else 1)
            chosen = np.sort(np.argpartition(-score, k - 1)[:k])
        age += 1
        age[chosen] = 1
        read += len(chosen)
        columns: Any = h[:, chosen]
        inner = columns[chosen].toarray() if sparse.issparse(columns) and selection != "forest" else columns[chosen]
        if selection == "forest":
            # The order of least degree takes the leaves of a forest first, and fills nothing in.
            move = -splu(inner, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0).solve(g[chosen])
        elif update == "lipschitz":
            move = step_of(x[chosen], g[chosen], np.full(len(chosen), np.linalg.norm(inner, 2)))
        elif l1 or nonnegative:
            move = _coordinates(inner, x[chosen], g[chosen], step_of)
        else:
            move = -_solved(inner, g[chosen])
        x[chosen] += move
        g = g + np.asarray(columns @ move)
    error = float(np.abs(seen).max()) / scale
    text = f"after {steps} steps of {read / max(steps, 1):.4g} coordinates"
    return Solution(back(x, b), error <= tolerance, steps, history, text, read, error)


def _thresholded(h: Any, seen: Dense, steepest: float, k: int) -> Dense:
    """The k coordinates of a small seen.d + d^T H d / 2 over d with k entries; `steepest` is at least |H|."""
    d = np.zeros(len(seen))
    for _ in range(_THRESHOLDED):
        d = d - (np.asarray(h @ d) - seen) / steepest
        chosen = np.argpartition(-np.abs(d), k - 1)[:k]
        kept = np.zeros_like(d)
        kept[chosen] = d[chosen]
        d = kept
    return np.sort(chosen)


def _forest(h: sparse.csc_array, order: Dense, most: int) -> Dense:
    """The first coordinates of an order among which H has no cycle, others left out; at most so many."""
    trees, inside, taken = DisjointSet(range(h.shape[0])), np.zeros(h.shape[0], bool), 0
    for i in order.tolist():
        near = h.indices[h.indptr[i] : h.indptr[i + 1]]
        around = [trees[j] for j in near[inside[near]].tolist()]
        if len(set(around)) == len(around):
            inside[i], taken = True, taken + 1
            for root in around:
                trees.merge(root, i)
        if taken == most:
            break
    return np.flatnonzero(inside)


def _definite(h: Dense) -> bool:
    try:
        cho_factor(h, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return False
    return True


def _solved(h: Dense, g: Dense) -> Dense:
    try:
        found: Dense = cho_solve(cho_factor(h), g)
    except LinAlgError:
        found = np.linalg.lstsq(h, g, rcond=None)[0]
    return found


def _coordinates(h: Dense, x: Dense, g: Dense, step_of: Any) -> Dense:
    """The block's minimum under the penalty, by going round its coordinates; how far x moves."""
    now, slope, diagonal = x.copy(), g.copy(), h.diagonal()
    for _ in range(100):
        most = 0.0
        for i in range(len(now)):
            move = step_of(now[i], slope[i], diagonal[i])
            now[i] += move
            slope += move * h[i]
            most = max(most, abs(move) * diagonal[i])
        if most <= 1e-12 * max(np.abs(g).max(), 1e-300):
            break
    return now - x
