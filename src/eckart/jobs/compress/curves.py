"""What a group of matrices offers: candidates with their costs and errors, and without their factors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eckart.budget import Candidates
from eckart.compressors.contract import CompressorCard, Family, JointFamily, Members, lazy, members
from eckart.errors import Refused
from eckart.structures import Cost

FAILED = "fit failed"
"""How the reason of a matrix begins that stays dense because it could not be fitted."""

CHEAPER = 1e-3
"""By how much the dense matrix is worse than one that costs nothing, where no error of either counts."""


@dataclass
class Curve:
    """The candidates of one group without their factors.

    Attributes:
        members: of each candidate, the method it is from and its size there.
        sizes: of the candidates, see `eckart.SIZES`; the dense matrix, size None, comes last.
        costs: of each.
        errors: squared error of each in the method's metric; 0 for the dense matrix. None where they would cost a fit
            each and the allocation does not ask.
        zero_error: squared error of the zero matrix, what the errors are relative to.
        spectrum: squared singular values in the metric, descending, where the method knows them.
        reason: why the dense matrix is all there is, or "".
        known: errors by size as far as they were measured, the others being estimates; None where all were.
    """

    members: list[tuple[str, int]]
    sizes: list[int | None]
    costs: list[Cost]
    errors: list[float] | None
    zero_error: float = 0.0
    spectrum: Tensor | None = None
    reason: str = ""
    known: dict[int, float] | None = None

    @property
    def failed(self) -> bool:
        """Whether the fit did not succeed."""
        return self.reason.startswith(FAILED)

    def enter(self, known: Mapping[int, float], errors: Sequence[float], factors: Mapping[str, float]) -> None:
        """Enters errors by size as far as they are known now, and estimates of all, each times its method's factor."""
        self.known = dict(known)
        of_each = zip(errors, self.members, strict=True)
        self.errors = [error * factors.get(name, 1.0) for error, (name, _) in of_each] + [0.0]

    def scale(self, factors: Mapping[str, float]) -> None:
        """Multiplies the errors of the candidates of methods by their factors; zero stays zero."""
        if self.errors is not None:
            errors = zip(self.members, self.errors, strict=False)
            self.errors = [error * factors.get(name, 1.0) for (name, _), error in errors] + self.errors[-1:]

    def candidates(
        self, prices: NDArray[np.float64], only: Sequence[int], weight: float = 1.0, negligible: float = 0.0
    ) -> Candidates:
        """What the solver sees of some candidates, at the prices of all, their errors times a weight.

        Errors that were not measured are zero. Of those below `negligible` the cheapest is the best.
        """
        costs = prices[list(only)]
        if self.errors is None:
            return Candidates(costs, np.zeros(len(costs)))
        errors = weight * np.array([max(0.0, self.errors[i]) for i in only])
        errors = np.maximum(errors, negligible * (1 + CHEAPER * costs / max(prices[-1], 1e-300)))
        slope = max(0.0, weight * self.zero_error - float(errors[0])) / max(costs[0], 1e-12 * prices[-1])
        return Candidates(costs, errors, slope)


def dense_cost(weights: Sequence[Tensor]) -> Cost:
    each = [Cost(w.numel(), w.numel() * w.element_size(), w.numel()) for w in weights]
    return sum(each[1:], each[0])


def not_fitted(weights: Sequence[Tensor], reason: str) -> Curve:
    """The curve of matrices that stay dense because they could not be fitted."""
    return Curve([], [None], [dense_cost(weights)], [0.0], reason=f"{FAILED}: {reason}")


_LinAlgError: type[Exception] = getattr(torch.linalg, "LinAlgError")  # noqa: B009  (not in its stubs)


def fit_or_reason(
    method: CompressorCard, kind: str, together: Members, errors: bool = True
) -> tuple[Family | JointFamily | None, Curve]:
    """Candidates of one group, or None and a curve that says why there are none."""
    dense = dense_cost(together.weights)
    try:
        family = method.candidates(kind, together)
        return family, curve_of(method, family, dense, errors or not of_one_method(family, method))
    except (Refused, _LinAlgError) as error:
        return None, not_fitted(together.weights, str(error))


def of_one_method(family: Family | JointFamily, method: CompressorCard) -> bool:
    """Whether its candidates are fitted one by one, and are all of the method itself."""
    return lazy(family) and {name for name, _ in members(family, method)} <= {method.name}


def curve_of(method: CompressorCard, family: Family | JointFamily, dense: Cost, with_errors: bool = True) -> Curve:
    """What is known of a family before anything is built, the dense matrix added."""
    sizes: list[int | None] = [*family.sizes]
    errors, known = None, None
    if with_errors:
        errors = [*map(float, family.estimates() if lazy(family) else family.errors), 0.0]
        known = dict(family.known) if lazy(family) else None
    reason = "" if sizes else "no size pays"
    if unheld := getattr(family, "unheld", ""):
        reason = f"{FAILED}: {unheld}"
    if not all(map(math.isfinite, (*(errors or ()), family.zero_error))):
        raise Refused("squared errors are not finite: the matrix or its statistics are too large")
    spectrum = getattr(family, "spectrum", None)
    return Curve(
        members(family, method),
        [*sizes, None],
        [*family.costs, dense],
        errors,
        family.zero_error,
        spectrum,
        reason,
        known,
    )


def measured(
    method: CompressorCard,
    kind: str,
    together: Members,
    family: Family | JointFamily | None,
    known: Mapping[int, float],
    size: int,
) -> tuple[dict[int, float], list[float]]:
    """Measures one size of a lazy family; returns all errors that are known then, and an error for every size.

    Args:
        method: of the family.
        kind: of the group it is fitted to.
        together: the group.
        family: None where it was not kept, and is to be fitted again.
        known: errors by size, measured before.
        size: what is measured.
    """
    family = method.candidates(kind, together) if family is None else family
    if not lazy(family):
        raise TypeError(f"the errors of {method.name} cannot be measured one by one")
    family.known |= known
    family.measure(size)
    return dict(family.known), family.estimates().tolist()
