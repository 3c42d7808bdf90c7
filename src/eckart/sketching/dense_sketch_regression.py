"""Least squares from a sketch of the rows, with an error bar for each coordinate."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import sparse
from scipy.linalg import qr, solve_triangular

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of, of_dask, power_of_two, row_blocks, rows
from eckart.errors import Refused
from eckart.linalg.krylov import lsqr
from eckart.linalg.sketches import sketch_of
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch as register


def _noisy_plane(generator: np.random.Generator) -> dict[str, Any]:
    """200 noisy values of a linear function of 4 variables."""
    a = generator.standard_normal((200, 4))
    return {"a": a, "b": a @ np.arange(4.0) + generator.standard_normal(200), "size": 64}


def _all_rows(rng: np.random.Generator) -> Planted:
    """As many rows of the sketch as of A."""
    given = _noisy_plane(rng) | {"size": 200}
    exact = np.linalg.lstsq(given["a"], given["b"], rcond=None)[0]
    return Planted(given, lambda found: np.abs(found.value - exact).max() + np.abs(found.error).max(), 1e-10)


@register(
    "dense-sketch-regression",
    paper="Song et al. 2023, arXiv 2302.00248",
    gives="coefficients (d,) with a standard error each",
    error="stated for each coordinate; at most eps/sqrt(d) |A x* - b| |A^+| in proportion to 1/sqrt(size)",
    problem=_noisy_plane,
    limit=_all_rows,
)
def sketched_lstsq(
    a: Array,
    b: Array,
    *,
    size: int | None = None,
    sketch: Literal["sparse-sign", "srht", "gaussian", "count"] = "sparse-sign",
    repeats: int = 1,
    refine: bool = False,
    generator: Seed = None,
) -> Solution[Array]:
    """Least squares on a sketch, x' = argmin |S A x - S b|, close to argmin |A x - b| in every coordinate.

    To a Gaussian S the residual b - A x* is white noise beside S A, so that x' has the standard errors of an ordinary
    regression on the sketch. The paper asks for a dense S, as an SRHT is. Eight entries in a column come to the same
    where rows matter unequally, in a fifth to two thirds of the time, and are the default; one entry in a column does
    not. `refine` takes S for a preconditioner of LSQR on all rows instead. Where the square of A's condition can be
    borne and A is dense and in memory, the normal equations are exact and faster than any sketch.

    Args:
        a: A (n, d), dense or sparse; or an array of Dask, which is read block by block: once for its unit, and once
            for each sketch or step of LSQR.
        b: (n,).
        size: rows of S; 8 d by default. From n on all rows are taken as they are, and the solution is exact.
        sketch: "sparse-sign", "srht", "gaussian" or "count".
        repeats: independent sketches whose solutions are averaged.
        refine: on to the solution itself.
        generator: of S.

    Returns:
        x' of the kind of b; `error` (d,) its standard errors from the solution on all rows, by the residual of the
        sketch.

    Raises:
        Refused: A has not full column rank, or S too few rows.
    """
    y = dense(b.compute() if of_dask(b) else b, "b", ndim=1)
    given: Any = a.astype(np.float64) if of_dask(a) else rows(a, "A")
    if given.ndim != 2:
        raise Refused(f"A is of shape {given.shape}, and a matrix is needed")
    n, d = given.shape
    if len(y) != n:
        raise Refused(f"A has {n} rows, and b {len(y)} entries")
    m = 8 * d if size is None else size
    if m < d + 1 or repeats < 1:
        raise Refused(f"a sketch of size={m} rows, repeats={repeats}, does not determine {d} coefficients")
    blocks = (rows(block, "A") for block in row_blocks(a)) if of_dask(a) else [given]
    of_a, of_b = power_of_two(np.array([np.abs(block).max() for block in blocks if block.size])), power_of_two(y)
    given, y = given / of_a, y / of_b
    rng = generator_of(generator)
    found, errors, r = np.zeros(d), np.zeros(d), np.empty(0)
    if m >= n:
        found, _, r = _ordinary(given.compute() if of_dask(a) else given, y)
        repeats = 0
    for _ in range(repeats):
        s = sketch_of(sketch, m, n, rng)
        one, error, r = _ordinary(s.apply(given), s.apply(y))
        found, errors = found + one / repeats, errors + np.square(error / repeats)
    if not refine:
        text, found = f"from {min(m, n)} of {n} rows", found * of_b / of_a
        return Solution(back(found, b), True, repeats, error=np.sqrt(errors) * of_b / of_a, message=text)
    solved = lsqr(
        lambda z: np.asarray(given @ solve_triangular(r, z)),
        y - np.asarray(given @ found),
        adjoint=lambda z: solve_triangular(r, np.asarray(given.T @ z), trans="T"),
        tolerance=1e-14,
        iterations=100,
    )
    exact = (found + solve_triangular(r, solved.value)) * of_b / of_a
    return Solution(back(exact, b), solved.converged, solved.iterations, solved.history, solved.message, error=None)


def _ordinary(a: Any, b: Dense) -> tuple[Dense, Dense, Dense]:
    """argmin |A x - b|, standard errors |b - A x| / sqrt(m - d) |row j of R^-1|, and R with R^T R = A^T A."""
    a = a.toarray() if sparse.issparse(a) else a
    m, d = a.shape
    if m < d:
        raise Refused(f"{m} rows do not determine {d} coefficients")
    q, r = qr(a, mode="economic")
    diagonal = np.abs(r.diagonal())
    if not diagonal.min() > max(m, d) * np.finfo(float).eps * np.linalg.norm(a):
        raise Refused("A, or its sketch, has not full column rank: drop dependent columns, or take a larger size")
    x = solve_triangular(r, q.T @ b)
    noise = np.linalg.norm(b - a @ x) / np.sqrt(max(1, m - d))
    return x, noise * np.linalg.norm(solve_triangular(r, np.eye(d)), axis=1), r
