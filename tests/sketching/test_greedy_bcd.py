"""Block descent against direct solutions and the conditions of the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import nnls
from scipy.sparse.csgraph import connected_components

from eckart.errors import Refused
from eckart.sketching.greedy_bcd import _forest, block_descent

RULES = ["shuffled", "cyclic", "random", "gs", "gsl", "gsd", "gsq", "aged"]


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


def lattice(n: int = 12) -> sparse.csr_array:
    line = sparse.diags_array([np.full(n - 1, -1.0), np.full(n, 2.0), np.full(n - 1, -1.0)], offsets=[-1, 0, 1])
    eye = sparse.eye_array(n)
    return sparse.csr_array(sparse.kron(line, eye) + sparse.kron(eye, line) + 0.5 * sparse.eye_array(n * n))


def test_forests_have_no_cycle_and_take_fewer_coordinates_than_small_blocks() -> None:
    h, b = lattice(), np.random.default_rng(0).standard_normal(144)
    exact = np.linalg.solve(h.toarray(), b)
    found = block_descent(h, b, block=144, selection="forest")
    assert found.converged
    np.testing.assert_allclose(found.value, exact, atol=1e-6)
    forest, few = (
        block_descent(h, b, block=k, selection=rule, tolerance=1e-3, generator=0)
        for rule, k in (("forest", 144), ("random", 5))
    )
    assert forest.calls < few.calls / 2
    chosen = _forest(sparse.csc_array(h), np.random.default_rng(1).permutation(144), 144)
    inside = h[chosen][:, chosen]
    edges = (inside.nnz - len(chosen)) // 2
    assert 72 <= len(chosen) == edges + connected_components(inside)[0]
    # A tree is one block, and one step.
    off = np.full(8, -1.0)
    tree = sparse.csr_array(sparse.diags_array([off, np.full(9, 3.0), off], offsets=[-1, 0, 1]))
    assert block_descent(tree, np.ones(9), block=9, selection="forest").iterations == 1
    for given, options in ((h.toarray(), {}), (h, {"l1": 1.0}), (h, {"update": "lipschitz"})):
        with pytest.raises(Refused, match="forests are of a sparse H"):
            block_descent(given, b, selection="forest", **options)


def test_the_block_of_most_descent_is_found_where_coordinates_do_not_meet() -> None:
    values, b = np.array([1.0, 4.0, 1.0, 9.0]), np.array([1.0, 3.0, 0.5, 3.0])
    # The gain of a coordinate is b^2 / 2 H_ii: 0.5, 1.125, 0.125 and 0.5.
    found = block_descent(np.diag(values), b, block=1, selection="gsq", iterations=1)
    np.testing.assert_allclose(found.value, [0, 0.75, 0, 0])


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
