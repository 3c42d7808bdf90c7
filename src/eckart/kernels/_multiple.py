"""Sums of waves as kernels: their features, and the evidence of their weights from the features' moments."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotri

from eckart.arrays import Dense, dense
from eckart.errors import Refused

MOST = 12000
"""Features; their square is stored."""

FLOOR = 1e-8
"""Of the targets' variance: the least noise."""


@dataclass(frozen=True)
class Waves:
    """Frequencies (m, d) in cycles, the share of each, and the component (m,) to which it belongs."""

    frequencies: Dense
    shares: Dense
    groups: Dense

    def features(self, x: Dense) -> Dense:
        """Phi (n, 2 m): cosines and sines, whose products, summed within a component, are its kernel."""
        angle = 2 * np.pi * x @ self.frequencies.T
        found: Dense = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) * np.sqrt(np.tile(self.shares, 2))
        return found


def waves(means: Dense, width: float, *, joint: bool) -> Waves:
    """Components prod_p exp(-2 pi^2 width^2 t_p^2) cos(2 pi mu_p t_p), or cos(2 pi mu . t) where `joint`.

    A product of cosines is the mean of cosines over the signs of its frequencies, and what fades is the mean over
    frequencies at the three nodes of Gauss and Hermite: 2 times 2^(d - 1) times 3^d features, the width being above 0.

    Args:
        means: mu (components, d).
        width: of the Gaussians, in cycles.
        joint: whether the signs are as given.
    """
    d = means.shape[1]
    signs = [np.ones(d)] if joint else [np.array((1, *rest)) for rest in product((1, -1), repeat=d - 1)]
    nodes = [(0.0, 1.0)] if width == 0 else [(-(3**0.5), 1 / 6), (0.0, 2 / 3), (3**0.5, 1 / 6)]
    frequencies, shares = [], []
    for sign, node in product(signs, product(nodes, repeat=d)):
        frequencies.append(sign * means + width * np.array([place for place, _ in node]))
        shares.append(np.full(len(means), np.prod([share for _, share in node]) / len(signs)))
    groups = np.tile(np.arange(len(means)), len(shares))
    return Waves(np.concatenate(frequencies), np.concatenate(shares), groups)


@dataclass(frozen=True)
class Moments:
    """What the evidence needs of data: Phi^T Phi, Phi^T y, y^T y, how many they are, and each feature's component."""

    gram: Dense
    moment: Dense
    energy: float
    count: int
    groups: Dense


def moments(part: tuple[Dense, Dense], spectrum: Waves) -> Moments:
    """Of a part (x, y)."""
    x, y = part
    phi = spectrum.features(x)
    return Moments(phi.T @ phi, phi.T @ y, float(y @ y), len(y), np.tile(spectrum.groups, 2))


def terms(held: Moments, theta: Dense) -> tuple[Dense, Dense, float]:
    """theta_a y^T C^-1 K_a C^-1 y, theta_a tr C^-1 K_a, and y^T C^-1 y + logdet C, of C = sum_a theta_a K_a + nu I.

    With D = diag(theta) over the features, S = D^1/2 and G = nu I + S Phi^T Phi S (Woodbury):
    S Phi^T C^-1 y = G^-1 S Phi^T y and S Phi^T C^-1 Phi S = I - nu G^-1, neither of which is a difference of large
    numbers; no n x n matrix is made.

    Args:
        held: of the data.
        theta: (components + 1,), the last of them nu, with K = I.
    """
    groups = held.groups
    nu, each = theta[-1], theta[groups]
    on = np.flatnonzero(each > 0)
    s = np.sqrt(each[on])
    g = s[:, None] * held.gram[np.ix_(on, on)] * s + nu * np.eye(len(on))
    b = s * held.moment[on]
    factor = cho_factor(g, lower=True) if len(on) else (g, True)
    solved = cho_solve(factor, b) if len(on) else b
    inverse = dpotri(factor[0], lower=1)[0].diagonal() if len(on) else b
    fitted, traces = np.square(solved), np.maximum(1 - nu * inverse, 0)
    rest = max(held.energy - 2 * b @ solved + solved @ (g @ solved - nu * solved), 0.0)
    above, below = (np.bincount(groups[on], each, len(theta)).astype(float) for each in (fitted, traces))
    above[-1], below[-1] = rest / nu, held.count - traces.sum()
    logdet = 2 * np.log(factor[0].diagonal()).sum() + (held.count - len(on)) * np.log(nu)
    return above, below, float((held.energy - b @ solved) / nu + logdet)


def together(parts: list[Moments]) -> Moments:
    """Those of all data."""
    gram, moment = (np.sum([getattr(each, name) for each in parts], axis=0) for name in ("gram", "moment"))
    energy, count = sum(each.energy for each in parts), sum(each.count for each in parts)
    return Moments(gram, moment, energy, count, parts[0].groups)


def grid(kind: Any, count: int, d: int, band: float, width: float, rng: np.random.Generator) -> Dense:
    """Frequencies (components, d): "random", "tensor", "diagonal", or an array.

    Raises:
        Refused: it is none of them, or there would be too many features.
    """
    named = isinstance(kind, str)
    signs = 2 ** (d - 1) if named and kind != "random" else 1
    each = max(int(count ** (1 / d) + 1e-9), 1)
    count = each**d if named and kind == "tensor" else count
    if 2 * count * signs * (3**d if width else 1) > MOST:
        raise Refused(
            f"{count} components of {d} dimensions with width={width} have more than {MOST} features: take "
            "frequencies='random' and width=0, or fewer components"
        )
    if not named:
        found = dense(kind, "frequencies").copy()
        if found.shape[1] != d:
            raise Refused(f"frequencies {found.shape} are no finite (components, {d})")
        return found
    if kind == "random":
        return rng.uniform(-band, band, (count, d))
    if kind == "diagonal":
        return np.repeat(np.linspace(0, band, count)[:, None], d, axis=1)
    if kind == "tensor":
        return np.stack(np.meshgrid(*[np.linspace(0, band, each)] * d, indexing="ij"), -1).reshape(-1, d)
    raise Refused(f"frequencies={kind!r} is no array and none of random, tensor, diagonal")


def means_of(told: Dense | tuple[Dense, float]) -> Dense:
    """What an agent told: numbers, or whole ones and their unit."""
    return told if isinstance(told, np.ndarray) else told[0] * told[1]


def part_of(held: Moments, on: Dense) -> Moments:
    """The moments of some features."""
    return Moments(held.gram[np.ix_(on, on)], held.moment[on], held.energy, held.count, held.groups[on])


def proximal_update(theta: Dense, above: Dense, below: Dense, price: Dense, rho: float, target: Dense) -> Dense:
    """The least of what `mm_update` minimises plus price x + rho / 2 (x - target)^2 for each weight x.

    Its derivative, times x^2, is rho x^3 + (tr + price - rho target) x^2 - theta^2 q, which has one positive root.
    """
    c = theta * above
    slope = np.divide(below, theta, out=np.zeros_like(theta), where=theta > 0) + price - rho * target
    low, high = np.zeros_like(theta), np.abs(slope) / rho + np.cbrt(c / rho) + np.abs(target)
    for _ in range(60):
        middle = (low + high) / 2
        over = (rho * middle + slope) * middle**2 > c
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    found = np.where(theta > 0, high, 0.0)
    found[-1] = max(found[-1], FLOOR)
    return found


def local_minimum(
    held: Moments, theta: Dense, price: Dense, z: Dense, rho: float, sparsity: float, bits: int | None, seed: int
) -> Dense | tuple[Dense, float]:
    """An agent's round of "admm": five steps on its own evidence with the price and the pull to z, rounded if told."""
    for _ in range(5):
        above, below, _ = terms(held, theta)
        below[:-1] += sparsity
        theta = proximal_update(theta, above, below, price, rho, z)
    if bits is None:
        return theta
    step = float(theta.max()) / (2**bits - 1)
    codes = np.floor(theta / step + np.random.default_rng(seed).random(len(theta)))
    return codes.astype(np.uint8 if bits <= 8 else np.uint16), step
