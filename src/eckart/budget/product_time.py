"""How long a matrix product takes, from what it computes and what it reads: a model fitted to one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

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
STEPS = 50
"""Of a search at most."""
OFF = 0.2
"""Relative errors beyond this count as they are, and not squared: a product that was timed while the machine did
something else is not to bend the others' line."""
ROUNDS = 10
"""In which errors are weighed by how large they were in the round before."""


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
        """What a regressor looks at."""
        density = self.macs / (self.rows * self.columns)
        return [np.log(self.rows), np.log(self.columns), np.log(self.tokens), np.log(max(density, 1e-6))]

    def work(self) -> Array:
        """What the sums are of: the call; multiply-adds for one vector and for all, of what is computed and of all
        entries; bytes of the matrix, and numbers of inputs and outputs."""
        entries = float(self.rows * self.columns)
        outside = float(self.tokens * (self.rows + self.columns))
        return np.array(
            [1.0, self.macs, self.macs * self.tokens, entries, entries * self.tokens, self.bytes, outside], np.float64
        )


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
class Regressed:
    """A roofline, and a ridge regression of the logarithm of measured over predicted seconds."""

    roofline: Roofline
    centre: Array
    spread: Array
    weights: Array
    constant: float

    def seconds(self, product: Product) -> float:
        x = (np.array(product.features()) - self.centre) / self.spread
        factor = float(np.exp(np.clip(self.constant + x @ self.weights, -np.log(FARTHEST), np.log(FARTHEST))))
        return factor * self.roofline.seconds(product)


@dataclass(frozen=True)
class Sums:
    """Seconds are a sum of what a product does, at a price each that is not below zero; see `Product.work`.

    Unlike a roofline it knows that a matrix which is decoded costs once for all of its entries and then as much as a
    dense one for each vector.

    Attributes:
        prices: seconds for one of each.
    """

    prices: Array

    def seconds(self, product: Product) -> float:
        return float(self.prices @ product.work())


class Form(Protocol):
    """What predicts the products of one kind."""

    def seconds(self, product: Product) -> float:
        """Of a product."""


@dataclass(frozen=True)
class TimeModel:
    """Seconds of products, by the kind of structure."""

    kinds: Mapping[str, Form]

    def seconds(self, product: Product) -> float:
        """Refused where no product of the kind was timed."""
        if product.kind not in self.kinds:
            raise Refused(f"no product of kind {product.kind!r} was timed; there are {', '.join(self.kinds)}")
        return self.kinds[product.kind].seconds(product)


def fit_times(timed: Sequence[Timed], form: str | Mapping[str, str] = "sums") -> TimeModel:
    """A model of each kind, fitted to its timings.

    Args:
        timed: products.
        form: one of `FORMS`, for all kinds or for each.

    Raises:
        Refused: nothing was timed, or a time is not positive and finite.
    """
    if not timed or not all(0 < each.seconds < np.inf for each in timed):
        raise Refused("a model of time needs products with positive, finite seconds")
    kinds: dict[str, list[Timed]] = {}
    for each in timed:
        kinds.setdefault(each.product.kind, []).append(each)
    return TimeModel({kind: FORMS[form if isinstance(form, str) else form[kind]](own) for kind, own in kinds.items()})


def chosen_times(timed: Sequence[Timed]) -> tuple[TimeModel, dict[str, Array]]:
    """`fit_times`, of each kind in the form by which shapes that were left out are predicted best.

    Returns:
        The model, and `left_out_errors` of each form, and of the chosen ones as "chosen".
    """
    errors = {form: left_out_errors(timed, form) for form in FORMS}
    own = np.array([each.product.kind for each in timed])
    best = {
        str(kind): min(FORMS, key=lambda form, kind=kind: float(errors[form][own == kind].mean()))  # type: ignore[misc]
        for kind in np.unique(own)
    }
    chosen = np.array([errors[best[kind]][i] for i, kind in enumerate(own)])
    return fit_times(timed, best), {**errors, "chosen": chosen}


def left_out_errors(timed: Sequence[Timed], form: str = "sums") -> Array:
    """`|predicted / measured - 1|` of each product, by a model that was fitted to the products of other shapes.

    A random split would leave near neighbours of every product among those that are fitted, and flatter the model. A
    product of a kind that was timed at its shape alone is predicted by nothing, and its error is one.
    """
    shapes = sorted({each.product.shape for each in timed})
    if len(shapes) < 2:
        raise Refused("products of two shapes at least are needed, to predict one from the other")
    found = np.ones(len(timed))
    for shape in shapes:
        model = fit_times([each for each in timed if each.product.shape != shape], form)
        for i, each in enumerate(timed):
            if each.product.shape == shape and each.product.kind in model.kinds:
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
        found = least_squares(residuals, first, slopes, loss="soft_l1", f_scale=OFF, max_nfev=STEPS)
        if found.cost < least:
            best, least = found.x, float(found.cost)
    a, b, c = np.exp(best)
    return Roofline(float(1 / a), float(1 / b), float(c))


def _regressed(timed: Sequence[Timed]) -> Regressed:
    roofline = _roofline(timed)
    x = np.array([each.product.features() for each in timed])
    y = np.log([each.seconds / roofline.seconds(each.product) for each in timed])
    centre, spread = x.mean(0), x.std(0)
    spread[spread < 1e-9] = np.inf
    z, constant = (x - centre) / spread, float(y.mean())
    weights = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (y - constant))
    return Regressed(roofline, centre, spread, weights, constant)


def _sums(timed: Sequence[Timed]) -> Sums:
    """Non-negative least squares of relative errors, those beyond `OFF` by their size (Huber)."""
    relative = np.array([each.product.work() / each.seconds for each in timed])
    scale = relative.max(0)
    weights = np.ones(len(timed))
    prices = np.zeros(len(scale))
    for _ in range(ROUNDS):
        prices, _ = nnls(relative / scale * weights[:, None], weights)
        off = np.abs(relative / scale @ prices - 1)
        weights = np.sqrt(OFF / np.maximum(off, OFF))
    return Sums(prices / scale)


FORMS: dict[str, Callable[[Sequence[Timed]], Form]] = {"roofline": _roofline, "regressed": _regressed, "sums": _sums}
"""What fits a model to the products of one kind."""
