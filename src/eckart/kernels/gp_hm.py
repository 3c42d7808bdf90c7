"""Differential equations solved by Gaussian processes on a grid, with kernels of the source's own frequencies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Any, Literal

import numpy as np

from eckart.arrays import Dense, dense
from eckart.errors import Refused
from eckart.kernels._checks import real
from eckart.kernels._collocation import Collocated, Problem
from eckart.kernels.contract import kernel_method
from eckart.linalg.solution import Solution
from eckart.scikit.base import positive
from eckart.scikit.door import ConvergenceWarning
from eckart.scikit.planted import Planted

LENGTHS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 2.0)
"""Lengthscales to try, by the length of an axis."""


def _planted(rng: np.random.Generator) -> Planted:
    x, phase = np.linspace(0, 2 * np.pi, 60), rng.uniform(0, 6)

    def source(x: Dense) -> Dense:
        return np.asarray(-225 * np.sin(15 * x + phase))

    arguments = {"source": source, "axes": (x,), "boundary": lambda x: np.sin(15 * x + phase), "tolerance": 1e-5}
    return Planted(arguments, lambda found: np.abs(found.value.values - np.sin(15 * x + phase)).max(), 1e-4)


@kernel_method(
    "gp-hm",
    paper="Fang, Cooley, Long, Li, Kirby and Zhe 2023, arXiv 2311.04465",
    kind="solver",
    gives="the solution of an equation with Dirichlet's condition, linear but for some g(u), on a grid and between",
    takes="functions",
    planted=_planted,
    expression="Kronecker",
)
def collocate(
    source: Callable[..., Any],
    axes: Sequence[Any],
    *,
    boundary: Callable[..., Any] | float = 0.0,
    second: Sequence[float] | None = None,
    first: Sequence[float] | None = None,
    zeroth: float = 0.0,
    reaction: Callable[[Any], Any] | None = None,
    frequencies: Literal["source", "learn"] | Sequence[Any] = "source",
    base: Literal["rbf", "matern"] = "matern",
    lengthscale: float | None = None,
    tolerance: float = 1e-6,
) -> Solution[Collocated]:
    """Solves sum_p (a_p u_pp + b_p u_p) + c u + g(u) = f on a grid, by one linear solve where there is no g.

    u is a Gaussian process of waves.

    In the plane u_xx = K_1'' K_1^-1 U, and so on: the equation at the inner points is Sylvester's matrix equation
    D_1 U + U D_2^T = F, of n^3 operations, the boundary's values being on the right. On a line the coefficients are
    found by least squares. Derivatives of kernels are in closed form. The paper finds U, frequencies and weights
    together, by 10^5 steps of Adam and more, and reports the least error against the true solution that was met; here
    frequencies are those of the source, and what stops is the equation's residual between the points, of which no
    solve knows. With g, as Allen and Cahn's u (u^2 - 1), it is Newton's method from u = 0, a step of which is the same
    linear solve on a line, and in the plane Krylov's with Sylvester's equation as the preconditioner.
    Such an equation may have several solutions, of which this is the one that the steps come to.

    Where there are pi points a wavelength Chebyshev's polynomials are better still; with fewer they fail, and waves of
    known frequencies do not.

    Args:
        source: f(x) or f(x, y) of arrays.
        axes: one or two, each (n,) increasing numbers.
        boundary: u there, a function as f, or a number.
        second: a_p, by default 1 each, Laplace's operator.
        first: b_p, by default 0.
        zeroth: c.
        reaction: g, a function of arrays of u, each number by itself; its slope is found by differences.
        frequencies: "source", the peaks of its spectrum along each axis; "learn", these and the lengthscale, moved
            until the residual is least; or one array an axis, in cycles by its unit.
        base: what waves fade by, "rbf" or "matern".
        lengthscale: by the length of an axis; None to try several.
        tolerance: of the root mean square residual at the middles of cells, by that of the source.

    Returns:
        The solution of the least residual; `history` has those of all lengthscales, `error` the least. Where that is
        above the tolerance it is not `converged`, `message` says so, and one ConvergenceWarning.

    Raises:
        Refused: shapes do not fit, an axis does not increase, f has NaN or Inf, g has at 0, or no solution was found.
    """
    held = tuple(dense(axis, "an axis", ndim=1) for axis in axes) if isinstance(axes, Iterable) else ()
    d = len(held)
    if d not in (1, 2) or any(len(axis) < 3 or not (np.diff(axis) > 0).all() for axis in held):
        raise Refused(
            f"axes of lengths {[len(axis) for axis in held]}: one or two are needed, of 3 numbers or more each"
        )
    sides = tuple((float(axis[0]), float(axis[-1] - axis[0])) for axis in held)
    a = np.ones(d) if second is None else dense(second, "second", ndim=1)
    b = np.zeros(d) if first is None else dense(first, "first", ndim=1)
    if len(a) != d or len(b) != d or base not in ("rbf", "matern"):
        raise Refused(f"{len(a)} and {len(b)} coefficients for {d} axes, base={base!r}: one an axis; 'rbf' or 'matern'")
    positive(tolerance=tolerance)
    real(zeroth=zeroth)
    if not callable(source):
        raise Refused(f"source={source!r:.80} is no function of points: hand in one, as one that interpolates")
    if reaction is not None and not callable(reaction):
        raise Refused(f"reaction={reaction!r:.80} is no function of u: hand in one, or None")
    if not callable(boundary):
        real(boundary=boundary)
    lengths = np.array([length for _, length in sides])
    with np.errstate(over="ignore", under="ignore"):
        a, b = a / lengths**2, b / lengths
    if not np.isfinite([*a, *b, zeroth]).all() or not (a != 0).any():
        raise Refused(
            f"coefficients {a.tolist()}, {b.tolist()}, {zeroth} on axes from 0 to 1: some second one is needed"
        )
    unit = tuple((axis - low) / length for axis, (low, length) in zip(held, sides, strict=True))
    problem = Problem(source, boundary, unit, sides, a, b, float(zeroth), base, reaction)
    named = isinstance(frequencies, str)
    if frequencies not in ("source", "learn") if named else not isinstance(frequencies, Sized) or len(frequencies) != d:
        raise Refused(f"frequencies={frequencies!r} are no {d} arrays, one an axis, and none of source, learn")
    given = [dense(each, "frequencies", ndim=1) for each in ([] if named else frequencies)]
    found = problem.peaks() if named else [each * length for each, length in zip(given, lengths, strict=True)]
    history: list[float] = []
    best: tuple[float, float, Collocated | None] = (np.inf, 1.0, None)
    for length in LENGTHS if lengthscale is None else (positive(lengthscale=lengthscale),):
        error, made = problem.solved(found, length)
        history.append(error)
        if error < best[0]:
            best = error, length, made
        if best[0] <= tolerance:
            break
    if named and frequencies == "learn" and best[0] > tolerance:
        error, made = problem.learned(found, best[1])
        history.append(error)
        if error < best[0]:
            best = error, best[1], made
    if best[2] is None:
        met = f", and reaction gave {problem.spoilt} NaN or Inf on the way" if problem.spoilt else ""
        raise Refused(f"no lengthscale gives a solution: the equation may have none, or more than one{met}")
    reached, text = best[0] <= tolerance, f"the residual between the points is {best[0]:.2g} of the source"
    if not reached:
        text += f", above {tolerance:.2g}: more points, other frequencies, or there is no solution"
        warnings.warn(f"collocate: {text}", ConvergenceWarning, stacklevel=2)
    return Solution(best[2], reached, len(history), history, text, problem.solves, best[0])
