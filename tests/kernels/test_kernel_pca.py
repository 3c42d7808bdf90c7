"""Kernel PCA against scikit-learn's, against PCA, and back from the scores."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from sklearn.datasets import make_circles
from sklearn.decomposition import PCA
from sklearn.decomposition import KernelPCA as Peer

from eckart.errors import Refused
from eckart.kernels import Grid, _gram, kernel_pca
from eckart.kernels.kernel_k_means import KernelKMeans
from eckart.kernels.kernel_pca import KernelPCA
from eckart.kernels.kernel_ridge import KernelRidge
from eckart.kernels.nystroem import Nystroem
from eckart.kernels.rbf import RBF


def rows(n: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3)) @ np.diag([2.0, 1.0, 0.5]) + 3


def agree(found: np.ndarray, expected: np.ndarray, atol: float) -> None:
    """The same but for signs of columns."""
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=atol)


@pytest.mark.parametrize("solver", ["exact", "rpcholesky"])
def test_all_columns_give_what_scikit_learn_has(solver: str) -> None:
    x, new = rows(), rows(9, 1)
    peer = Peer(4, kernel="rbf", gamma=0.2).fit(x)
    found = KernelPCA(4, gamma=0.2, solver=solver, random_state=0)
    scores = found.fit_transform(x)
    np.testing.assert_allclose(found.eigenvalues_, peer.eigenvalues_, rtol=1e-9)
    signs = np.sign((scores * peer.transform(x)).sum(0))
    np.testing.assert_allclose(scores * signs, peer.transform(x), atol=1e-9)
    np.testing.assert_allclose(found.transform(new) * signs, peer.transform(new), atol=1e-8)
    kernel = RBF((2 * 0.2) ** -0.5)
    matrix = KernelPCA(4, kernel="precomputed", solver=solver, random_state=0).fit(kernel(x))
    agree(matrix.transform(kernel(new, x)), found.transform(new), 1e-8)


@pytest.mark.parametrize("solver", ["exact", "rpcholesky"])
def test_a_linear_kernel_is_pca(solver: str) -> None:
    x, new = rows(), rows(9, 1)
    found = KernelPCA(kernel="linear", solver=solver, random_state=0).fit(x)
    assert found.transform(new).shape == (9, 3)
    agree(found.transform(new), PCA(3).fit(x).transform(new), 1e-10)


def test_few_columns_have_the_leading_components() -> None:
    x, new = rows(300), rows(9, 1)
    exact = KernelPCA(3, gamma=0.05, solver="exact").fit(x)
    found = KernelPCA(3, gamma=0.05, n_landmarks=40, tol=1e-4, random_state=0).fit(x)
    assert len(found.X_fit_) <= 40
    assert found.trace_error_ <= 1e-4 or len(found.X_fit_) == 40
    agree(found.transform(new), exact.transform(new), 1e-2)
    lost = exact.eigenvalues_ - found.eigenvalues_
    assert (lost > -1e-10).all()
    assert (lost <= found.trace_error_ * 300).all()


def test_few_components_are_found_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x, new = rows(120), rows(9, 1)
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((120, 120)))[0]
    indefinite = turned @ np.diag([3.0, 2.0, *[0.0] * 117, -0.1]) @ turned.T

    def found(scale: float = 1.0) -> KernelPCA:
        return KernelPCA(6, kernel="linear", solver="exact").fit(x * scale)

    whole, smooth = found(), KernelPCA(6, gamma=0.05, solver="exact").fit(x)
    monkeypatch.setattr(kernel_pca, "SEVERAL", 100)
    called = Mock(wraps=kernel_pca.leading)
    monkeypatch.setattr(kernel_pca, "leading", called)
    few = KernelPCA(6, gamma=0.05, solver="exact").fit(x)
    np.testing.assert_allclose(few.eigenvalues_, smooth.eigenvalues_, rtol=1e-12)
    np.testing.assert_allclose(few.transform(new), smooth.transform(new), atol=1e-9)
    for scale in (1.0, 2.0**-60):  # three components of six that are asked for
        np.testing.assert_allclose(found(scale).eigenvalues_, whole.eigenvalues_ * scale**2, rtol=1e-10)
    with pytest.raises(Refused, match="not positive semi-definite"):
        KernelPCA(2, kernel="precomputed", solver="exact").fit((indefinite + indefinite.T) / 2)
    assert called.call_count == 4


def test_rows_come_back_without_their_noise() -> None:
    rng = np.random.default_rng(0)
    ring = make_circles(300, factor=0.4, noise=0, random_state=0)[0]
    clean = ring @ np.linalg.qr(rng.standard_normal((10, 2)))[0].T
    noisy = clean + 0.1 * rng.standard_normal(clean.shape)
    left = {}
    for count, alpha in ((4, None), (8, None), (8, 1.0)):
        found = KernelPCA(count, gamma=1.0, fit_inverse_transform=True, alpha=alpha, n_landmarks=150, random_state=0)
        scores = found.fit_transform(noisy)
        again = found.inverse_transform(scores)
        left[count, alpha] = np.linalg.norm(again - clean) / np.linalg.norm(noisy - clean)
    assert max(left[4, None], left[8, 1.0]) < 0.6
    assert left[8, 1.0] < 0.8 * left[8, None]
    with pytest.raises(Refused, match="come out of transform"):
        found.inverse_transform(again)


def test_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for solver in ("exact", "rpcholesky"):
        assert KernelPCA(solver=solver).fit_transform(np.ones((5, 2))).shape == (5, 0)
    for options in ({"solver": "arpack"}, {"tol": 1.0}, {"n_components": 0}, {"n_landmarks": 0}):
        with pytest.raises(Refused):
            KernelPCA(**options).fit(rows())
    with pytest.raises(Refused, match="fit_inverse_transform=True"):
        KernelPCA(2).fit(rows()).inverse_transform(rows(4)[:, :2])
    with pytest.raises(Refused, match="needs points"):
        KernelPCA(kernel="precomputed", fit_inverse_transform=True).fit(np.eye(4))
    for solver in ("exact", "rpcholesky"):
        with pytest.raises(Refused, match="not positive semi-definite"):
            KernelPCA(kernel="precomputed", solver=solver).fit(np.diag([1.0, 1.0, -1.0]))
    monkeypatch.setattr(_gram, "memory_available", lambda: 1000)
    with pytest.raises(Refused, match="take solver='rpcholesky'"):
        KernelPCA(solver="exact").fit(rows())


@pytest.mark.parametrize("made", [KernelPCA, Nystroem, KernelRidge, KernelKMeans])
def test_a_matrix_that_is_not_symmetric_is_no_kernel(made: Any) -> None:
    x = np.random.default_rng(0).standard_normal((12, 3))
    gram = x @ x.T
    made(kernel="precomputed", random_state=0).fit(gram.astype(np.float32), x[:, 0])
    with pytest.raises(Refused, match="symmetric"):
        made(kernel="precomputed").fit(np.tril(gram), x[:, 0])
    with pytest.raises(Refused, match="square"):
        made(kernel="precomputed").fit(gram[:, :5], x[:, 0])
    with pytest.raises(Refused, match="Grid"):
        made().fit(Grid(torch.arange(3.0), torch.arange(4.0)), x[:, 0])


def test_a_far_mean_is_said_to_be_one() -> None:
    x = np.random.default_rng(0).standard_normal((40, 2))
    with pytest.raises(Refused, match="centre X"):
        KernelPCA(kernel="linear", solver="exact").fit(x + 1e6)
    with pytest.raises(Refused, match="semi-definite"):
        KernelPCA(kernel="precomputed", solver="exact").fit(x @ x.T - 9 * np.outer(x[:, 0], x[:, 0]))


@pytest.mark.parametrize("bad", [None, "a", [0.1], -0.1, 1, True])
def test_a_tolerance_is_a_share(bad: Any) -> None:
    for made in (KernelPCA, Nystroem):
        with pytest.raises(Refused, match="tol="):
            made(tol=bad).fit(np.eye(3))


def test_a_kernel_that_is_rounding_has_no_components_and_says_so() -> None:
    x = np.random.default_rng(0).standard_normal((30, 2)) + 1e9
    with pytest.warns(UserWarning, match="centre X"):
        fitted = KernelPCA(2, kernel="linear", solver="exact").fit(x)
    assert fitted.transform(x).shape == (30, 0)
