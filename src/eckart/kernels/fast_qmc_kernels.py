"""Kernels that lattices and digital nets turn into fast transforms, and Gaussian processes that choose such points."""

from __future__ import annotations

from collections.abc import Callable
from math import factorial, pi
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from eckart.arrays import Dense, Seed, dense, generator_of
from eckart.errors import Refused
from eckart.kernels._checks import not_negative, squared, standing
from eckart.kernels._low_discrepancy import DigitalNet, Lattice, digital_difference
from eckart.kernels._low_discrepancy_gp import LowDiscrepancyGP, ProductOfSeries, evidence, learned, spectrum
from eckart.kernels.contract import Example, kernel, kernel_method
from eckart.linalg.solution import Solution
from eckart.scikit.base import at_least_one, positive
from eckart.scikit.planted import Planted

PAPER = "Sorokin 2025, arXiv 2502.14256"
LEARNED_UP_TO = 4096
"""Points; the weights of the kernel stay as they are with more."""


def bernoulli(order: int, t: Tensor) -> Tensor:
    """2 sum_(h >= 1) cos(2 pi h t) / h^(2 order), by the Bernoulli polynomial of degree 2 order, for t in [0, 1]."""
    u = t * (1 - t)
    b = {1: 1 / 6 - u, 2: u**2 - 1 / 30, 3: 1 / 42 - u**2 / 2 - u**3}[order]
    found: Tensor = (-1.0) ** (order + 1) * (2 * pi) ** (2 * order) / factorial(2 * order) * b
    return found


def walsh_series(order: int, t: Tensor) -> Tensor:
    """sum_(k >= 1) wal_k(t) 2^-mu(k) for t in [0, 1), mu(k) being the sum of the places of k's first `order` digits.

    Places count from 1 at the lowest digit. Of order 1, whose series would not converge, it is that of 2^(-2 mu) times
    2, without its constant: 1 - 3 2^floor(log2 t).
    """
    some = t > 0
    place = torch.where(some, -torch.frexp(t)[1] + 1.0, 0.0)  # of the first digit of t
    power = torch.where(some, torch.ldexp(torch.ones_like(t), -place), 0.0)
    if order == 1:
        return 1 - 3 * power + 0 * t  # steps have no slope, and this says so
    if order == 2:
        return 1.5 - place * t - 2.5 * power
    return place * t**2 - 5 * (1 - power) * t + 43 / 18 * (1 - power**2) - 1


def _periodic(rng: np.random.Generator) -> Example:
    turn = (lambda x: x + np.array([0.3, -0.8, 2.0]), lambda x: x + 1)
    return Example(BernoulliKernel(2, [0.5, 0.1, 1.0]), rng.random((12, 3)), rng.random((5, 3)), turn)


@kernel(
    "fast-qmc-kernels",
    paper=PAPER,
    gives="prod_j (1 + g_j b(x_j - z_j modulo 1)), b a Bernoulli polynomial",
    example=_periodic,
    expression="Circulant",
)
class BernoulliKernel(ProductOfSeries):
    """The kernel of periodic functions with a number of derivatives: prod_j (1 + g_j b(x_j - z_j modulo 1)).

    b(t) = 2 sum_(h >= 1) cos(2 pi h t) / h^(2 a), a Bernoulli polynomial. On a `Lattice` its Gram matrix is circulant.

    Args:
        order: a, 1, 2 or 3: functions have a square integrable derivative of this order in each coordinate.
        weights: g, one positive number or (d,).

    Raises:
        Refused: another order, or a weight that is not positive.
    """

    sees_only = frozenset({"difference", "torus"})

    def _difference(self, x: Tensor, z: Tensor) -> Tensor:
        t = x - z
        return t - t.floor()

    def _series(self, t: Tensor) -> Tensor:
        return bernoulli(self.order, t)


class _Digits(torch.autograd.Function):
    """x xor z; what is made of its first digit has no slope, and what is made of the others no derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, order: int) -> Tensor:
        ctx.order, ctx.shapes = order, (x.shape, z.shape)
        return digital_difference(x, z)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        if ctx.order > 1:
            raise Refused(f"WalshKernel of order {ctx.order} has no derivative by its points: detach them")
        x, z = (g.new_zeros(shape) for shape in ctx.shapes)
        return x, z, None


def _digital(rng: np.random.Generator) -> Example:
    shift = torch.from_numpy(rng.random(3))
    same = (lambda x: digital_difference(torch.from_numpy(x), shift).numpy(),)
    return Example(WalshKernel(1, [0.5, 0.1, 1.0]), rng.random((12, 3)), rng.random((5, 3)), same)


@kernel(
    "fast-qmc-kernels-digital",
    paper=PAPER,
    gives="prod_j (1 + g_j b(x_j xor z_j)), b a series of Walsh functions",
    takes="points in [0, 1)",
    example=_digital,
    expression="Chain(Hadamard, Diagonal, Hadamard)",
)
class WalshKernel(ProductOfSeries):
    """The kernel of functions whose Walsh coefficients fade: prod_j (1 + g_j b(x_j xor z_j)) of binary digits.

    b is `walsh_series`. On a `DigitalNet` its Gram matrix is a diagonal between Walsh-Hadamard transforms. What it
    predicts is no continuous function, however smooth the data are.

    Args:
        order: 1, 2 or 3: how fast the coefficients fade.
        weights: g, one positive number or (d,).

    Raises:
        Refused: another order, or a weight that is not positive; when called, a point that is not in [0, 1).
    """

    sees_only = frozenset({"xor"})

    def _difference(self, x: Tensor, z: Tensor) -> Tensor:
        found: Tensor = _Digits.apply(x, z, self.order)  # type: ignore[no-untyped-call]
        return found

    def _series(self, t: Tensor) -> Tensor:
        return walsh_series(self.order, t)


def _planted(rng: np.random.Generator) -> Planted:
    phase = rng.random(2)

    def wave(x: Dense) -> Dense:
        product: Dense = (1 + np.sin(2 * np.pi * (x + phase)) / [1, 2]).prod(1)
        return product

    arguments = {"function": wave, "dimensions": 2, "tolerance": 1e-6, "weights": 0.3}
    return Planted(arguments, lambda found: abs(found.value.mean - 1), 1e-6)


@kernel_method(
    "fast-qmc-kernels-gp",
    paper=PAPER,
    kind="solver",
    gives="a function's mean over a cube, and its values, with standard deviations",
    takes="a function",
    planted=_planted,
    expression="Circulant; Chain(Hadamard, Diagonal, Hadamard)",
)
def fit_on_lattice(
    function: Callable[[Dense], Any],
    dimensions: int,
    *,
    tolerance: float,
    points: Literal["lattice", "net"] = "lattice",
    order: int | None = None,
    weights: Any = None,
    folded: bool = False,
    bounds: Any = None,
    noise: float = 0.0,
    start: int = 256,
    limit: int = 2**16,
    generator: Seed = None,
) -> Solution[LowDiscrepancyGP]:
    """A Gaussian process that chooses its points, and doubles them until it knows the function's mean well enough.

    Points are a `Lattice` with a `BernoulliKernel` or a `DigitalNet` with a `WalshKernel`, shifted at random; a step of
    n points costs one transform, n log n. The points of a step are among those of the next, and are not asked for
    again. The process has an unknown mean and an unknown scale c, the latter by its restricted likelihood.

    With the eigenvalues l_i of k - 1, the first of which belongs to the constant, the mean over the cube is that of
    the values, and its variance c l_0 / n (Jagadeeswaran and Hickernell 2019, Statistics and Computing 29).

    Args:
        function: of points (m, d) to their m values. Data at points of their own are no function: take `Nystroem`.
        dimensions: d.
        tolerance: of the standard deviation of the mean, in units of the function.
        points: "lattice" or "net". A lattice is for functions that are periodic, or `folded`.
        order: of the kernel; by default 2 on a lattice, and 1 on a net, which is one of order 1.
        weights: of the kernel, one number or (d,); None to learn them on up to 4096 points.
        folded: whether the function is seen as f(1 - |1 - 2 u|), which is continuous and periodic where f is
            continuous.
        bounds: (d, 2), the sides of the cube; the unit cube where it is None.
        noise: variance of the noise of values, by c k(0).
        start: points to begin with, a power of two.
        limit: at most.
        generator: of the shift.

    Returns:
        The process with the most points. `calls` are the function's points, `history` the standard deviations, `error`
        the last. Eigenvalues below rounding are raised to it, and their number is told.

    Raises:
        Refused: it is no function, gives NaN or Inf or another shape, or an argument is out of its range.
    """
    if not callable(function):
        raise Refused(
            f"a lattice chooses its points and needs a function, not {type(function).__name__}; for data at points of "
            "their own take Nystroem, or kernel.gram(x)"
        )
    at_least_one(dimensions=dimensions, start=start, limit=limit)
    positive(tolerance=tolerance)
    not_negative(noise=noise)
    if points not in ("lattice", "net"):
        raise Refused(f"points={points!r} is none of lattice, net")
    if start & (start - 1) or not 4 <= start <= limit:
        raise Refused(f"start={start} is no power of two from 4 on, up to limit={limit}")
    sides = np.array([[0.0, 1.0]] * dimensions if bounds is None else dense(bounds, "bounds"))
    if sides.shape != (dimensions, 2) or not (sides[:, 0] < sides[:, 1]).all():
        raise Refused(f"bounds of shape {sides.shape} are no sides (d, 2), each from its lower to its upper end")
    shift = generator_of(generator).random(dimensions)
    first = 1.0 if weights is None else weights
    kernel: ProductOfSeries = (
        BernoulliKernel(2 if order is None else order, first)
        if points == "lattice"
        else WalshKernel(1 if order is None else order, first)
    )

    def asked(x: Dense) -> Dense:
        u = 1 - np.abs(1 - 2 * x) if folded else x
        found = dense(function(sides[:, 0] + u * (sides[:, 1] - sides[:, 0])), "values of the function", ndim=1)
        if len(found) != len(x):
            raise Refused(f"the function gave {len(found)} values for {len(x)} points")
        return found

    at: Lattice | DigitalNet
    values, history, n = np.empty(0), [], start
    while True:
        at = Lattice(n, dimensions, shift) if points == "lattice" else DigitalNet(n, dimensions, shift)
        x = at.array().numpy()
        if not len(values):
            values = asked(x)
        elif points == "lattice":
            values = np.stack([values, asked(x[1::2])], 1).ravel()
        else:
            values = np.concatenate([values, asked(x[n // 2 :])])
        mean, unit, rest = standing(values)
        squared(unit)
        y = torch.from_numpy(rest)
        if weights is None and n <= LEARNED_UP_TO and rest.any():
            kernel = learned(at, kernel, y, noise)
        with torch.no_grad():
            eigen, floored = spectrum(at, kernel, noise)
            basis = eigen.adjoint((y - y.mean())[:, None])
            scale = float(evidence(eigen, basis[:, 0])[1])
            alpha = eigen.apply(basis / eigen.values[:, None])[:, 0].numpy()
        sd = unit * float((scale * eigen.values[0] / n) ** 0.5)
        history.append(sd)
        if sd <= tolerance or 2 * n > limit:
            break
        n *= 2
    process = LowDiscrepancyGP(
        mean,
        sd,
        at,
        values,
        kernel,
        squared(unit, scale) if scale else 0.0,
        unit * alpha,
        floored,
        sides.T.copy(),
        folded,
        eigen,
    )
    text = f"the mean's standard deviation is {sd:.3g} with {n} points; {floored} eigenvalues were raised to rounding"
    return Solution(process, sd <= tolerance, len(history), history, text, n, sd)
