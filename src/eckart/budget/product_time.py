"""How long a matrix product takes, from what it computes and what it reads: a model fitted to one machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from eckart.errors import Refused

Array = NDArray[np.float64]

WORD = 4
"""Bytes of an entry of inputs and outputs."""
RIDGE = 1.0
"""Weight of the squared coefficients of the regressor, whose features have unit variance."""
FARTHEST = 2.0
"""The regressor changes a time by this factor at most, however far from what was timed a product is."""
STARTS = (0.1, 0.9)
"""Of the search for a roofline: the overhead, relative to the least time."""
WORTH = 1e-3
"""By so much the regressor has to lower the mean relative error."""
STEPS = 50
"""Of a search at most."""


@dataclass(frozen=True)
class Product:
    """A matrix times some vectors.

    Attributes:
        kind: of the structure that holds the matrix, such as "dense"; each has a roofline of its own.
        rows, columns: (out, in).
        tokens: vectors.
        bytes: of the matrix.
        macs: multiply-adds for one vector.
    """

    kind: str
    rows: int
    columns: int
    tokens: int
    bytes: int
    macs: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def flops(self) -> float:
        """Operations, two for each multiply-add."""
        return 2.0 * self.macs * self.tokens

    @property
    def moved(self) -> float:
        """Bytes of the matrix, the inputs and the outputs."""
        return self.bytes + float(WORD) * self.tokens * (self.rows + self.columns)

    def features(self) -> list[float]:
        """What the regressor looks at."""
        density = self.macs / (self.rows * self.columns)
        return [np.log(self.rows), np.log(self.columns), np.log(self.tokens), np.log(max(density, 1e-6))]


@dataclass(frozen=True)
class Timed:
    """A product and the seconds it took."""

    product: Product
    seconds: float


@dataclass(frozen=True)
class Roofline:
    """Seconds are `max(flops / peak, bytes / bandwidth) + overhead` (Williams, Waterman and Patterson 2009).

    Attributes:
        peak: operations a second.
        bandwidth: bytes a second.
        overhead: seconds of a call.
    """

    peak: float
    bandwidth: float
    overhead: float

    def seconds(self, product: Product) -> float:
        return max(product.flops / self.peak, product.moved / self.bandwidth) + self.overhead


@dataclass(frozen=True)
class Regressor:
    """A ridge regression of the logarithm of measured over predicted seconds."""

    centre: Array
    spread: Array
    weights: Array
    constant: float

    def factor(self, product: Product) -> float:
        x = (np.array(product.features()) - self.centre) / self.spread
        return float(np.exp(np.clip(self.constant + x @ self.weights, -np.log(FARTHEST), np.log(FARTHEST))))


@dataclass(frozen=True)
class TimeModel:
    """Seconds of products, by the kind of structure."""

    rooflines: Mapping[str, Roofline]
    regressors: Mapping[str, Regressor]

    def seconds(self, product: Product) -> float:
        """Refused where no product of the kind was timed."""
        if product.kind not in self.rooflines:
            raise Refused(f"no product of kind {product.kind!r} was timed; there are {', '.join(self.rooflines)}")
        regressor = self.regressors.get(product.kind)
        factor = regressor.factor(product) if regressor else 1.0
        return factor * self.rooflines[product.kind].seconds(product)


def fit_times(timed: Sequence[Timed], *, regressor: bool = True) -> TimeModel:
    """A roofline for each kind, fitted to the logarithms of its timings, and a regressor on what is left of them.

    Raises:
        Refused: nothing was timed, or a time is not positive and finite.
    """
    if not timed or not all(0 < each.seconds < np.inf for each in timed):
        raise Refused("a model of time needs products with positive, finite seconds")
    kinds: dict[str, list[Timed]] = {}
    for each in timed:
        kinds.setdefault(each.product.kind, []).append(each)
    rooflines = {kind: _roofline(own) for kind, own in kinds.items()}
    regressors = {kind: _regressor(own, rooflines[kind]) for kind, own in kinds.items()} if regressor else {}
    return TimeModel(rooflines, regressors)


def chosen_times(timed: Sequence[Timed]) -> tuple[TimeModel, Array]:
    """`fit_times`, with the regressor only where shapes that were left out are predicted better with it.

    Returns:
        The model, and `left_out_errors` of its kind.
    """
    errors = left_out_errors(timed)
    plain = left_out_errors(timed, regressor=False)
    better = bool(errors.mean() < plain.mean() - WORTH)
    return fit_times(timed, regressor=better), errors if better else plain


def left_out_errors(timed: Sequence[Timed], *, regressor: bool = True) -> Array:
    """`|predicted / measured - 1|` of each product, by a model that was fitted to the products of other shapes.

    A random split would leave near neighbours of every product among those that are fitted, and flatter the model. A
    product of a kind that was timed at its shape alone is predicted by nothing, and its error is one.
    """
    shapes = sorted({each.product.shape for each in timed})
    if len(shapes) < 2:
        raise Refused("products of two shapes at least are needed, to predict one from the other")
    found = np.ones(len(timed))
    for shape in shapes:
        model = fit_times([each for each in timed if each.product.shape != shape], regressor=regressor)
        for i, each in enumerate(timed):
            if each.product.shape == shape and each.product.kind in model.rooflines:
                found[i] = abs(model.seconds(each.product) / each.seconds - 1)
    return found


def _roofline(timed: Sequence[Timed]) -> Roofline:
    flops = np.array([each.product.flops for each in timed])
    moved = np.array([each.product.moved for each in timed])
    seconds = np.array([each.seconds for each in timed])

    def parts(parameters: Array) -> Array:
        a, b, c = np.exp(parameters)
        compute, move = flops * a, moved * b
        return np.array([np.where(compute >= move, compute, 0.0), np.where(compute < move, move, 0.0), 0 * move + c])

    def residuals(parameters: Array) -> Array:
        return np.asarray(np.log(parts(parameters).sum(0)) - np.log(seconds), dtype=np.float64)

    def slopes(parameters: Array) -> Array:
        each = parts(parameters)
        return np.asarray((each / each.sum(0)).T, dtype=np.float64)

    best, least = np.zeros(3), np.inf
    for start in STARTS:
        first = np.log([np.median(seconds / flops), np.median(seconds / moved), start * seconds.min()])
        # Soft: a product that was timed while the machine did something else is not to bend the others' line.
        found = least_squares(residuals, first, slopes, loss="soft_l1", f_scale=0.2, max_nfev=STEPS)
        if found.cost < least:
            best, least = found.x, float(found.cost)
    a, b, c = np.exp(best)
    return Roofline(float(1 / a), float(1 / b), float(c))


def _regressor(timed: Sequence[Timed], roofline: Roofline) -> Regressor:
    x = np.array([each.product.features() for each in timed])
    y = np.log([each.seconds / roofline.seconds(each.product) for each in timed])
    centre, spread = x.mean(0), x.std(0)
    spread[spread < 1e-9] = np.inf
    z, constant = (x - centre) / spread, float(y.mean())
    weights = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (y - constant))
    return Regressor(centre, spread, weights, constant)
