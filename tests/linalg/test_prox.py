"""Proximal maps against what they minimise, on a grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from eckart.linalg import prox

Map = Callable[[np.ndarray, float], np.ndarray]


def concave(z: np.ndarray, width: float) -> np.ndarray:
    return np.where(np.abs(z) <= width, np.abs(z) - z**2 / (2 * width), width / 2)


def exact_l0(z: np.ndarray, penalty: float, norm: float) -> np.ndarray:
    edge = np.sqrt(2 * penalty) / norm
    return np.where(np.abs(z) <= edge, penalty - norm**2 / 2 * (np.abs(z) - edge) ** 2, penalty)


MAPS: dict[str, tuple[Map, Map]] = {
    "soft": (prox.soft, lambda z, t: t * np.abs(z)),
    "hard": (prox.hard, lambda z, t: t * (z != 0)),
    "half": (prox.half, lambda z, t: t * np.sqrt(np.abs(z))),
    "mcp, wide": (lambda x, t: prox.mcp(x, t, 2.5), lambda z, t: t * concave(z, 2.5)),
    "mcp, narrow": (lambda x, t: prox.mcp(x, t, 0.2), lambda z, t: t * concave(z, 0.2)),
    "cel0": (lambda x, t: prox.cel0(x, t, 0.4, 0.9), lambda z, t: t * exact_l0(z, 0.4, 0.9)),
}


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("t", [0.05, 0.7, 1.3])
def test_a_map_gives_what_its_objective_is_least_at(name: str, t: float) -> None:
    mapped, f = MAPS[name]
    x = np.r_[np.random.default_rng(0).uniform(-4, 4, 40), 0.03, -0.02]
    found = mapped(x, t)
    grid = np.r_[np.linspace(-4, 4, 4001), 0.0]
    objective = 0.5 * (grid - x[:, None]) ** 2 + f(grid, t)
    reached = 0.5 * (found - x) ** 2 + f(found, t)
    assert (reached <= objective.min(1) + 1e-12).all()
    assert (found == 0).any()
    assert (found != 0).any()


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_odd_and_leaves_zeros(name: str) -> None:
    mapped, _ = MAPS[name]
    x = np.linspace(-3, 3, 41)
    np.testing.assert_array_equal(mapped(-x, 0.7), -mapped(x, 0.7))
    assert mapped(np.zeros(1), 0.7)[0] == 0
