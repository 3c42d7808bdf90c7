"""The Walsh-Hadamard transform of a function that has few coefficients, from few of its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eckart.arrays import Dense, Seed, dense, generator_of
from eckart.errors import Refused
from eckart.linalg.hadamard import walsh_hadamard
from eckart.linalg.solution import Solution
from eckart.scikit.planted import Planted
from eckart.sketching.contract import sketch

_ALL = 20
"""Bits up to which all values may be asked for instead."""


@dataclass(frozen=True)
class Spectrum:
    """f(x) ~ sum_k F_k (-1)^(k.x).

    Attributes:
        index: k (K, n), 0 or 1, uint8.
        coefficients: F (K,), the largest first.
    """

    index: Dense
    coefficients: Dense

    def predict(self, x: Dense) -> Dense:
        """The values at x (s, n), 0 or 1."""
        found: Dense = (1.0 - 2.0 * (np.asarray(x, np.int64) @ self.index.T.astype(np.int64) % 2)) @ self.coefficients
        return found


def gf2_rank(a: Dense) -> int:
    """The rank of a matrix of bits over the field of two elements."""
    a, rank = np.array(a, dtype=bool), 0
    for column in range(a.shape[1]):
        pivots = np.flatnonzero(a[rank:, column])
        if len(pivots):
            a[[rank, rank + pivots[0]]] = a[[rank + pivots[0], rank]]
            others = np.flatnonzero(a[:, column])
            a[others[others != rank]] ^= a[rank]
            rank += 1
            if rank == len(a):
                break
    return rank


def _bits(count: int) -> Dense:
    """All numbers below 2^count as bits, the lowest first (2^count, count)."""
    return (np.arange(1 << count)[:, None] >> np.arange(count)) & 1


def _sparse_function(generator: np.random.Generator) -> dict[str, Any]:
    """A function of 12 bits with 4 coefficients."""
    index, values = generator.integers(0, 2, (4, 12)), generator.choice([-2.0, -1.0, 1.0, 2.0], 4)
    return {"f": Spectrum(index.astype(np.uint8), values).predict, "n": 12, "sparsity": 4}


def _all_values(rng: np.random.Generator) -> Planted:
    """Few bits: all values are asked for, and the transform is the whole one."""
    values = rng.standard_normal(16)
    exact = walsh_hadamard(values) / 4

    def error(found: Solution[Spectrum]) -> float:
        place = found.value.index.astype(int) @ (1 << np.arange(4))
        return float(np.abs(np.bincount(place, found.value.coefficients, 16) - exact).max() + (found.calls != 16))

    return Planted({"f": lambda x: values[x.astype(int) @ (1 << np.arange(4))], "n": 4, "sparsity": 16}, error, 1e-10)


@sketch(
    "spright",
    paper="Li, Bradley, Pawar and Ramchandran 2015, arXiv 1508.06336",
    gives="the coefficients, where they are, and `predict`",
    error="exact without noise up to chance where there are at most `sparsity` coefficients; what is left is stated",
    problem=_sparse_function,
    limit=_all_values,
)
def sparse_hadamard(
    f: Callable[[Dense], Any],
    n: int,
    sparsity: int,
    *,
    groups: int = 4,
    repetitions: int = 1,
    noise: float | None = None,
    generator: Seed = None,
) -> Solution[Spectrum]:
    """Finds the coefficients of f on n bits by aliasing them into few bins, in several ways, and peeling.

    In each group f is asked on 2^b points M l + d: a small transform over l sums all F_k with M^T k = j into bin j,
    with signs (-1)^(k.d). A bin with one coefficient tells its k bit by bit, from signs with and without that bit in d,
    by a majority over random d; it is then taken off all groups. Where as many values are asked for as there are, all
    are, for n up to 20.

    Args:
        f: bits (s, n), 0 or 1 -> values (s,).
        n: bits.
        sparsity: K, coefficients that are expected.
        groups: ways of aliasing.
        repetitions: random offsets d for each bit; more against noise.
        noise: the standard deviation of the noise of f; estimated from the emptiest bins where None.
        generator: of M and d.

    Returns:
        The spectrum; `calls` the values that were asked for, `error` the root of the energy left in the bins over that
        at the start, `converged` whether that is no more than noise.
    """
    if n < 1 or sparsity < 1 or groups < 1 or repetitions < 1 or (noise is not None and noise < 0):
        raise Refused(f"n={n}, sparsity={sparsity}, groups={groups}, repetitions={repetitions}, noise={noise}")
    b = min(n, max(1, int(np.ceil(np.log2(sparsity)))))
    rng, size, each = generator_of(generator), 1 << b, repetitions * (n + 1)
    calls = groups * size * each
    if n <= _ALL and calls >= 1 << n:
        return _whole(f, n, sparsity)
    maps, offsets, bins = [], [], []
    for _ in range(groups):
        m = rng.integers(0, 2, (n, b))
        while gf2_rank(m) < b:
            m = rng.integers(0, 2, (n, b))
        base = rng.integers(0, 2, (repetitions, 1, n))
        flips = np.concatenate([np.zeros((1, n), np.int64), np.eye(n, dtype=np.int64)])
        d = (base ^ flips).reshape(-1, n)
        points = (_bits(b) @ m.T % 2)[:, None] ^ d
        values = _asked(f, points.reshape(-1, n)).reshape(size, each)
        maps.append(m)
        offsets.append(d)
        bins.append(walsh_hadamard(values) / size**0.5)
    energy = np.concatenate([np.square(u).mean(1) for u in bins])
    floor = float(np.quantile(energy, 0.1)) if noise is None else noise**2 / size
    # Energies are means over offsets: beyond this no empty bin comes, but for one in a thousand.
    level = floor * (1 + 4 * (2 / each) ** 0.5) + 1e-20 * float(energy.max())
    found = _peeled(bins, maps, offsets, level, repetitions, 10 * sparsity)
    left = np.concatenate([np.square(u).mean(1) for u in bins])
    kept = sorted(((k, v) for k, v in found.items() if v), key=lambda pair: -abs(pair[1]))
    index = np.array([np.frombuffer(k, np.uint8) for k, _ in kept], np.uint8).reshape(-1, n)
    spectrum = Spectrum(index, np.array([v for _, v in kept]))
    error = float((left.sum() / energy.sum()) ** 0.5) if energy.sum() > 0 else 0.0
    done = bool((left <= level).all())
    text = f"{len(kept)} coefficients from {calls} values" + (
        "" if done else "; some bins hold several, or more than noise"
    )
    return Solution(spectrum, done, len(kept), calls=calls, error=error, message=text)


def _peeled(
    bins: list[Dense], maps: list[Dense], offsets: list[Dense], level: float, repetitions: int, most: int
) -> dict[bytes, float]:
    """The coefficients that bins with one of them tell, each taken off all bins at once."""
    n, found = maps[0].shape[0], dict[bytes, float]()
    weights = 1 << np.arange(maps[0].shape[1])
    for _ in range(most):
        before = len(found)
        for m, d, u in zip(maps, offsets, bins, strict=True):
            for j in np.flatnonzero(np.square(u).mean(1) > level):
                signs = (u[j] < 0).reshape(repetitions, n + 1)
                k = ((signs[:, 1:] ^ signs[:, :1]).sum(0) * 2 > repetitions).astype(np.int64)
                if (k @ m % 2) @ weights != j:
                    continue
                character = 1.0 - 2.0 * (d @ k % 2)
                value = float(character @ u[j]) / len(d)
                if np.square(u[j] - value * character).mean() > level + 1e-18 * value**2:
                    continue
                key = k.astype(np.uint8).tobytes()
                found[key] = found.get(key, 0.0) + value
                for other, at, held in zip(maps, offsets, bins, strict=True):
                    held[(k @ other % 2) @ weights] -= value * (1.0 - 2.0 * (at @ k % 2))
        if len(found) == before:
            break
    for key in found:  # what all groups say of a coefficient, where one has told it
        k = np.frombuffer(key, np.uint8).astype(np.int64)
        rest = [
            (1.0 - 2.0 * (at @ k % 2)) @ held[(k @ m % 2) @ weights] / len(at)
            for m, at, held in zip(maps, offsets, bins, strict=True)
        ]
        found[key] += float(np.median(rest))
    return found


def _asked(f: Callable[[Dense], Any], points: Dense) -> Dense:
    values = dense(f(points.astype(np.uint8)), "f", ndim=None)
    if values.shape != (len(points),):
        raise Refused(f"f gave values of shape {values.shape} for {len(points)} points: one each is needed")
    return values


def _whole(f: Callable[[Dense], Any], n: int, sparsity: int) -> Solution[Spectrum]:
    points = _bits(n)
    values = _asked(f, points)
    spectrum = walsh_hadamard(values) / len(values) ** 0.5
    order = np.argsort(-np.abs(spectrum), kind="stable")[:sparsity]
    order = order[np.abs(spectrum[order]) > 1e-12 * np.abs(spectrum).max()]
    left = np.square(spectrum).sum() - np.square(spectrum[order]).sum()
    error = float(np.sqrt(max(left, 0) / max(np.square(spectrum).sum(), 1e-300)))
    return Solution(
        Spectrum(points[order].astype(np.uint8), spectrum[order]),
        True,
        1,
        calls=len(values),
        error=error,
        message="all values",
    )
