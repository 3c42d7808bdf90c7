"""Entropic optimal transport by Newton's method, with the Hessian's largest entries or all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.blas import dsyrk
from scipy.sparse.linalg import cg
from scipy.special import logsumexp

from eckart.arrays import Array, Dense, back, dense
from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch

_FIRST = 20.0
"""The first of the strengths 1/reg, by the cost's range."""
_NEAR = 1e-3
"""Of the mass: how well marginals are met before the next strength."""
_LARGEST_SCALE = 1e100
"""By so much a row or a column of P may be scaled; beyond, entries that had become zero would be missed."""
_DAMPED, _DAMPINGS = 1e-6, 20
"""The damping that Newton's steps begin with, and how many are tried for one."""


@dataclass(frozen=True)
class Plan:
    """A transport plan and what it comes from.

    Attributes:
        plan: P (n, m) = exp((x_i + y_j - C_ij) / reg).
        left: potentials x (n,).
        right: potentials y (m,).
    """

    plan: Array
    left: Array
    right: Array


def _two_clouds(generator: np.random.Generator) -> dict[str, Any]:
    """Squared distances between 12 and 9 points."""
    x, y = generator.standard_normal((12, 2)), generator.standard_normal((9, 2))
    return {"cost": np.square(x[:, None] - y).sum(-1), "reg": 0.1}


class _Point(NamedTuple):
    """Potentials x (n,) and y (m,), and P (n, m) at them."""

    x: Dense
    y: Dense
    plan: Dense

    @property
    def sums(self) -> tuple[Dense, Dense]:
        """P 1 and P^T 1."""
        return self.plan.sum(1), self.plan.sum(0)


class _Dual:
    """f(x, y) = a.x + b.y - reg sum P, P = exp((x_i + y_j - C_ij) / reg), and its best x for a given y."""

    def __init__(self, cost: Dense, a: Dense, b: Dense, reg: float) -> None:
        self.cost, self.a, self.b, self.reg = cost, a, b, reg

    def at(self, x: Dense, y: Dense) -> _Point:
        with np.errstate(over="ignore"):
            plan = x[:, None] + y
            plan -= self.cost
            plan /= self.reg
            return _Point(x, y, np.exp(plan, out=plan))

    def value(self, point: _Point) -> float:
        return float(self.a @ point.x + self.b @ point.y - self.reg * point.plan.sum())

    def sinkhorn(self, point: _Point, steps: int = 1) -> _Point:
        """The best x and then the best y, some times over: scales of P's rows and columns, while those are moderate."""
        p, v = point.plan, np.ones(len(self.b))
        with np.errstate(all="ignore"):
            for _ in range(steps):
                u = self.a / (p @ v)
                v = self.b / (u @ p)
            scales = np.concatenate([u, v])
            if (scales < _LARGEST_SCALE).all() and (scales > 1 / _LARGEST_SCALE).all():
                scaled = p * v
                scaled *= u[:, None]
                return _Point(point.x + self.reg * np.log(u), point.y + self.reg * np.log(v), scaled)
        x, y = point.x, point.y
        for _ in range(steps):
            x = self.reg * (np.log(self.a) - logsumexp((y - self.cost) / self.reg, axis=1))
            y = self.reg * (np.log(self.b) - logsumexp((x[:, None] - self.cost) / self.reg, axis=0))
        return self.at(x, y)

    def slack(self, point: _Point) -> tuple[Dense, Dense]:
        """The gradient (a - P 1, b - P^T 1)."""
        rows, columns = point.sums
        return self.a - rows, self.b - columns

    def error(self, point: _Point) -> float:
        return sum(float(np.abs(part).sum()) for part in self.slack(point))


def _whole_step(p: Dense, left: Dense, right: Dense, damping: float) -> tuple[Dense, Dense]:
    """d with [diag(P 1) P; P^T diag(P^T 1)] d = (left, right), by the Schur complement of the first block.

    Transposed where the second block is the larger one: the complement is never larger than P. The diagonal is taken
    1 + damping times: where reg is small P is nearly a permutation, whose complement is zero.
    """
    if p.shape[0] < p.shape[1]:
        return _whole_step(p.T, right, left, damping)[::-1]
    r, c = p.sum(1) * (1 + damping), p.sum(0) * (1 + damping)
    # Its null vector is (1, ..., 1): a potential may be shifted against the other.
    schur = np.full((len(c),) * 2, c.mean() / len(c))
    schur[np.diag_indices(len(c))] += c
    scaled = np.divide(p, np.sqrt(r)[:, None], order="C")
    schur = dsyrk(-1.0, scaled.T, beta=1.0, c=schur.T, overwrite_c=True, lower=1)
    solved = cho_solve((cho_factor(schur, lower=True, overwrite_a=True)[0], True), right - p.T @ (left / r))
    return (left - p @ solved) / r, solved


def _sparse_step(p: Dense, left: Dense, right: Dense, keep: float) -> tuple[Dense, Dense]:
    """The same with the `keep` share of P's largest entries, the diagonal exact, by conjugate gradients."""
    count = min(p.size, max(1, int(np.ceil(keep * p.size))))
    cut = np.partition(p.ravel(), p.size - count)[p.size - count]
    part = sparse.csr_array(np.where(p >= cut, p, 0.0))
    diagonal = np.concatenate([p.sum(1), p.sum(0)])
    hessian = sparse.block_array([[None, part], [part.T, None]]) + sparse.diags_array(diagonal)
    rhs = np.concatenate([left, right])
    found, _ = cg(hessian, rhs, rtol=1e-3, maxiter=300, M=sparse.diags_array(1 / diagonal))
    return found[: len(left)], found[len(left) :]


def _no_matter(rng: np.random.Generator) -> Planted:
    """A cost u_i + v_j, of which all plans cost the same: that of most entropy is the product of the masses."""
    u, v, a, b = rng.random((4, 1)), rng.random(7), rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(7))
    given = {"cost": u + v, "a": a, "b": b, "reg": 0.05}
    return Planted(given, lambda found: np.abs(found.value.plan - np.outer(a, b)).max(), 1e-9)


@sketch(
    "sinkhorn-newton-sparse",
    paper="Tang et al. 2024, arXiv 2401.12253",
    gives="a transport plan and its potentials",
    error="of both marginals, as asked for; stated",
    problem=_two_clouds,
    limit=_no_matter,
    draws=False,
)
def sinkhorn_newton(
    cost: Array,
    a: Array = None,
    b: Array = None,
    *,
    reg: float,
    method: Literal["newton", "sns", "sinkhorn"] = "newton",
    keep: float | None = None,
    anneal: bool = True,
    warm: int = 20,
    tolerance: float = 1e-9,
    iterations: int = 500,
) -> Solution[Plan]:
    """Entropic optimal transport by Sinkhorn's iterations and then Newton's method on the dual, annealed.

    The paper's "sns" keeps the largest entries of the Hessian and solves by conjugate gradients; from a bad start, or
    with strong 1/reg, it stalls where Newton's method with the whole Hessian does not, at the price of a Cholesky
    factorization of the smaller side's size a step, which is held in less than the plan is. The Hessian's diagonal is
    raised until a step makes the dual rise, and a step of Sinkhorn's follows each. Both go through 1/reg = 20, 40, ...
    of the cost's range unless `anneal` is off, as published. Where a sparse step finds no rise, one of Sinkhorn's is
    taken.

    Args:
        cost: C (n, m).
        a: masses (n,), positive or zero; equal ones where None.
        b: masses (m,), with the sum of a.
        reg: eps, above zero, of the entropy.
        method: "newton" with the whole Hessian, "sns" as published, or "sinkhorn" alone.
        keep: share of entries of P for "sns"; 15 / max(n, m) by default.
        anneal: whether smaller 1/reg come first.
        warm: iterations of Sinkhorn's at each strength.
        tolerance: of |P 1 - a|_1 + |P^T 1 - b|_1 by the mass.
        iterations: steps of Newton's, or of Sinkhorn's where that is the method, in all.

    Returns:
        The plan with the least error that was met; `error` holds it, `history` those of the steps.

    Raises:
        Refused: masses that are negative or do not sum up to the same, reg not above zero, NaN or Inf.
    """
    c = dense(cost, "the cost")
    n, m = c.shape
    if not n or not m or not (np.isfinite(reg) and reg > 0):
        raise Refused(f"a cost of shape {c.shape} with reg={reg}: both sides are at least 1 and reg is above zero")
    p, q = (np.full(k, 1 / k) if x is None else dense(x, name, ndim=1) for k, x, name in ((n, a, "a"), (m, b, "b")))
    if len(p) != n or len(q) != m or min(p.min(), q.min()) < 0 or not p.sum() > 0 or abs(p.sum() / q.sum() - 1) > 1e-9:
        raise Refused(f"masses of shapes {p.shape} and {q.shape} that sum up to {p.sum():.6g} and {q.sum():.6g}")
    mass, rows, columns = float(p.sum()), p > 0, q > 0
    inner = c[np.ix_(rows, columns)]
    share = 15 / max(inner.shape) if keep is None else keep
    x, y, history, least = _solve(
        inner, p[rows] / mass, q[columns] / q.sum(), reg, method, share, anneal, warm, tolerance, iterations
    )
    plan = np.zeros((n, m))
    plan[np.ix_(rows, columns)] = mass * np.exp((x[:, None] + y - inner) / reg)
    left, right = np.full(n, -np.inf), np.full(m, -np.inf)
    left[rows], right[columns] = x + reg * np.log(mass), y
    text = f"both marginals are met up to {least:.2g} of the mass"
    value = Plan(*(back(z, cost) for z in (plan, left, right)))
    return Solution(value, least <= tolerance, len(history), history, text, error=least)


def _solve(
    c: Dense, a: Dense, b: Dense, reg: float, method: str, keep: float, anneal: bool, warm: int, goal: float, most: int
) -> tuple[Dense, Dense, list[float], float]:
    spread = float(np.ptp(c)) or 1.0
    levels = [reg]
    while anneal and method != "sinkhorn" and 2 * levels[0] < spread / _FIRST:
        levels.insert(0, 2 * levels[0])
    point = _Point(np.zeros(len(a)), np.zeros(len(b)), c)
    history: list[float] = []
    best = (np.inf, point)
    for level in levels:
        dual, target = _Dual(c, a, b, level), goal if level == reg else _NEAR
        damping = _DAMPED
        point = dual.at(point.x, point.y)
        if warm:
            point = dual.sinkhorn(point, warm)
        while True:
            error = dual.error(point)
            if level == reg and error <= target:
                point = dual.at(point.x, point.y)  # of the scaled plan, rounding is not that of the potentials
                error = dual.error(point)
            if level == reg and error < best[0]:
                best = (error, point)
            if error <= target or len(history) >= most:
                break
            history.append(error)
            if method == "newton":
                point, damping = _newton(dual, point, damping)
            else:
                point = dual.sinkhorn(point) if method == "sinkhorn" else _sparse(dual, point, keep)
    return best[1].x, best[1].y, history, best[0]


def _newton(dual: _Dual, point: _Point, damping: float) -> tuple[_Point, float]:
    """One step by the whole Hessian, damped until the dual rises, and one of Sinkhorn's; with the next damping."""
    left, right = dual.slack(point)
    start = dual.value(point)
    for _ in range(_DAMPINGS):
        try:
            dx, dy = _whole_step(point.plan, left, right, damping)
        except LinAlgError:
            damping = max(8 * damping, _DAMPED)
            continue
        dx, dy = dual.reg * dx, dual.reg * dy
        slope = float(left @ dx + right @ dy)
        if slope >= 0:
            moved = dual.at(point.x + dx, point.y + dy)
            # Near the maximum the gain is lost in rounding, where whole steps are right.
            if slope < 1e-12 or dual.value(moved) - start >= 1e-4 * slope:
                return dual.sinkhorn(moved), damping / 4
        damping = max(8 * damping, _DAMPED)
    return dual.sinkhorn(point), damping


def _sparse(dual: _Dual, point: _Point, keep: float) -> _Point:
    """One step by the Hessian's largest entries with backtracking, or of Sinkhorn's where there is no rise."""
    left, right = dual.slack(point)
    dx, dy = (dual.reg * d for d in _sparse_step(point.plan, left, right, keep))
    slope, start, step = float(left @ dx + right @ dy), dual.value(point), 1.0
    while slope > 0 and step > 1e-4:
        moved = dual.at(point.x + step * dx, point.y + step * dy)
        if dual.value(moved) - start >= 1e-4 * step * slope or (step == 1 and slope < 1e-10):
            return moved
        step /= 2
    return dual.sinkhorn(point)
