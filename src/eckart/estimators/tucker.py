"""A tensor of any number of modes as a smaller one between orthonormal bases, NaN where it is not known."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np
import torch

from eckart.arrays import Array, Dense, back, number, whole
from eckart.errors import Refused
from eckart.estimators._tensors import opened
from eckart.estimators.contract import estimator
from eckart.linalg.observed_tensors import Entries, known_rows, spread_start, tucker_sweep
from eckart.linalg.solution import Solution
from eckart.linalg.tucker import orthogonal_iteration
from eckart.scikit.base import at_least_one
from eckart.scikit.planted import Planted

MOST = 1024
"""Entries of a core between factors of a tensor that is not whole: each sweep solves for all of them."""


class Tucker(NamedTuple):
    """core x_1 bases_1 x_2 bases_2 ...: core (r_1, ..., r_K) and orthonormal bases (n_k, r_k)."""

    core: Array
    bases: tuple[Array, ...]

    def dense(self) -> Array:
        """The tensor (n_1, ..., n_K)."""
        found = self.core
        for basis in self.bases:
            # The first mode goes to the back each time, so that all are in order at the end.
            found = (found.reshape(found.shape[0], -1).T @ basis.T).reshape(*found.shape[1:], len(basis))
        return found


def from_entries(
    entries: Entries, ranks: tuple[int, ...], *, damping: float, gain: float, max_iter: int
) -> tuple[Dense, list[Dense], list[float], bool]:
    """The best core and bases that sweeps over the entries meet; errors by sweeps, and whether they settled."""
    start = orthogonal_iteration(torch.from_numpy(spread_start(entries)), ranks, iterations=0)
    core, factors = start.core.numpy(), [u.numpy() for u in start.bases]
    best, least, history, settled = (core, factors), inf, list[float](), False
    whole = float(np.square(entries.values).sum())
    for _ in range(max_iter):
        core, factors, error = tucker_sweep(entries, core, factors, damping)
        history.append(error)
        gained = least - error
        if gained > 0:
            least, best = error, (core, factors)
        if gained <= gain * whole:
            settled = True
            break
    core, factors = best
    bases = list[Dense]()
    for mode, factor in enumerate(known_rows(entries, factors)):
        q, triangle = np.linalg.qr(factor)
        bases.append(q)
        core = np.moveaxis(np.tensordot(triangle, core, (1, mode)), 0, mode)
    return core, bases, history, settled


def _planted(rng: np.random.Generator) -> Planted:
    core, bases = rng.standard_normal((2, 2, 3)), [rng.standard_normal((n, r)) for n, r in ((9, 2), (8, 2), (7, 3))]
    truth = np.einsum("pqr,ap,bq,cr->abc", core, *bases)
    return Planted(
        {"tensor": np.where(rng.random(truth.shape) < 0.3, np.nan, truth), "ranks": (2, 2, 3)},
        lambda found: np.linalg.norm(found.value.dense() - truth) / np.linalg.norm(truth),
        1e-3,
    )


@estimator(
    "tucker",
    paper="De Lathauwer, De Moor and Vandewalle 2000; Vannieuwenhoven, Vandebril and Meerbergen 2012",
    kind="solver",
    gives="core and orthonormal bases",
    takes="tensors of two modes and more; NaN as missing",
    planted=_planted,
    expression="Tucker",
)
def core_and_bases(
    tensor: Array,
    ranks: int | Sequence[int],
    *,
    damping: float = 0.1,
    tolerance: float = 1e-8,
    max_iter: int = 200,
) -> Solution[Tucker]:
    """A tensor as a smaller one between orthonormal bases of its modes (Tucker), by orthogonal iteration.

    A whole tensor is first cut down mode by mode, each basis from the Gram matrix of what the ones before left
    (from singular vectors, where those of a squared matrix would be rounding), which is at most sqrt(K) from the best,
    and then iterated. Where entries are missing, the rows of the bases and the core are regressions on those that are
    known, in turn. A row without entries becomes the mean of the others.

    Args:
        tensor: (n_1, ..., n_K), NaN where it is not known.
        ranks: r_k of each mode, or one number for all, cut to the mode's size; none above the product of the others.
        damping: of tensors that are not whole: how strongly rows are held in a step, by the mean eigenvalue of their
            normal equations; little of it ends in a wrong form where nine tenths are missing.
        tolerance: of the fall of the squared error in a sweep, by the squared norm.
        max_iter: sweeps at most.

    Returns:
        Core and bases in the kind of the tensor; `history` has the relative error of the start and of each sweep (of
        sweeps alone, where entries are missing), `error` the best.

    Raises:
        Refused: the tensor is infinite somewhere or nowhere known, has one mode, or ranks do not fit.
    """
    at_least_one(max_iter=max_iter)
    held, seen, unit = opened(tensor)
    each: Any = ranks if isinstance(ranks, list | tuple | np.ndarray) else [ranks] * held.ndim
    given = tuple(int(r) for r in each if whole(r))
    if not isinstance(ranks, list | tuple | np.ndarray):
        given = tuple(min(r, n) for r, n in zip(given, held.shape, strict=False))
    fits = len(given) == len(each) == held.ndim and all(1 <= r <= n for r, n in zip(given, held.shape, strict=True))
    if not fits or any(r * r > prod(given) for r in given):
        raise Refused(
            f"ranks={ranks!r:.80} for {held.shape}: a whole number for each mode, 1 to its size, none above "
            "the product of the others"
        )
    if not 0 <= number(damping) < inf or not 0 <= number(tolerance) < inf:
        raise Refused(f"damping={damping!r:.40} and tolerance={tolerance!r:.40}: finite numbers, neither negative")
    size = float(np.square(held).sum())
    if seen.all() or not size:
        found = orthogonal_iteration(torch.from_numpy(held), given, iterations=max_iter, gain=tolerance)
        core, bases = found.core.numpy(), [u.numpy() for u in found.bases]
        history, settled = [size - energy for energy in found.energies], found.settled
    elif prod(given) > MOST:
        raise Refused(f"ranks={ranks!r}: with missing entries a core of {prod(given)} is more than {MOST}")
    else:
        entries = Entries(held.shape, np.nonzero(seen), held[seen])
        core, bases, history, settled = from_entries(entries, given, damping=damping, gain=tolerance, max_iter=max_iter)
    errors = tuple(float(np.sqrt(max(e, 0.0) / size)) if size else 0.0 for e in history)
    message = f"the relative error was {errors[-1]:.2e} in sweep {len(errors)}" + ("" if settled else ", still falling")
    value = Tucker(back(core * unit, tensor), tuple(back(u, tensor) for u in bases))
    return Solution(value, settled, len(errors), errors, message, error=min(errors))
