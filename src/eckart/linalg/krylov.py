"""Linear systems by products with a matrix alone: conjugate gradients, MINRES, LSQR, for many right sides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg._operators import Columns, as_came, columns_of, operator
from eckart.linalg.solution import Solution


def _device(*things: Any) -> torch.device:
    return next((t.device for t in things if isinstance(t, Tensor)), torch.device("cpu"))


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, zero where b is."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


def _watched(size: Tensor, residual: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """The backward error of each column: |r| / (|A| |x| + |b|), |A| being what is known of it from below."""
    return _over(residual, size * x.norm(dim=0) + b)


def _done(
    best: Tensor,
    error: Tensor,
    history: list[float],
    b: Any,
    goal: float,
    calls: int,
    why: str,
    kind: str = "backward error",
) -> Solution[Any]:
    worst = float(error.max()) if error.numel() else 0.0
    reached = worst <= goal
    text = f"the {kind} is {worst:.3g}" + ("" if reached else f", above {goal:.3g}: {why}")
    return Solution(as_came(best, b), reached, len(history), history, text, calls, error.cpu().numpy())


@torch.no_grad()
def pcg(
    A: Any,
    b: Any,
    *,
    shift: float = 0.0,
    preconditioner: Any = None,
    tolerance: float = 1e-10,
    iterations: int | None = None,
    start: Any = None,
    backward: bool = True,
) -> Solution[Any]:
    """x with (A + shift I) x = b, A + shift I symmetric positive definite, by preconditioned conjugate gradients.

    Each column has its own step lengths (Hestenes and Stiefel 1952); all share the products. The iterate of the least
    residual is given back.

    Args:
        A: (n, n): a structure, tensor, array, sparse matrix, LinearOperator, or a function of (n, k) columns.
        b: (n,) or (n, k).
        shift: added to the diagonal.
        preconditioner: an approximate inverse, symmetric positive definite, given as A is.
        tolerance: of the backward error |b - A x| / (|A| |x| + |b|) of every column.
        iterations: at most; by default 10 n.
        start: x_0, as b.
        backward: whether the error is the backward one. Else it is |b - A x| / |b|, which is to be asked for where A
            is so badly conditioned that any x is nearly exact for a matrix nearly A, and the residual itself matters.

    Returns:
        x as b came; `error` holds the backward error of each column, `history` the worst of each step.

    Raises:
        Refused: A has negative curvature, or a bad shape; or NaN or Inf entries.
    """
    n = len(b)
    rhs = columns_of(b, n, _device(b, A))
    times, _ = operator(A, b)
    inverse: Columns = operator(preconditioner, b)[0] if preconditioner is not None else lambda r: r
    x = torch.zeros_like(rhs) if start is None else columns_of(start, n, rhs.device, "start").clone()
    calls = int(start is not None)
    ax = torch.zeros_like(rhs) if start is None else times(x) + shift * x
    r = rhs - ax
    z = inverse(r)
    p, rz = z.clone(), (r * z).sum(0)
    norm_b, size = rhs.norm(dim=0), _over(ax.norm(dim=0), x.norm(dim=0))
    counts = float(backward)
    best, least = x.clone(), r.norm(dim=0)
    error = _watched(counts * size, least, x, norm_b)
    history: list[float] = []
    for _ in range(10 * n if iterations is None else iterations):
        if not float(error.max()) > tolerance:
            break
        ap = times(p) + shift * p
        calls += 1
        curvature, length = (p * ap).sum(0), p.norm(dim=0)
        size = torch.maximum(size, _over(ap.norm(dim=0), length))
        if (curvature < -1e-12 * size * length**2).any():
            raise Refused(
                "pcg needs a positive definite matrix, and this one has negative curvature: take krylov.minres"
            )
        step = torch.where(curvature > 0, _over(rz, curvature), 0.0)
        x, r = x + step * p, r - step * ap
        norm = r.norm(dim=0)
        better = norm < least
        best, least = torch.where(better, x, best), torch.where(better, norm, least)
        error = _watched(counts * size, least, best, norm_b)
        history.append(float(error.max()))
        z = inverse(r)
        old, rz = rz, (r * z).sum(0)
        p = z + _over(rz, old) * p
    error = _watched(counts * size, (rhs - times(best) - shift * best).norm(dim=0), best, norm_b)
    kind = "backward error" if backward else "residual by |b|"
    return _done(best, error, history, b, 2 * tolerance, calls + 1, "more iterations, or a preconditioner", kind)


@torch.no_grad()
def minres(
    A: Any, b: Any, *, shift: float = 0.0, tolerance: float = 1e-10, iterations: int | None = None
) -> Solution[Any]:
    """x with the least |b - (A + shift I) x| in the Krylov space, A symmetric, definite or not.

    Lanczos steps and plane rotations (Paige and Saunders 1975), for every column by itself.

    Args:
        A: (n, n), as in `pcg`.
        b: (n,) or (n, k).
        shift: added to the diagonal.
        tolerance: of the backward error.
        iterations: at most; by default 10 n.

    Returns:
        As `pcg`.

    Raises:
        Refused: a bad shape, or NaN or Inf entries.
    """
    n = len(b)
    rhs = columns_of(b, n, _device(b, A))
    times, _ = operator(A, b)
    norm_b = rhs.norm(dim=0)
    x = torch.zeros_like(rhs)
    v_old, v, beta = torch.zeros_like(rhs), _over(rhs, norm_b), torch.zeros_like(norm_b)
    w_old, w = torch.zeros_like(rhs), torch.zeros_like(rhs)
    c_old, c = torch.ones_like(norm_b), torch.ones_like(norm_b)
    s_old, s = torch.zeros_like(norm_b), torch.zeros_like(norm_b)
    eta, size = norm_b.clone(), torch.zeros_like(norm_b)
    history: list[float] = []
    calls = 0
    for _ in range(10 * n if iterations is None else iterations):
        if not float(_watched(size, eta.abs(), x, norm_b).max()) > tolerance:
            break
        av = times(v) + shift * v
        calls += 1
        size = torch.maximum(size, av.norm(dim=0))
        alpha = (v * av).sum(0)
        av = av - beta * v_old - alpha * v
        beta_new = av.norm(dim=0)
        delta = c * alpha - c_old * s * beta
        rho = torch.hypot(delta, beta_new)
        second, third = s * alpha + c_old * c * beta, s_old * beta
        w_old, w = w, _over(v - third * w_old - second * w, rho)
        c_old, s_old, c, s = c, s, _over(delta, rho), _over(beta_new, rho)
        x = x + c * eta * w
        eta = -s * eta
        v_old, v, beta = v, _over(av, beta_new), beta_new
        history.append(float(_watched(size, eta.abs(), x, norm_b).max()))
        if not (beta_new > 1e-14 * size).any():
            break
    error = _watched(size, (rhs - times(x) - shift * x).norm(dim=0), x, norm_b)
    return _done(x, error, history, b, 2 * tolerance, calls + 1, "the matrix may be singular, or needs more iterations")


@torch.no_grad()
def lsqr(
    A: Any,
    b: Any,
    *,
    adjoint: Any = None,
    damping: float = 0.0,
    tolerance: float = 1e-10,
    iterations: int | None = None,
) -> Solution[Any]:
    """x of the least |A x - b|^2 + damping^2 |x|^2, and of those the shortest, by products with A and A^T.

    Golub-Kahan bidiagonalization (Paige and Saunders 1982), for every column by itself. It stops where
    |A^T r| / (|A| |r|), or the backward error of a system that can be met, is at most the tolerance.

    Args:
        A: (m, n), as in `pcg`.
        b: (m,) or (m, k).
        adjoint: x -> A^T x, needed where A is a function.
        damping: of the length of x.
        tolerance: of the backward error.
        iterations: at most; by default 4 times m + n.

    Returns:
        x (n,) or (n, k) as b came; `error` holds what it stopped by, of each column.

    Raises:
        Refused: the transpose is not known, a bad shape, or NaN or Inf entries.
    """
    m = len(b)
    rhs = columns_of(b, m, _device(b, A))
    times, back = operator(A, b)
    back = operator(adjoint, b)[0] if adjoint is not None else back
    if back is None:
        raise Refused("lsqr needs the transpose of a function A: hand in adjoint=")
    beta = rhs.norm(dim=0)
    u = _over(rhs, beta)
    v = back(u)
    alpha = v.norm(dim=0)
    v = _over(v, alpha)
    w, x, norm_b = v.clone(), torch.zeros_like(v), beta
    phi, rho = beta.clone(), alpha.clone()
    size, damped, gradient = alpha**2, torch.zeros_like(beta), alpha * beta
    history: list[float] = []
    calls = 1
    limit = 4 * (m + len(v)) if iterations is None else iterations

    def error() -> Tensor:
        residual, norm = (phi**2 + damped).sqrt(), size.sqrt()
        return torch.minimum(_over(gradient, norm * residual), _watched(norm, residual, x, norm_b))

    while len(history) < limit and float(error().max()) > tolerance:
        u = times(v) - alpha * u
        beta = u.norm(dim=0)
        u = _over(u, beta)
        size = size + beta**2 + damping**2
        v = back(u) - beta * v
        alpha = v.norm(dim=0)
        v = _over(v, alpha)
        calls += 2
        mixed = torch.hypot(rho, torch.full_like(rho, damping))
        damped = damped + (_over(rho * 0 + damping, mixed) * phi) ** 2
        phi = _over(rho, mixed) * phi
        length = torch.hypot(mixed, beta)
        c, s = _over(mixed, length), _over(beta, length)
        theta, rho = s * alpha, -c * alpha
        step, phi = c * phi, s * phi
        x = x + _over(step, length) * w
        w = v - _over(theta, length) * w
        gradient = phi.abs() * alpha * c.abs()
        size = size + alpha**2
        history.append(float(error().max()))
    return _done(x, error(), history, b, tolerance, calls, "more iterations, or a preconditioner")
