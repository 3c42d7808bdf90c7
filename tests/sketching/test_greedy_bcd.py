"""Block descent against direct solutions and the conditions of the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import nnls

from eckart.errors import Refused
from eckart.sketching.greedy_bcd import block_descent

RULES = ["shuffled", "cyclic", "random", "gs", "gsl", "gsd", "aged"]


def quadratic(n: int = 18) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, y = rng.standard_normal((40, n)), rng.standard_normal(40)
    return a.T @ a, a.T @ y, a, y


@pytest.mark.parametrize("selection", RULES)
def test_every_rule_comes_to_the_minimum(selection: str) -> None:
    h, b, a, y = quadratic()
    exact = np.linalg.solve(h, b)
    for given in (h, sparse.csr_array(h)):
        found = block_descent(given, b, block=4, selection=selection, generator=0)
        assert found.converged
        np.testing.assert_allclose(found.value, exact, rtol=1e-6, atol=1e-7)
    slow = block_descent(h, b, block=4, selection=selection, update="lipschitz", generator=0)
    assert slow.converged
    positive = block_descent(h, b, block=4, selection=selection, nonnegative=True, generator=0)
    np.testing.assert_allclose(positive.value, nnls(a, y)[0], atol=1e-7)
    lasso = block_descent(h, b, block=4, selection=selection, l1=5.0, generator=0).value
    slope = h @ lasso - b
    np.testing.assert_allclose(slope[lasso != 0], -5 * np.sign(lasso[lasso != 0]), atol=1e-5)
    assert (np.abs(slope) <= 5 + 1e-5).all()
    assert (lasso == 0).any()


def test_one_block_is_one_step_of_newtons() -> None:
    h, b, _, _ = quadratic()
    found = block_descent(h, b, block=99)
    assert found.iterations == 1
    np.testing.assert_allclose(found.value, np.linalg.solve(h, b))
    assert block_descent(h, b, block=99, start=found.value).iterations == 0
    assert block_descent(h, np.zeros(18)).iterations == 0


def test_going_round_takes_fewer_steps_where_coordinates_are_correlated() -> None:
    rng = np.random.default_rng(1)
    a = rng.standard_normal((60, 4)) @ rng.standard_normal((4, 40)) + 0.1 * rng.standard_normal((60, 40))
    h, b = a.T @ a + np.eye(40), a.T @ rng.standard_normal(60)
    steps = {
        rule: block_descent(h, b, block=10, selection=rule, tolerance=1e-6, iterations=3000).iterations
        for rule in ("shuffled", "gs", "cyclic")
    }
    assert steps["shuffled"] < min(steps["gs"], steps["cyclic"])


def test_what_is_not_reached_is_said_and_the_rest_refused() -> None:
    h, b, _, _ = quadratic()
    early = block_descent(h, b, block=2, iterations=3)
    assert not early.converged
    assert early.calls == 6
    for options in ({"block": 0}, {"selection": "best"}, {"update": "none"}, {"l1": -1.0}):
        with pytest.raises(Refused):
            block_descent(h, b, **options)
    with pytest.raises(Refused, match="positive diagonal"):
        block_descent(np.zeros((3, 3)), np.ones(3))


@pytest.mark.parametrize(
    ("hessian", "options", "words"),
    [
        ([[2.0, 1.0], [0.0, 2.0]], {}, "not symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], {}, "negative eigenvalue"),
        ([[1.0, 0.0], [0.0, 1.0]], {"l1": float("nan")}, "l1=nan"),
        ([[1.0, 0.0], [0.0, 1.0]], {"block": 0}, "block=0"),
    ],
)
def test_a_function_without_a_minimum_is_refused(
    hessian: list[list[float]], options: dict[str, float], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        block_descent(np.array(hessian), np.ones(2), **options)  # type: ignore[arg-type]
