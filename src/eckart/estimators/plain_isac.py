"""Paths of radio waves as sums of complex exponentials in several dimensions, from one tensor of measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eckart.arrays import Array, Dense, back, dense, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.linalg.exponentials import exponentials, fit_exponentials, strongest_left
from eckart.linalg.mode_products import mode_products, outer, unfold
from eckart.linalg.root_music import forward_backward, mdl_order, root_music
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted


class Harmonics(NamedTuple):
    """h[i, j, ...] = sum_p amplitudes[p] exp(i (w_p1 i + w_p2 j + ...)): frequencies w (P, M), radians a sample."""

    frequencies: Array
    amplitudes: Array


NOTHING = 1e-10
"""Of the largest amplitude: what is no path."""


def compressed(tensor: Dense, deltas: Sequence[int]) -> Dense:
    """Means over blocks of delta_m in each mode m; what does not fill a block is left out."""
    for mode, delta in enumerate(deltas):
        moved = np.moveaxis(tensor, mode, 0)
        blocks = len(moved) // delta
        tensor = np.moveaxis(moved[: blocks * delta].reshape(blocks, delta, *moved.shape[1:]).mean(axis=1), 0, mode)
    return tensor


def candidates(tensor: Dense, mode: int, most: int | None) -> Dense:
    """Frequencies in a mode, all others taken for snapshots; of a vector, its parts of two thirds of the length.

    Args:
        tensor: (n_1, ..., n_M).
        mode: which.
        most: signals that are looked for; None for as many as `mdl_order` says.
    """
    flat = unfold(tensor, mode)
    if tensor.ndim == 1:
        flat = np.lib.stride_tricks.sliding_window_view(flat[:, 0], -(-2 * len(flat) // 3)).T
    covariance = forward_backward(flat @ flat.conj().T)
    values = np.linalg.eigvalsh(covariance)
    count = mdl_order(values, flat.shape[1]) if most is None else most
    return root_music(covariance, min(count, len(covariance) - 1))


def description(rest: float, total: float, count: int, tensor: Dense) -> float:
    """The length of a model of so many terms: N log(rest/total) + (M + 2) log(N) for each, rest down to rounding."""
    n = tensor.size
    return float(n * np.log(max(rest / total, 1e-15)) + count * (tensor.ndim + 2) * np.log(n))


def matched(tensor: Dense, grids: Sequence[Dense], count: int | None) -> Dense:
    """The frequencies (P, M) of the terms that explain a tensor best, of all combinations of candidates.

    Greedy: the term most like the rest is added, and the amplitudes of all are fitted anew. All of this is in products
    with the candidates, a small tensor. Without a count the `description` decides.

    Args:
        tensor: (n_1, ..., n_M).
        grids: candidates of each mode.
        count: P; None for the best.
    """
    waves = [exponentials(w, n) for w, n in zip(grids, tensor.shape, strict=True)]
    products = mode_products(tensor, [a.conj().T for a in waves])
    grams = [a.conj().T @ a for a in waves]
    total = float(np.square(np.abs(tensor)).sum())
    chosen, best, least = list[int](), list[int](), description(total, total, 0, tensor)
    left, places = products, np.array(np.unravel_index(np.arange(products.size), products.shape))
    for _ in range(products.size if count is None else min(count, products.size)):
        order = np.abs(left).ravel()
        order[chosen] = -1.0
        chosen.append(int(np.argmax(order)))
        at = places[:, chosen]
        gram = np.prod([g[np.ix_(i, i)] for g, i in zip(grams, at, strict=True)], axis=0)
        amplitudes = np.linalg.lstsq(gram, products.ravel()[chosen], rcond=1e-10)[0]
        each = [g[:, i] for g, i in zip(grams, at, strict=True)]
        left = products - sum(c * outer([g[:, p] for g in each]) for p, c in enumerate(amplitudes))
        rest = total - float((amplitudes.conj() @ products.ravel()[chosen]).real)
        length = description(rest, total, len(chosen), tensor)
        if count is None and length >= least:
            break
        best, least = list(chosen), length
    return np.stack([w[i] for w, i in zip(grids, places[:, best], strict=True)], axis=1)


def doubtful(frequencies: Dense, amplitudes: Dense, shape: Sequence[int]) -> set[int]:
    """Paths that may be none: the weakest one, and the weaker of the nearest two, in cells of 2 pi / n_m."""
    turns = np.exp(1j * frequencies)
    cells = np.abs(np.angle(turns[:, None] * turns.conj())) * np.array(shape) / (2 * np.pi)
    apart = cells.max(axis=2) + np.diag(np.full(len(turns), np.inf))
    pair = np.unravel_index(int(np.argmin(apart)), apart.shape)
    strengths = np.abs(amplitudes)
    return {int(np.argmin(strengths)), int(min(pair, key=lambda p: strengths[p]))}


def _planted(rng: np.random.Generator) -> Planted:
    w = np.array([[0.3, -0.6], [-0.4, 0.2]]) + rng.uniform(-0.05, 0.05, (2, 2))
    c = np.array([1.0, 0.6]) * np.exp(2j * np.pi * rng.random(2))
    tensor = np.einsum("ap,bp,p->ab", exponentials(w[:, 0], 16), exponentials(w[:, 1], 24), c)
    noise = rng.standard_normal((2, 16, 24))
    return Planted(
        {"tensor": tensor + 0.01 * (noise[0] + 1j * noise[1]), "deltas": (1, 2)},
        lambda found: np.abs(found.value.frequencies - w).max() if found.value.frequencies.shape == w.shape else np.inf,
        1e-3,
    )


@estimator(
    "plain-isac",
    paper="Tahir, Schwarz and Rupp 2025, arXiv 2503.21242",
    kind="solver",
    gives="frequencies in all modes, paired, and amplitudes",
    takes="complex data",
    planted=_planted,
    expression="Sum(Kronecker, ...)",
)
def harmonics(
    tensor: Array, deltas: Sequence[int] | None = None, n_paths: int | None = None, *, refine: bool = True
) -> Solution[Harmonics]:
    """Complex exponentials in M dimensions, from one tensor: h = sum_p c_p a(w_p1) x a(w_p2) x ... + noise.

    As the paper does it: each mode is compressed (`compressed`); its frequencies are found apart from the others' by
    root-MUSIC (`candidates`); and combinations of them are matched to the tensor (`matched`). The order comes from the
    minimum description length, as AIC counts too many, and amplitudes are fitted to the terms that were picked only. At
    last all frequencies are fitted (`fit_exponentials`) together on the tensor as it came, to the Cramér-Rao bound.

    Means over delta entries see |w| < pi / delta only: what lies beyond appears elsewhere, or not at all. A peak that
    stays in the rest of the whole tensor is said in `message`, and `converged` is False.

    Args:
        tensor: (n_1, ..., n_M), complex, M from 1 to 8.
        deltas: entries of a block in each mode; 1 in all where None.
        n_paths: P; None to estimate it. Where fewer are found, `message` says so and `converged` is False.
        refine: whether the last step is taken; else frequencies are what root-MUSIC said.

    Returns:
        Frequencies and amplitudes, the strongest first; `error` the frequencies' standard errors (P, M), `history` the
        share of the tensor's energy that is left.

    Raises:
        Refused: deltas leave less than three blocks of a mode, or n_paths is not positive.
    """
    given = dense(tensor, "the tensor", ndim=None, complex_too=True).astype(complex)
    blocks = (1,) * given.ndim if deltas is None else tuple(deltas)
    if not 1 <= given.ndim <= 8 or len(blocks) != given.ndim or not all(d >= 1 for d in blocks):
        raise Refused(
            f"deltas={deltas} for a tensor of {given.shape}: a whole number for each of 1 to 8 modes is needed"
        )
    if any(n // d < 3 for n, d in zip(given.shape, blocks, strict=True)):
        raise Refused(f"deltas={blocks} leave less than three blocks in a mode of {given.shape}: take smaller ones")
    if n_paths is not None and n_paths < 1:
        raise Refused(f"n_paths={n_paths} must be positive; None for an estimate")
    size = power_of_two(given)
    given = given / size
    small = compressed(given, blocks)
    grids = [candidates(small, mode, n_paths) for mode in range(given.ndim)]
    total = float(np.square(np.abs(given)).sum())
    if not all(len(grid) for grid in grids) or not total > 0:
        none = Harmonics(back(np.zeros((0, given.ndim)), tensor), back(np.zeros(0, complex), tensor))
        return Solution(
            none, n_paths is None, 1, (1.0,), "nothing but noise was found", error=np.zeros((0, given.ndim))
        )
    picked = matched(small, grids, n_paths) / np.array(blocks)
    steps = 30 if refine else 0
    w, c, errors, rest = fit_exponentials(given, picked, steps=steps)
    while n_paths is None and len(c) > 1:  # errors of root-MUSIC look like further paths, until they are mended
        trials = [fit_exponentials(given, np.delete(w, p, axis=0), steps=steps) for p in doubtful(w, c, given.shape)]
        fewer = min(trials, key=lambda fit: fit[3])
        if description(fewer[3], total, len(c) - 1, given) >= description(rest, total, len(c), given):
            break
        w, c, errors, rest = fewer
    there = np.abs(c) > NOTHING * np.abs(c).max()
    w, c, errors = w[there], c[there], errors[there]
    order = np.argsort(-np.abs(c), kind="stable")
    w, c, errors = np.angle(np.exp(1j * w[order])), c[order], errors[order]
    peak, height = strongest_left(given, w, c)
    left = rest / total
    # White noise passes this once in a thousand times.
    hidden = height > np.log(given.size) + np.log(1000) and left > 1e-12
    missing = n_paths is not None and len(c) < n_paths
    message = f"{len(c)} paths{f' of {n_paths}' if missing else ''}, {left:.1e} of the energy is left"
    if hidden:
        beyond = np.abs(peak) >= np.pi / np.array(blocks)
        message += f"; a peak at {np.round(peak, 3).tolist()} was not found"
        message += f", beyond what deltas={blocks} let through: take smaller ones" if beyond.any() else ""
    value = Harmonics(back(w, tensor), back(c * size, tensor))
    return Solution(value, not hidden and not missing, 1, (left,), message, error=errors)
