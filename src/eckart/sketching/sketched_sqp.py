"""Minima under equations by Newton's method on the Lagrangian, its systems solved exactly or by sketches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from scipy.linalg import ldl
from torch import Tensor
from torch.func import grad, hessian, jacrev

from eckart.arrays import Array, Dense, Seed, back, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.krylov import minres
from eckart.linalg.sketches import SparseSign
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch

_WORSE = 1.5
_MOST = 1000
"""Sketches for one step."""


def _circle(generator: np.random.Generator) -> dict[str, Any]:
    """The point of the unit sphere nearest to one outside."""
    target = torch.from_numpy(generator.standard_normal(3) * 3)
    return {
        "f": lambda x: (x - target.to(x)).square().sum(),
        "c": lambda x: (x @ x - 1)[None],
        "start": np.array([1.0, 0.5, -0.5]),
    }


class _Lagrangian:
    """f + lambda.c, the merit of Fletcher's kind, and their derivatives, float64."""

    def __init__(self, f: Callable[[Tensor], Tensor], c: Callable[[Tensor], Tensor]) -> None:
        self._f, self._c = f, c
        self._slope, self._jacobian = grad(f), jacrev(c)
        self._curvature = hessian(lambda x, multipliers: f(x) + multipliers @ c(x))

    def at(self, x: Dense, multipliers: Dense) -> tuple[float, Dense, Dense, Dense]:
        """f, the gradient of the Lagrangian, c, and the Jacobian of c."""
        point = torch.from_numpy(x)
        g = self._jacobian(point).numpy()
        return float(self._f(point)), self._slope(point).numpy() + g.T @ multipliers, self._c(point).numpy(), g

    def curvature(self, x: Dense, multipliers: Dense) -> Dense:
        found: Dense = self._curvature(torch.from_numpy(x), torch.from_numpy(multipliers)).numpy()
        return found

    def merit(self, x: Dense, multipliers: Dense, eta1: float, eta2: float) -> float:
        """f + c.lambda + eta1/2 |c|^2 + eta2/2 |grad L|^2; Inf where that is no number."""
        value, slope, c, _ = self.at(x, multipliers)
        found = value + c @ multipliers + eta1 / 2 * c @ c + eta2 / 2 * slope @ slope
        return float(found) if np.isfinite(found) else np.inf


def _plane(rng: np.random.Generator) -> Planted:
    """A quadratic function on a plane: one linear system."""
    root, normal, target = rng.standard_normal((4, 4)), rng.standard_normal((1, 4)), rng.standard_normal(4)
    curvature = root @ root.T + np.eye(4)
    system = np.block([[curvature, normal.T], [normal, np.zeros((1, 1))]])
    exact = np.linalg.solve(system, np.append(curvature @ target, 1.0))
    h, g, centre = (torch.from_numpy(each) for each in (curvature, normal, target))
    given = {
        "f": lambda x: (x - centre.to(x)) @ h.to(x) @ (x - centre.to(x)) / 2,
        "c": lambda x: g.to(x) @ x - 1,
        "start": np.zeros(4),
    }
    return Planted(given, lambda found: np.abs(np.concatenate(found.value) - exact).max(), 1e-8)


@sketch(
    "sketched-sqp",
    paper="Hong et al. 2023, arXiv 2305.18379",
    gives="the minimizer and its multipliers",
    error="of the first-order conditions, as asked for; stated",
    problem=_circle,
    limit=_plane,
)
def minimize_equality(
    f: Callable[[Tensor], Tensor],
    c: Callable[[Tensor], Tensor],
    start: Array,
    *,
    inner: Literal["direct", "minres", "sketch"] = "direct",
    accuracy: float = 0.1,
    block: int | None = None,
    tolerance: float = 1e-8,
    iterations: int = 200,
    generator: Seed = None,
) -> Solution[tuple[Array, Array]]:
    """min f(x) with c(x) = 0: steps K d = -(grad L, c), K = [B G^T; G 0], down an exact augmented Lagrangian.

    The paper solves K d = r by sketch and project, d <- d + K S (S^T K^2 S)^+ S^T (r - K d), S random, until the
    residual is a share `accuracy` of r. Such a solution takes far more work than MINRES or a factorization, of which
    the last is the default. B is the Hessian of the Lagrangian, shifted until K has as many negative eigenvalues as
    there are equations; the penalties rise until the step goes down.

    Args:
        f: x (n,) float64 -> a number, in torch, twice differentiable.
        c: x -> (m,), m at least 1.
        start: x_0 (n,).
        inner: how steps are found.
        accuracy: of them, for "minres" and "sketch".
        block: columns of S; (n + m) / 8 by default, at least 1.
        tolerance: of |(grad L, c)|, by what it is at the start or 1.
        iterations: steps at most.
        generator: of S.

    Returns:
        x and the multipliers (m,), of the kind of the start: the iterate with the least residual; `calls` products with
        K.

    Raises:
        Refused: f or c are not finite at the start, or of the wrong shape.
    """
    x = dense(start, "the start", ndim=1).copy()
    if inner not in ("direct", "minres", "sketch") or not 0 < accuracy < 1:
        raise Refused(f"inner={inner!r} and accuracy={accuracy}: direct, minres or sketch; a share in 0..1")
    shape = tuple(c(torch.from_numpy(x)).shape)
    if len(shape) != 1 or not 1 <= shape[0] <= len(x) or f(torch.from_numpy(x)).ndim:
        raise Refused(
            f"c gives {shape}, or f more than a number, or there are more equations than the {len(x)} unknowns"
        )
    problem, y, rng = _Lagrangian(f, c), np.zeros(shape[0]), generator_of(generator)
    eta1, eta2, history, calls, text = 1.0, 0.1, list[float](), 0, "the step is lost in rounding"
    best, scale = (np.inf, x, y), 1.0
    for step in range(iterations + 1):
        level, slope, gap, g = problem.at(x, y)
        rhs = -np.concatenate([slope, gap])
        size = float(np.linalg.norm(rhs))
        if not np.isfinite([level, size]).all():
            raise Refused(f"f or c, or their derivatives, are not finite at step {step}")
        scale = max(1.0, size) if not step else scale
        history.append(size)
        if size < best[0]:
            best = (size, x, y)
        if size <= tolerance * scale or step == iterations:
            text = f"|(grad L, c)| is {best[0]:.3g}"
            break
        curvature = problem.curvature(x, y)
        k = _regular(curvature, g)
        d, more = _direction(k, rhs, inner, accuracy, block, rng)
        calls += more
        dx, dy = d[: len(x)], d[len(x) :]
        for _ in range(60):
            down = float((slope + eta2 * curvature @ slope + eta1 * g.T @ gap) @ dx + (gap + eta2 * g @ slope) @ dy)
            if down < -1e-12 * eta2 * size**2:
                break
            eta1, eta2 = eta1 * _WORSE**2, eta2 / _WORSE
        value, length = problem.merit(x, y, eta1, eta2), 1.0
        slack = 1e-14 * (1 + abs(value))
        while (
            length > 1e-12
            and problem.merit(x + length * dx, y + length * dy, eta1, eta2)
            > value + 0.1 * length * min(down, 0) + slack
        ):
            length /= 2
        if length <= 1e-12:
            break
        x, y = x + length * dx, y + length * dy
    found = back(best[1], start), back(best[2], start)
    return Solution(found, best[0] <= tolerance * scale, len(history) - 1, history, text, calls, best[0])


def _regular(b: Dense, g: Dense) -> Dense:
    """K with a multiple of I added to B, so that it has m negative eigenvalues and no zero."""
    n, m = len(b), len(g)
    shift, size = 0.0, max(float(np.abs(b).max()), 1e-8)
    for _ in range(20):
        k = np.block([[b + shift * np.eye(n), g.T], [g, np.zeros((m, m))]])
        if (np.linalg.eigvalsh(ldl(k)[1]) < 0).sum() == m:
            break
        shift = max(4 * shift, 1e-3 * size)
    return k


def _direction(
    k: Dense, rhs: Dense, inner: str, accuracy: float, block: int | None, rng: np.random.Generator
) -> tuple[Dense, int]:
    """d with K d = rhs, as nearly as the way allows, and the products with K that it took."""
    n = len(rhs)
    if inner == "direct":
        found: Dense = np.linalg.lstsq(k, rhs, rcond=None)[0]
        return found, 1
    if inner == "minres":
        solved = minres(k, rhs, tolerance=accuracy * 1e-4)
        return solved.value, solved.calls
    d, rest, calls = np.zeros(n), rhs.copy(), 0
    width = max(1, n // 8) if block is None else min(block, n)
    while np.linalg.norm(rest) > accuracy * np.linalg.norm(rhs) and calls < _MOST * (width + 1):
        s = SparseSign(width, n, rng, nonzeros=min(8, width))
        # The shortest step that solves what S sees: K S (S^T K^2 S)^+ S^T rest.
        move = np.linalg.lstsq(s.matrix @ k, s.matrix @ rest, rcond=None)[0]
        calls += width + 1
        d = d + move
        rest = rest - k @ move
    return d, calls
