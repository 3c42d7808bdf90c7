"""Equations on one or two axes from 0 to 1, linear but for a function of u, met at a grid by sums of kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import LinAlgError, lstsq, schur, solve_sylvester
from scipy.linalg.lapack import dtrsyl
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, gmres

from eckart.arrays import Dense, dense
from eckart.errors import Refused
from eckart.kernels._kernel import Kernel
from eckart.kernels._named import Cosine
from eckart.kernels._newton import newton
from eckart.kernels.matern import Matern
from eckart.kernels.rbf import RBF

JITTER = 1e-13
"""Of k(0), on the diagonal."""
CUT = 1e-14
"""Of the largest singular value: smaller ones are left out on a line."""
KRYLOV = 80
"""Products with the operator in each of Newton's steps."""
PEAKS, VISIBLE = 6, 1e-3
"""Frequencies to take of a source at most, and how large they are by the largest."""


def peaks(values: Dense) -> Dense:
    """Frequencies (q,) of even samples (n, m) along the first axis, in cycles by its length, the strongest first.

    Maxima of the spectrum under Hann's window, each between its neighbours by a parabola through the logarithms.
    """
    n = len(values)
    window = np.hanning(n + 2)[1:-1, None]
    size = np.sqrt(np.square(np.abs(np.fft.rfft(window * values, axis=0))).sum(1)) + 1e-300
    inner = np.arange(1, len(size) - 1)
    top = inner[
        (size[inner] >= size[inner - 1]) & (size[inner] > size[inner + 1]) & (size[inner] > VISIBLE * size.max())
    ]
    top = top[np.argsort(-size[top])][:PEAKS]
    left, middle, right = (np.log(size[top + step]) for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend < 0, (left - right) / np.where(bend < 0, 2 * bend, 1.0), 0.0)
    found: Dense = (top + shift) * (n - 1) / n
    return found


@dataclass(frozen=True)
class Collocated:
    """The posterior mean that solves an equation at the points of a grid.

    Attributes:
        values: on the grid.
        coefficients: A, with u = k_1(x, X_1) A k_2(y, X_2)^T, or k_1(x, X_1) A.
        axes: the grid's, each from 0 to 1.
        sides: the lower end and the length of each.
        kernels: one an axis.
    """

    values: Dense
    coefficients: Dense
    axes: tuple[Dense, ...]
    sides: tuple[tuple[float, float], ...]
    kernels: tuple[Kernel, ...]

    def predict(self, *axes: Any) -> Dense:
        """u on another grid, given by its axes."""
        if len(axes) != len(self.axes):
            raise Refused(f"{len(axes)} axes for a solution of {len(self.axes)}")
        found = self.coefficients
        for p, (asked, held, (low, length), kernel) in enumerate(
            zip(axes, self.axes, self.sides, self.kernels, strict=True)
        ):
            k = between(kernel, (dense(asked, "an axis", ndim=1) - low) / length, held)
            found = k @ found if p == 0 else found @ k.T
        return found


def between(kernel: Kernel, x: Dense, z: Dense, order: int = 0) -> Dense:
    """The derivative of k(x_i - z_j) by x_i, (n, m)."""
    with torch.no_grad():
        return kernel.along(torch.from_numpy(x[:, None] - z), order).numpy()


def waves_of(frequencies: Dense, length: float, base: str) -> Kernel:
    """m(t) (1 + sum_q cos(2 pi f_q t)), m Gaussian or Matern 5/2."""
    fading = RBF(length) if base == "rbf" else Matern(2.5, length)
    found: Kernel = fading
    for frequency in frequencies:
        if frequency > 0:
            found = found + fading * Cosine(float(frequency))
    return found


class Problem:
    """The equation on axes from 0 to 1."""

    def __init__(
        self,
        source: Any,
        boundary: Any,
        unit: Any,
        sides: Any,
        a: Dense,
        b: Dense,
        c: float,
        base: str,
        reaction: Callable[[Any], Any] | None = None,
    ) -> None:
        self.unit, self.sides, self.a, self.b, self.c, self.base = unit, sides, a, b, c, base
        self.function, self.reaction = source, reaction
        self.source = self.at(source, unit)
        self.boundary = self.at(boundary if callable(boundary) else lambda *_: float(boundary), unit)
        self.middles = tuple((axis[1:] + axis[:-1]) / 2 for axis in unit)
        self.between = self.at(source, self.middles)
        self.size = float(np.sqrt(np.square(self.between).mean())) or float(np.abs(self.boundary).max()) or 1.0
        self.solves = self.spoilt = 0
        zero = np.zeros(1)
        beside = [float(self.react(zero + step)[0]) for step in (-1e-5, 0.0, 1e-5)]
        if not np.isfinite(beside).all():
            raise Refused(
                f"reaction gives {beside[0]:g}, {beside[1]:g}, {beside[2]:g} at u = -1e-05, 0, 1e-05, and Newton's "
                "steps begin at 0: hand in the equation of u less a number where it is finite"
            )

    def at(self, function: Any, unit: Any) -> Dense:
        places = [low + length * axis for axis, (low, length) in zip(unit, self.sides, strict=True)]
        shape = tuple(map(len, unit))
        found = dense(function(*np.meshgrid(*places, indexing="ij")), "values of a function", ndim=None)
        try:
            return np.broadcast_to(found, shape)
        except ValueError as error:
            raise Refused(f"a function gave values of shape {found.shape} for points of shape {shape}") from error

    def react(self, u: Dense) -> Dense:
        """g(u), zero where there is none; NaN and Inf are counted, as steps may meet them and turn back."""
        if self.reaction is None:
            return np.zeros_like(u)
        with np.errstate(all="ignore"):
            given = np.asarray(self.reaction(u))
        if given.shape != u.shape or given.dtype.kind not in "biuf":
            raise Refused(
                f"reaction gave values of shape {given.shape} and {given.dtype} for u of shape {u.shape}: real numbers "
                "are needed, one for each u"
            )
        found: Dense = given.astype(np.float64)
        self.spoilt += int((~np.isfinite(found)).sum())
        return found

    def slope(self, u: Dense) -> Dense:
        """g'(u) by differences, of which Newton's steps need no more digits than they have."""
        step = 1e-5 * (1 + np.abs(u))
        found: Dense = (self.react(u + step) - self.react(u - step)) / (2 * step)
        if not np.isfinite(found).all():
            raise LinAlgError("reaction has no slope at some u")
        return found

    def peaks(self) -> list[Dense]:
        even = tuple(np.linspace(0, 1, (16 if len(self.unit) == 1 else 4) * len(axis)) for axis in self.unit)
        values = self.at(self.function, even)
        return [peaks(np.moveaxis(values, p, 0).reshape(len(even[p]), -1)) for p in range(len(even))]

    def applied(self, kernel: Kernel, p: int, x: Dense) -> Dense:
        """a k'' + b k', and on the first axis c k too, from the grid's axis to x."""
        z = self.unit[p]
        found: Dense = self.a[p] * between(kernel, x, z, 2) + self.b[p] * between(kernel, x, z, 1)
        return found + self.c * between(kernel, x, z) if p == 0 else found

    def solved(self, frequencies: Sequence[Dense], length: float) -> tuple[float, Collocated | None]:
        """The residual and the solution."""
        self.solves += 1
        kernels = tuple(waves_of(each, length, self.base) for each in frequencies)
        try:
            coefficients = self._line(kernels[0]) if len(kernels) == 1 else self._plane(kernels)
        except (LinAlgError, np.linalg.LinAlgError):
            return np.inf, None
        u = coefficients
        for p, (kernel, axis) in enumerate(zip(kernels, self.unit, strict=True)):
            u = between(kernel, axis, axis) @ u if p == 0 else u @ between(kernel, axis, axis).T
        made = Collocated(u, coefficients, self.unit, self.sides, kernels)
        k = [between(kernel, x, z) for kernel, x, z in zip(kernels, self.middles, self.unit, strict=True)]
        rest = self.applied(kernels[0], 0, self.middles[0]) @ coefficients
        if len(kernels) == 1:
            rest = rest + self.react(k[0] @ coefficients) - self.between
        else:
            second = self.applied(kernels[1], 1, self.middles[1])
            rest = rest @ k[1].T + k[0] @ coefficients @ second.T - self.between
            rest = rest + self.react(k[0] @ coefficients @ k[1].T)
        error = float(np.sqrt(np.square(rest).mean())) / self.size
        return (error, made) if np.isfinite(error) and np.isfinite(u).all() else (np.inf, None)

    def _line(self, kernel: Kernel) -> Dense:
        """A of the equation at the inner points and the values at both ends, by least squares."""
        (axis,) = self.unit
        inner = self.applied(kernel, 0, axis[1:-1])
        ends, values = between(kernel, axis[[0, -1]], axis), between(kernel, axis[1:-1], axis)

        def solve(tilt: Any, right: Dense) -> Dense:
            rows = np.concatenate([inner + tilt * values, ends])
            right = np.concatenate([right, self.boundary[[0, -1]]])
            scale = np.linalg.norm(rows, axis=1)
            found: Dense = lstsq(rows / scale[:, None], right / scale, cond=CUT, lapack_driver="gelsy")[0]
            return found

        if self.reaction is None:
            return solve(0.0, self.source[1:-1])

        def step(coefficients: Dense) -> Dense:
            u = values @ coefficients
            tilt = self.slope(u)
            return solve(tilt[:, None], self.source[1:-1] - self.react(u) + tilt * u)

        def rest(coefficients: Dense) -> Dense:
            return inner @ coefficients + self.react(values @ coefficients) - self.source[1:-1]

        return newton(step, rest, step(np.zeros(len(axis))))

    def _plane(self, kernels: Sequence[Kernel]) -> Dense:
        """A = K_1^-1 U K_2^-1 of the solution U of Sylvester's equation."""
        inverses, operators = [], []
        for p, (kernel, axis) in enumerate(zip(kernels, self.unit, strict=True)):
            k = between(kernel, axis, axis)
            inverses.append(np.linalg.inv(k + JITTER * k[0, 0] * np.eye(len(axis))))
            operators.append(self.applied(kernel, p, axis) @ inverses[p])
        u, inner, ends, (left, other) = self.boundary.copy(), slice(1, -1), [0, -1], operators
        right = self.source[inner, inner] - left[inner][:, ends] @ u[ends, inner]
        right = right - u[inner][:, ends] @ other[inner][:, ends].T
        if self.reaction is None:
            u[inner, inner] = solve_sylvester(left[inner, inner], other[inner, inner].T, right)
        else:
            u[inner, inner] = self._reacting(left[inner, inner], other[inner, inner], right)
        found: Dense = inverses[0] @ u @ inverses[1].T
        return found

    def _reacting(self, left: Dense, other: Dense, right: Dense) -> Dense:
        """U of D_1 U + U D_2^T + g(U) = F: Newton's steps, each by Krylov's on what Sylvester's solve leaves of it.

        D_1 V + V D_2^T = R is solved by the Schur forms of both, made once. By it each step's operator, with g'(U) V
        added, is the identity and something smooth, for which a few products are enough.
        """
        (r, p), (s, q) = schur(left), schur(other.T)
        shape = right.shape

        def sylvester(rest: Dense) -> Dense:
            found, scale, info = dtrsyl(r, s, p.T @ rest.reshape(shape) @ q)
            if info < 0 or scale == 0:
                raise LinAlgError("Sylvester's equation has no solution")
            back: Dense = p @ (found / scale) @ q.T
            return back

        def step(u: Dense) -> Dense:
            tilt = self.slope(u)

            def product(v: Dense) -> Dense:
                return v.ravel() + sylvester(tilt * v.reshape(shape)).ravel()

            wanted = sylvester(right - self.react(u) + tilt * u).ravel()
            operator = LinearOperator((u.size, u.size), matvec=product, dtype=np.float64)
            found: Dense = gmres(operator, wanted, x0=u.ravel(), rtol=1e-12, restart=KRYLOV, maxiter=1)[0]
            return found.reshape(shape)

        def rest(u: Dense) -> Dense:
            found: Dense = left @ u + u @ other.T + self.react(u) - right
            return found

        return newton(step, rest, step(np.zeros(shape)))

    def learned(self, frequencies: Sequence[Dense], length: float) -> tuple[float, Collocated | None]:
        """Frequencies and the lengthscale that leave the least residual, by the simplex of Nelder and Mead."""
        sizes = np.cumsum([len(each) for each in frequencies])[:-1]

        def parts(x: Dense) -> tuple[list[Dense], float]:
            return [np.abs(each) for each in np.split(x[1:], sizes)], float(np.exp(x[0]))

        start = np.concatenate([[np.log(length)], *frequencies])
        found = minimize(
            lambda x: min(np.log(self.solved(*parts(x))[0] + 1e-300), 700.0),
            start,
            method="Nelder-Mead",
            options={
                "maxfev": 60 * len(start),
                "initial_simplex": start + np.vstack([0 * start, np.eye(len(start)) * 0.1]),
            },
        )
        return self.solved(*parts(found.x))
