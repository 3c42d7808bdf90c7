"""Gaussian processes: structures give what the dense matrix gives, and that is the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF as PeerRBF
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

from eckart.errors import Refused
from eckart.kernels import Cosine, Even, Grid
from eckart.kernels.gaussian_process import GaussianProcess
from eckart.kernels.matern import Matern
from eckart.kernels.rbf import RBF

RNG = np.random.default_rng(0)
SHUFFLED = RNG.permutation(48)
PLACES = {
    "kronecker": Grid([0.0, 0.3, 1.0, 1.4], [0.0, 0.5, 0.7], [-1.0, 0.0, 0.2, 1.0]).array().numpy()[SHUFFLED],
    "toeplitz": Even(-2.0, 0.1, 48).array().numpy()[SHUFFLED],
    "low-rank": RNG.standard_normal((48, 2)),
}


def values(x: np.ndarray) -> np.ndarray:
    return 5 + np.sin(2 * x.sum(1)) + 0.1 * np.random.default_rng(1).standard_normal(len(x))


@pytest.mark.parametrize("structure", PLACES)
@pytest.mark.parametrize("optimize", [False, True])
def test_every_structure_is_the_dense_matrix(structure: str, optimize: bool) -> None:
    x = PLACES[structure]
    y, new = values(x), x[:5] + 0.05
    kernel = RBF(0.8)
    options = {"noise": 0.02, "optimize": optimize, "random_state": 0}
    exact = GaussianProcess(kernel, structure="exact", **options).fit(x, y)
    found = GaussianProcess(kernel, structure=structure, **options).fit(x, y)
    close = {"rtol": 2e-3, "atol": 2e-3} if optimize or structure == "low-rank" else {"rtol": 1e-8, "atol": 1e-8}
    assert found.log_marginal_likelihood_ == pytest.approx(exact.log_marginal_likelihood_, rel=close["rtol"])
    for one, other in zip(found.predict(new, return_std=True), exact.predict(new, return_std=True), strict=True):
        np.testing.assert_allclose(one, other, **close)
    for one, other in zip(found.leave_one_out(), exact.leave_one_out(), strict=True):
        np.testing.assert_allclose(one, other, **close)
    drawn = found.sample_y(new, 4000, random_state=1)
    assert drawn.shape == (5, 4000)
    means, deviations = exact.predict(new, return_std=True)
    np.testing.assert_allclose(drawn.mean(1), means, atol=5 * deviations.max() / 60)
    np.testing.assert_allclose(drawn.std(1), deviations, rtol=0.1)


def test_it_is_the_formula_with_given_parameters() -> None:
    x, new = RNG.standard_normal((20, 2)), RNG.standard_normal((4, 2))
    y, kernel, noise = values(x), Matern(1.5, 1.3), 0.05
    found = GaussianProcess(kernel, noise=noise, optimize=False).fit(x, y)
    covariance = kernel(x) + noise * np.eye(20)
    across, centred = kernel(new, x), y - y.mean()
    means, deviations = found.predict(new, return_std=True)
    np.testing.assert_allclose(means, y.mean() + across @ np.linalg.solve(covariance, centred))
    explained = (across * np.linalg.solve(covariance, across.T).T).sum(1)
    np.testing.assert_allclose(deviations, np.sqrt(1 - explained))
    logdet = np.linalg.slogdet(2 * np.pi * covariance)[1]
    surprise = 0.5 * (centred @ np.linalg.solve(covariance, centred) + logdet)
    assert found.log_marginal_likelihood_ == pytest.approx(-surprise)
    means, deviations = found.leave_one_out()
    for i in range(20):
        kept = np.arange(20) != i
        rest = np.linalg.solve(covariance[kept][:, kept], np.stack([centred[kept], covariance[kept, i]], 1))
        assert means[i] == pytest.approx(y.mean() + covariance[i, kept] @ rest[:, 0])
        assert deviations[i] ** 2 == pytest.approx(covariance[i, i] - covariance[i, kept] @ rest[:, 1])


def test_the_evidence_is_as_large_as_scikit_learn_finds_it() -> None:
    x = RNG.uniform(-3, 3, (60, 2))
    y = np.sin(x[:, 0]) * np.cos(2 * x[:, 1]) + 0.1 * RNG.standard_normal(60)
    kernel = ConstantKernel() * PeerRBF([1.0, 1.0]) + WhiteKernel(0.1)
    peer = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0).fit(x, y - y.mean())
    ours = GaussianProcess(RBF([1.0, 1.0])).fit(x, y)
    assert ours.log_marginal_likelihood_ > peer.log_marginal_likelihood_value_ - 0.01
    assert ours.noise_ == pytest.approx(np.exp(peer.kernel_.theta[-1]), rel=0.05)
    assert isinstance(ours.predict(torch.from_numpy(x).float()), torch.Tensor)


def test_structures_are_found_by_themselves() -> None:
    axis = np.linspace(0, 3, 15)
    grid = Grid(axis, axis)
    y = np.sin(grid.array().numpy()).prod(1)
    found = GaussianProcess(max_iter=20).fit(grid, y)
    assert found.structure_ == "kronecker"
    assert np.abs(found.predict(grid) - y).max() < 0.01
    line = np.linspace(0, 10, 210)[:, None]
    assert GaussianProcess("matern", optimize=False).fit(line, np.sin(line[:, 0])).structure_ == "toeplitz"
    x = RNG.standard_normal((60, 2))
    assert GaussianProcess(optimize=False).fit(x, x[:, 0]).structure_ == "exact"
    assert GaussianProcess(optimize=False, exact_up_to=50).fit(x, x[:, 0]).structure_ == "low-rank"
    assert GaussianProcess("linear", optimize=False).fit(grid, y).structure_ == "exact"


def test_a_long_series_is_begun_at_the_width_of_its_waves() -> None:
    x = np.arange(600.0)[:, None] / 4
    y = np.sin(2 * x[:, 0]) + 0.1 * RNG.standard_normal(600)
    found = GaussianProcess(max_iter=10).fit(x, y)
    assert found.structure_ == "toeplitz"
    assert 0.2 < found.kernel_.options()["lengthscale"] < 3
    assert np.sqrt(found.noise_) < 0.13


def test_ends() -> None:
    x = RNG.standard_normal((12, 2))
    constant = GaussianProcess().fit(x, np.full(12, 3.0))
    np.testing.assert_allclose(constant.predict(x), 3.0)
    for options in ({"structure": "toeplitz"}, {"structure": "kronecker"}, {"structure": "sparse"}, {"noise": 0.0}):
        with pytest.raises(Refused):
            GaussianProcess(**options).fit(x, x[:, 0])
    with pytest.raises(Refused, match="'precomputed' is no Kernel"):
        GaussianProcess("precomputed").fit(x, x[:, 0])


@pytest.mark.filterwarnings("ignore:.*L-BFGS")
def test_scales_are_right_or_refused() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    y = np.sin(x[:, 0])
    plain = GaussianProcess(max_iter=3).fit(x, y).predict(x, return_std=True)
    far = GaussianProcess(max_iter=3).fit(x * 2.0**-480, y * 2.0**-480).predict(x * 2.0**-480, return_std=True)
    for found, wanted in zip(far, plain, strict=True):
        np.testing.assert_allclose(found * 2.0**480, wanted, rtol=1e-4, atol=1e-4)
    for scale, optimize in ((1e-170, True), (1e200, True), (1e-170, False), (1e200, False)):
        with pytest.raises(Refused, match="variances"):
            GaussianProcess(optimize=optimize).fit(x, y * scale)
        with pytest.raises(Refused, match="X has variances"):
            GaussianProcess(optimize=optimize).fit(x * scale, y)
    np.testing.assert_array_equal(GaussianProcess().fit(x, np.full(20, 0.1)).predict(x[:2]), [0.1, 0.1])


def test_a_noise_below_rounding_is_told_from_an_indefinite_kernel() -> None:
    x = np.random.default_rng(0).standard_normal((10, 2)).repeat(2, 0)
    with pytest.raises(Refused, match="larger noise"):
        GaussianProcess(noise=1e-20, optimize=False).fit(x, x[:, 0])


def test_what_requires_no_gradient_is_not_learned() -> None:
    x = np.arange(60.0)[:, None]
    y = np.sin(2 * np.pi * 0.1 * x[:, 0]) + 0.3 * np.sin(x[:, 0] / 20) + 0.01 * RNG.standard_normal(60)
    kernel = Matern(1.5, 10.0) + Cosine(0.11).requires_grad_(False)
    found = GaussianProcess(kernel, max_iter=5).fit(x, y)
    again = GaussianProcess(found.kernel_, max_iter=1).fit(x, y)
    for each in (found, again):
        assert each.kernel_.second.options()["frequency"] == pytest.approx(0.11, rel=1e-15)
        assert each.kernel_.first.options()["lengthscale"] != pytest.approx(10.0, rel=1e-3)
    free = GaussianProcess(Matern(1.5, 10.0) + Cosine(0.11), max_iter=20).fit(x, y)
    assert free.kernel_.second.options()["frequency"] == pytest.approx(0.1, rel=1e-3)
