"""The evidence of Gaussian processes, by the structure of the covariance, and where it is largest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import e, log, pi
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from eckart import linalg
from eckart.errors import Refused
from eckart.kernels._kernel import Multiple
from eckart.kernels._points import Even, Grid, Points, Scattered
from eckart.linalg.solution import Solution
from eckart.structures import Dense, StructuredMatrix

EXACT = ("exact", "kronecker", "toeplitz")
SMALL = 200
"""Rows up to which nothing is faster than a dense matrix."""
EVEN = 1e-6
"""Of the step, by which evenly spaced rows may be off."""
JITTER = 1e-8
"""Of its mean, that is added to the diagonal of the matrix of the drawn rows, whose lower bound stays one."""
FAR = log(1e5)
"""How far the logarithm of a parameter may go from where it starts."""
WIDTHS, RATIOS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0), (1.0, 100.0)
"""By what lengthscales, and scale / noise, are multiplied where it may start."""
FAILED = 1e25


@dataclass(frozen=True)
class Placed:
    """Rows as a structure has them.

    Attributes:
        structure: "exact", "kronecker" or "toeplitz".
        points: (n, d), in the order of the structure.
        order: the rows in that order, (n,).
    """

    structure: str
    points: Points
    order: Tensor


def placed(structure: str, x: Tensor, kernel: Any) -> Placed | None:
    """Rows as points of a structure; None where they, or the kernel, have not that one."""
    n, d = x.shape
    if structure == "exact":
        return Placed(structure, Scattered(x), torch.arange(n))
    if structure == "toeplitz":
        if d != 1 or n < 2 or "difference" not in kernel.sees_only:
            return None
        values, order = x[:, 0].sort(stable=True)
        step = float(values[-1] - values[0]) / (n - 1)
        even = values[0] + step * torch.arange(n, dtype=x.dtype)
        if not 0 < step < float("inf") or float((values - even).abs().max()) > EVEN * step:
            return None
        return Placed(structure, Even(float(values[0]), step, n), order)
    axes, places = zip(*(column.unique(return_inverse=True) for column in x.T), strict=True)
    position, count = torch.zeros(n, dtype=torch.int64), 1
    for axis, place in zip(axes, places, strict=True):
        position, count = position * len(axis) + place, count * len(axis)
        if count > n:
            return None
    order = position.argsort()
    if d < 2 or count != n or not torch.equal(position[order], torch.arange(n)):
        return None
    try:
        kernel.factors(d)
    except Refused:
        return None
    return Placed(structure, Grid(*axes), order)


def chosen(structure: str, x: Tensor, kernel: Any, exact_up_to: int) -> Placed | None:
    """The rows in a structure that is exact, by its name or, for "auto", the fastest; None for low rank.

    Raises:
        Refused: another name, or rows or a kernel that have not that structure.
    """
    if structure == "low-rank":
        return None
    if structure != "auto":
        found = placed(structure, x, kernel) if structure in EXACT else None
        if found is None:
            raise Refused(
                f"structure={structure!r} is none of auto, low-rank, {', '.join(EXACT)}, or these {len(x)} rows, or "
                f"the kernel, have not that one: kronecker needs a full grid and a product of kernels, toeplitz even "
                f"spacing of one feature and a kernel of the difference"
            )
        return found
    fast = ("kronecker", "toeplitz") if len(x) > SMALL else ()
    for each in (*fast, *(("exact",) if len(x) <= exact_up_to else ())):
        found = placed(each, x, kernel)
        if found is not None:
            return found
    return None


class _Definite(torch.autograd.Function):
    """y (K + I)^-1 y and ln det(K + I) by one Cholesky decomposition, which their gradients share."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        root = rooted(matrix)
        solved = torch.cholesky_solve(y[:, None], root)[:, 0]
        ctx.save_for_backward(root, solved)
        return y @ solved, 2 * root.diagonal().log().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, quadratic: Tensor, logdet: Tensor) -> tuple[Tensor, None]:
        root, solved = ctx.saved_tensors
        return logdet * torch.cholesky_inverse(root) - quadratic * torch.outer(solved, solved), None


def rooted(matrix: Tensor, shift: float = 1.0) -> Tensor:
    """The Cholesky factor of K + shift I; Refused where there is none."""
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(shifted)
    if failed or not torch.isfinite(root).all():
        largest = float(matrix.detach().diagonal().abs().max())
        if shift <= len(matrix) * torch.finfo(matrix.dtype).eps * largest:
            raise Refused(
                f"the noise is {shift / largest:.3g} of the kernel's variance, less than rounding leaves of rows that "
                "are equal or nearly so: take a larger noise"
            )
        raise Refused("the kernel is not positive semi-definite on these rows")
    return root


def quadratic_and_logdet(gram: StructuredMatrix, y: Tensor) -> tuple[Tensor, Tensor]:
    """y (K + I)^-1 y and ln det(K + I) of a structure, with gradients."""
    if isinstance(gram, Dense):
        found: tuple[Tensor, Tensor] = _Definite.apply(gram.weight, y)  # type: ignore[no-untyped-call]
        return found
    return (y * linalg.solve(gram, y, shift=1.0)).sum(), linalg.logdet(gram, shift=1.0)


def surprise(quadratic: Tensor, logdet: Tensor, n: int, noise: float | None) -> Tensor:
    """-ln N(y; 0, noise (K + I)); where it is None the noise is the best one, quadratic / n."""
    rest = n * (2 * pi * e * quadratic / n).log() if noise is None else quadratic / noise + n * log(2 * pi * noise)
    found: Tensor = 0.5 * (rest + logdet)
    return found


@dataclass(frozen=True)
class Thin:
    """What the lower bound is made of: K ~ F F^T in the span of some rows.

    Attributes:
        root: L (k, k) of the matrix of these rows.
        features: F^T = L^-1 k(S, X) (k, n).
        core: the Cholesky factor of I + F^T F.
        projected: core^-1 F^T y (k,).
    """

    root: Tensor
    features: Tensor
    core: Tensor
    projected: Tensor


def thin(model: Any, x: Tensor, drawn: Tensor, y: Tensor) -> Thin:
    """Of rows x (n, d), with gradients that reach the model."""
    inner = model(drawn)
    root = rooted(inner, JITTER * float(inner.detach().diagonal().mean()))
    features = torch.linalg.solve_triangular(root, model(drawn, x), upper=False)
    core = rooted(features @ features.T)
    projected = torch.linalg.solve_triangular(core, (features @ y)[:, None], upper=False)[:, 0]
    return Thin(root, features, core, projected)


def bound(model: Any, x: Tensor, drawn: Tensor, y: Tensor, noise: float | None) -> Tensor:
    """Not less than -ln p(y): that of F F^T in place of K, and half the trace of what is left of K (Titsias 2009)."""
    parts = thin(model, x, drawn, y)
    quadratic = y @ y - parts.projected.square().sum()
    logdet = 2 * parts.core.diagonal().log().sum()
    rest = (model.diag(x).sum() - parts.features.square().sum()).clamp_min(0)
    found: Tensor = surprise(quadratic, logdet, len(y), noise) + 0.5 * rest
    return found


def sampled(x: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Indices of rows (count,), half from everywhere, half in one place: long and short distances are among them."""
    order = torch.from_numpy(rng.permutation(len(x)))
    if len(x) <= count:
        return order
    everywhere = order[: count // 2]
    near = (x - x[order[0]]).square().sum(1).argsort(stable=True)
    mask = torch.ones(len(x), dtype=torch.bool)
    mask[everywhere] = False
    return torch.cat([everywhere, near[mask[near]][: count - len(everywhere)]])


def begun(model: Multiple, x: Tensor, y: Tensor, steps: int) -> None:
    """Moves lengthscales and the ratio of scale and noise to where the evidence of a few rows is largest.

    Of some places; with steps uphill from the best of them, over all parameters.
    """
    goal = y - y.mean()
    if not goal.any():
        return

    def cost() -> Tensor:
        return surprise(*quadratic_and_logdet(model.gram(x), goal), len(goal), None)

    widths = [p for name, p in model.named_parameters() if name.endswith("log_lengthscale") and p.requires_grad]
    first = [p.detach().clone() for p in (*widths, model.log_factor)]
    best, least = (1.0, 1.0), FAILED

    def move(width: float, ratio: float) -> None:
        with torch.no_grad():
            for p, old in zip((*widths, model.log_factor), first, strict=True):
                p.copy_(old + log(ratio if p is model.log_factor else width))

    for width in WIDTHS if widths else (1.0,):
        for ratio in RATIOS:
            move(width, ratio)
            value, _ = _value(cost, [])
            if value < least:
                best, least = (width, ratio), value
    move(*best)
    if steps:
        learned(model, cost, steps)


def learned(model: Multiple, cost: Callable[[], Tensor], steps: int) -> Solution[float]:
    """Moves the parameters of a model that require gradients to where a cost is least, by L-BFGS; its value there."""
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    leaves = [p for _, p in parameters]
    start = np.concatenate([p.detach().numpy().ravel() for p in leaves])
    logs = np.concatenate([np.full(p.numel(), name.rpartition(".")[2].startswith("log_")) for name, p in parameters])
    limits = [(value - FAR, value + FAR) if each else (None, None) for value, each in zip(start, logs, strict=True)]
    history: list[float] = []
    best = start.copy(), FAILED

    def put(values: Any) -> None:
        with torch.no_grad():
            for p, part in zip(leaves, np.split(values, np.cumsum([p.numel() for p in leaves])[:-1]), strict=True):
                p.copy_(torch.from_numpy(part).reshape(p.shape))

    def at(values: Any) -> tuple[float, Any]:
        nonlocal best
        put(values)
        value, slope = _value(cost, leaves)
        history.append(value)
        if value < best[1]:
            best = values.copy(), value
        return value, slope

    result = minimize(at, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": steps, "ftol": 1e-9})
    put(best[0])
    text = f"L-BFGS stopped after {result.nit} steps: {result.message}"
    return Solution(best[1], best[1] < FAILED and result.status != 1, max(1, int(result.nit)), history, text)


def _value(cost: Callable[[], Tensor], leaves: list[Any]) -> tuple[float, Any]:
    """A cost and its gradient; a large one where it cannot be computed."""
    none = np.zeros(sum(p.numel() for p in leaves))
    try:
        with torch.set_grad_enabled(bool(leaves)):
            value = cost()
            slopes = torch.autograd.grad(value, leaves, allow_unused=True) if leaves else ()
    except Refused:
        return FAILED, none
    flat = [np.zeros(p.numel()) if g is None else g.numpy().ravel() for p, g in zip(leaves, slopes, strict=True)]
    slope = np.concatenate(flat) if flat else none
    fine = bool(torch.isfinite(value)) and np.isfinite(slope).all()
    return (float(value.detach()), slope) if fine else (FAILED, none)
