"""A tensor of any number of modes as a sum of outer products, NaN where it is not known."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
import torch

from eckart.arrays import Array, Dense, Seed, back, generator_of, number
from eckart.errors import Refused
from eckart.estimators._tensors import opened
from eckart.estimators.contract import estimator
from eckart.linalg.cp import STARTS, TRIAL, best_start, descend
from eckart.linalg.observed_tensors import Entries, cp_sweep, cp_sweep_of_the_whole, few_gaps, known_rows
from eckart.linalg.solution import Solution
from eckart.scikit.base import at_least_one
from eckart.scikit.planted import Planted


class OuterProducts(NamedTuple):
    """sum_r weights_r a_r x b_r x ...: weights (rank,), largest first, and factors (n_k, rank) of unit columns."""

    weights: Array
    factors: tuple[Array, ...]

    def dense(self) -> Array:
        """The tensor (n_1, ..., n_K)."""
        first, *others = self.factors
        found = first * self.weights
        for each in others:
            found = found[..., None, :] * each
        return found.sum(-1)


def from_entries(
    filled: Dense, seen: Dense, rank: int, *, damping: float, gain: float, max_iter: int, rng: np.random.Generator
) -> tuple[list[Dense], list[float], bool]:
    """The best factors of `STARTS` starts after `TRIAL` sweeps, carried on; errors by sweeps; whether it settled.

    Args:
        filled: the tensor, zero where it is not known.
        seen: where it is.
        rank: terms.
        damping: of a sweep.
        gain: fall of the squared error in a sweep, by the squared norm, at which it is enough.
        max_iter: sweeps.
        rng: of the starts.
    """
    entries = Entries(filled.shape, np.nonzero(seen), filled[seen])
    gaps = Entries(filled.shape, np.nonzero(~seen), np.zeros(seen.size - len(entries.values)))
    whole_too = few_gaps(gaps, damping)

    def sweep(factors: list[Dense]) -> tuple[list[Dense], float]:
        if whole_too:
            return cp_sweep_of_the_whole(filled, entries, gaps, factors, damping)
        return cp_sweep(entries, factors, damping)

    starts = []
    for _ in range(STARTS):
        factors, error = [rng.standard_normal((n, rank)) for n in entries.shape], inf
        for _ in range(TRIAL):
            factors, error = sweep(factors)
        starts.append((error, factors))
    least, best = min(starts, key=lambda found: found[0])
    factors, history, whole = best, list[float](), float(np.square(entries.values).sum())
    for _ in range(max_iter):
        factors, error = sweep(factors)
        history.append(error)
        gained = least - error
        if gained > 0:
            least, best = error, factors
        if gained <= gain * whole:
            return known_rows(entries, best), history, True
    return known_rows(entries, best), history, False


def _planted(rng: np.random.Generator) -> Planted:
    truth = np.einsum("ar,br,cr,dr->abcd", *(rng.standard_normal((n, 2)) for n in (6, 5, 4, 4)))
    return Planted(
        {"tensor": np.where(rng.random(truth.shape) < 0.3, np.nan, truth), "rank": 2},
        lambda found: np.linalg.norm(found.value.dense() - truth) / np.linalg.norm(truth),
        1e-3,
    )


@estimator(
    "cp",
    paper="Phan, Tichavsky and Cichocki 2013; Tomasi and Bro 2005",
    kind="solver",
    gives="weights and factors",
    takes="tensors of two modes and more; NaN as missing",
    planted=_planted,
    expression="CP",
)
def outer_products(
    tensor: Array,
    rank: int,
    *,
    damping: float = 1e-6,
    tolerance: float = 1e-8,
    max_iter: int = 500,
    generator: Seed = None,
) -> Solution[OuterProducts]:
    """A tensor as the nearest sum of so many outer products that alternating least squares finds (CP, PARAFAC).

    Each factor in turn is the best one for the others. A whole tensor is read twice in a sweep, however many modes it
    has (a tree over the modes), with the iterates of plain sweeps. With missing entries each row of a factor is a
    regression on the entries that its index has, in nnz rank^2 (or, where little is missing, in what is missing times
    rank^2), instead of filling in what the last sweep said of them, which needs the more sweeps the more is missing. A
    row without entries becomes the mean of the others.

    The best sum may not exist: terms that grow against each other then, which `damping` slows down.

    Args:
        tensor: (n_1, ..., n_K), NaN where it is not known.
        rank: terms, at least 1.
        damping: how strongly a factor is held where it is in a step, by the mean eigenvalue of its normal equations.
        tolerance: of the fall of the squared error in a sweep, by the squared norm.
        max_iter: sweeps at most.
        generator: of the starts; the best of three after five sweeps is carried on.

    Returns:
        The sum in the kind of the tensor; `history` has the relative error sweep by sweep, `error` the best.

    Raises:
        Refused: the tensor is infinite somewhere or nowhere known, has one mode, or an argument is out of its range.
    """
    at_least_one(rank=rank, max_iter=max_iter)
    if not 0 <= number(damping) < inf or not 0 <= number(tolerance) < inf:
        raise Refused(f"damping={damping!r:.40} and tolerance={tolerance!r:.40}: finite numbers, neither negative")
    held, seen, unit = opened(tensor)
    rng = generator_of(generator)
    if not held.any():
        factors = [np.full((n, rank), n**-0.5) for n in held.shape]
        value = OuterProducts(back(np.zeros(rank), tensor), tuple(back(f, tensor) for f in factors))
        return Solution(value, True, 0, (), "what is known is zero", error=0.0)
    if seen.all():
        whole, draws = torch.from_numpy(held), torch.Generator().manual_seed(int(rng.integers(2**62)))
        start = best_start(whole, rank, draws, damping)
        found = descend(whole, start, max_iter, damping=damping, gain=tolerance)
        factors, history, settled = [f.numpy() for f in found.factors], found.history, found.settled
    else:
        factors, history, settled = from_entries(
            held, seen, rank, damping=damping, gain=tolerance, max_iter=max_iter, rng=rng
        )
    size = float(np.square(held).sum())
    errors = tuple(float(np.sqrt(max(e, 0.0) / size)) for e in history)
    norms = np.array([np.linalg.norm(f, axis=0) for f in factors])
    weights = norms.prod(axis=0)
    order = np.argsort(-weights, kind="stable")
    unit_columns = [f / np.where(n > 0, n, 1.0) for f, n in zip(factors, norms, strict=True)]
    value = OuterProducts(back(weights[order] * unit, tensor), tuple(back(f[:, order], tensor) for f in unit_columns))
    message = f"the relative error was {errors[-1]:.2e} in sweep {len(errors)}" + ("" if settled else ", still falling")
    return Solution(value, settled, len(errors), errors, message, error=min(errors))
