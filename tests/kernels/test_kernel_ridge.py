"""Kernel ridge regression against its formula, scikit-learn's, and leaving each sample out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge as Peer

from eckart.errors import Refused
from eckart.kernels import _checks, _gram
from eckart.kernels._gram import Gram
from eckart.kernels.kernel_ridge import KernelRidge
from eckart.kernels.matern import Matern
from eckart.kernels.rbf import RBF


def problem(n: int = 50, targets: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 3))
    y = np.sin(x @ rng.standard_normal((3, targets))) + 0.1 * rng.standard_normal((n, targets))
    return x, y, rng.standard_normal((7, 3))


@pytest.mark.parametrize("solver", ["exact", "pcg", "subset"])
def test_all_solvers_agree_with_scikit_learn(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gram, "TILE", 16)
    monkeypatch.setattr(_checks, "AT_ONCE", 500)
    x, y, new = problem()
    weight = np.random.default_rng(1).uniform(0.1, 2.0, 50)
    peer = Peer(kernel="rbf", gamma=0.3, alpha=0.1).fit(x, y, weight)
    ours = KernelRidge(gamma=0.3, alpha=0.1, solver=solver, n_components=50, tol=1e-10, random_state=0)
    np.testing.assert_allclose(ours.fit(x, y, weight).predict(new), peer.predict(new), atol=1e-7)
    single = KernelRidge(gamma=0.3, alpha=0.1, solver=solver, random_state=0).fit(x, y[:, 0])
    assert single.predict(new).shape == (7,)
    assert single.predict(torch.from_numpy(new).float()).dtype == torch.float32
    kernel = RBF((2 * 0.3) ** -0.5)
    matrix = KernelRidge("precomputed", alpha=0.1, solver=solver, n_components=50, tol=1e-10, random_state=0)
    matrix.fit(kernel(x), y, weight)
    np.testing.assert_allclose(matrix.predict(kernel(new, x)), peer.predict(new), atol=1e-7)


@pytest.mark.parametrize(("solver", "rank"), [("exact", 1), ("subset", 12)])
def test_errors_left_out_are_those_of_fits_without_the_sample(solver: str, rank: int) -> None:
    x, y, _ = problem(25)
    alphas, kernel = [0.01, 0.5, 20.0], Matern(1.5, 1.5)
    found = KernelRidge(kernel, alpha=alphas, solver=solver, n_components=rank, random_state=0).fit(x, y)
    s = found.X_fit_
    across, inner = kernel(x, s), kernel(s)
    expected = np.zeros((3, 25, 2))
    for a, alpha in enumerate(alphas):
        for i in range(25):
            kept = np.arange(25) != i
            if solver == "exact":
                c = np.linalg.solve(inner[kept][:, kept] + alpha * np.eye(24), y[kept])
                expected[a, i] = y[i] - inner[i, kept] @ c
            else:
                f = across[kept]
                expected[a, i] = y[i] - across[i] @ np.linalg.solve(f.T @ f + alpha * inner, f.T @ y[kept])
    np.testing.assert_allclose(found.loo_errors_, np.square(expected).mean((1, 2)), rtol=1e-7)
    best = int(np.argmin(found.loo_errors_))
    assert found.alpha_ == alphas[best]
    np.testing.assert_allclose(found.loo_residuals_, expected[best], atol=1e-8)
    again = KernelRidge(kernel, alpha=alphas[best], solver=solver, n_components=rank, random_state=0).fit(x, y)
    np.testing.assert_allclose(found.predict(x), again.predict(x), atol=1e-9)


def test_tiles_of_products_are_the_kernel() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((40, 3)) + 1e3)
    x[7] = x[30]
    rows, columns = slice(0, 20), slice(20, 40)
    for kernel in (RBF([0.3, 1.0, 2.0]), Matern(1.5, 0.5), Matern(0.5, 0.5), RBF(1e-6)):
        gram = Gram(kernel, x)
        for one, other in ((rows, columns), (columns, columns)):
            np.testing.assert_allclose(gram.tile()(one, other), gram.between(one, other), rtol=0, atol=1e-11)


def test_tiles_of_float32_are_for_ridges_far_above_their_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, new = problem()
    kinds: list[torch.dtype] = []
    kept = Gram.times

    def times(gram: Gram, v: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        kinds.append(dtype)
        return kept(gram, v, dtype)

    monkeypatch.setattr(Gram, "times", times)
    for kernel, alpha, rough in ((RBF(1.3), 0.1, True), (RBF(1.3), 1e-6, False), (Matern(0.5, 1.3), 0.1, False)):
        kinds.clear()
        found = KernelRidge(kernel, alpha=alpha, solver="pcg", n_components=20, tol=1e-10, random_state=0).fit(x, y)
        assert (torch.float32 in kinds) == rough
        c = np.linalg.solve(kernel(x) + alpha * np.eye(50), y)
        np.testing.assert_allclose(found.predict(new), kernel(new, x) @ c, atol=1e-6)
        left = np.linalg.norm(y - kernel(x) @ found.dual_coef_ - alpha * found.dual_coef_, axis=0)
        assert found.residual_ <= 1e-10
        np.testing.assert_allclose(found.residual_, (left / np.linalg.norm(y, axis=0)).max(), rtol=0.1, atol=1e-13)
    gram = Gram(RBF([0.5, 1.0, 2.0]), torch.from_numpy(x))
    off = gram.tile(torch.float32)(slice(0, 50), slice(0, 50)).double() - gram.between(slice(0, 50), slice(0, 50))
    assert float(torch.linalg.matrix_norm(off, 2)) <= gram.rounding() * (1 + 1e-9) < 1e-4


def test_few_columns_save_most_steps() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200, 2))
    y = np.sin(4 * x[:, 0]) + x[:, 1]
    steps = {
        rank: KernelRidge(gamma=1.0, alpha=1e-3, solver="pcg", n_components=rank, random_state=0).fit(x, y).n_iter_
        for rank in (1, 60)
    }
    assert steps[60] < steps[1] / 5
    with pytest.warns(ConvergenceWarning, match=r"the residual by \|b\| is"):
        KernelRidge(gamma=1.0, alpha=1e-9, solver="pcg", n_components=1, max_iter=2).fit(x, y)


def test_without_a_ridge_it_is_the_shortest_interpolant() -> None:
    x, y, _ = problem(20)
    x = x[[0, 0, *range(20)]]
    y = y[[0, 0, *range(20)]]
    found = KernelRidge(alpha=0.0).fit(x, y)
    np.testing.assert_allclose(found.predict(x), y, atol=1e-9)
    np.testing.assert_allclose(found.dual_coef_, np.linalg.pinv(found.kernel_(x)) @ y, atol=1e-7)


def test_bad_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, _ = problem(9)
    wrong = (
        {"solver": "svd"},
        {"alpha": -1.0},
        {"alpha": 0.0, "solver": "subset"},
        {"alpha": [1.0, 2.0], "solver": "pcg"},
        {"alpha": []},
        {"alpha": [1.0, 0.0]},
    )
    for options in wrong:
        with pytest.raises(Refused):
            KernelRidge(**options).fit(x, y)
    with pytest.raises(Refused, match="sample_weight"):
        KernelRidge().fit(x, y, -np.ones(9))
    with pytest.raises(Refused, match="not positive semi-definite"):
        KernelRidge("precomputed", alpha=0.1).fit(-np.eye(9), y)
    monkeypatch.setattr(_gram, "memory_available", lambda: 1000)
    with pytest.raises(Refused, match="take solver='pcg'"):
        KernelRidge().fit(x, y)


def test_squares_that_overflow_are_no_zeros() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    for scale, weight in ((1e150, 1.0), (1.0, 1e300)):
        with pytest.raises(Refused, match="float64 does not hold"):
            KernelRidge("linear", solver="pcg", alpha=0.5).fit(x * scale, x[:, 0], np.full(20, weight))


@pytest.mark.parametrize("bad", [None, "a", "1.0", [None], -1.0, float("nan")])
def test_an_alpha_that_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(Refused, match="alpha"):
        KernelRidge(alpha=bad).fit(np.eye(3), np.arange(3.0))
