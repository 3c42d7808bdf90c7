"""The step of weights beside dense algebra, what sparsity and frequencies do, and agents here and on workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.kernels._agents import Here, OnWorkers
from eckart.kernels._multiple import moments, proximal_update, terms, waves
from eckart.kernels.slim_kl import LinearMultipleKernelGP, mm_update

T = np.arange(100.0)
TONES = np.sin(0.3 * T) + 0.6 * np.cos(0.9 * T)
Y = TONES + 0.1 * np.random.default_rng(0).standard_normal(100)


def small(solver: str = "pooled", **options: Any) -> LinearMultipleKernelGP:
    defaults = {"frequencies": "tensor", "band": 16.0, "width": 0.3, "max_iter": 200, "random_state": 0}
    return LinearMultipleKernelGP(17, solver=solver, **{**defaults, **options})


def test_features_are_the_kernel() -> None:
    rng = np.random.default_rng(0)
    x, mu = rng.random((9, 2)), np.array([[1.0, 3.0], [0.5, 0.0]])
    t = x[:, None] - x
    for width in (0.0, 0.1):
        made = waves(mu, width, joint=False)
        phi = made.features(x)
        for a in range(2):
            own = phi[:, np.tile(made.groups, 2) == a]
            fade = np.exp(-2 * (np.pi * width * t) ** 2)
            wanted = (fade * np.cos(2 * np.pi * mu[a] * t)).prod(-1)
            np.testing.assert_allclose(own @ own.T, wanted, atol=1e-12 if width == 0 else 2e-3)


def test_terms_are_those_of_the_dense_matrix_and_steps_never_raise_the_cost() -> None:
    rng = np.random.default_rng(1)
    x, y, theta = rng.random((12, 1)), rng.standard_normal(12), np.array([0.4, 0.0, 0.3, 0.2])
    made = waves(np.array([[0.0], [1.0], [2.5]]), 0.2, joint=True)
    held, phi = moments((x, y), made), made.features(x)
    parts = [phi[:, held.groups == a] @ phi[:, held.groups == a].T for a in range(3)] + [np.eye(12)]
    c = sum(weight * part for weight, part in zip(theta, parts, strict=True))
    inverse = np.linalg.inv(c)
    above, below, cost = terms(held, theta)
    np.testing.assert_allclose(above, [w * y @ inverse @ k @ inverse @ y for w, k in zip(theta, parts, strict=True)])
    np.testing.assert_allclose(below, [w * np.trace(inverse @ k) for w, k in zip(theta, parts, strict=True)])
    assert cost == pytest.approx(y @ inverse @ y + np.linalg.slogdet(c)[1])
    costs = []
    for _ in range(40):
        above, below, cost = terms(held, theta)
        costs.append(cost)
        theta = mm_update(theta, above, below)
    assert (np.diff(costs) <= 1e-9).all()


def test_the_step_of_an_agent_is_the_least_of_its_bound() -> None:
    theta, above, below = np.array([0.5, 0.1, 0.3]), np.array([2.0, 0.01, 4.0]), np.array([1.0, 3.0, 5.0])
    price, target, rho = np.array([0.3, -5.0, 1.0]), np.array([0.4, 0.2, 0.1]), 7.0
    found = proximal_update(theta, above, below, price, rho, target)

    def bound(x: np.ndarray) -> np.ndarray:
        return theta * above / x + below / theta * x + price * x + rho / 2 * (x - target) ** 2

    for step in (1e-4, -1e-4):
        assert (bound(found) <= bound(found * (1 + step))).all()


def test_a_prior_leaves_few_waves_and_a_diagonal_grid_learns_no_product() -> None:
    x = T[:, None]
    sparse, published = (small(band=20.0, sparsity=c).set_params(n_components=30).fit(x, Y) for c in (1.0, 0.0))
    assert (sparse.weights_ > 0).sum() < 6 < (published.weights_ > 0).sum()
    np.testing.assert_allclose(sparse.predict(x), TONES, atol=0.3)
    means, deviations = sparse.predict(x, return_std=True)
    assert (np.abs(means - Y) < 1.96 * deviations).mean() > 0.85
    rng = np.random.default_rng(0)
    x, z = rng.random((150, 2)), rng.random((100, 2))

    def wave(x: np.ndarray) -> Any:
        return np.cos(2 * np.pi * x[:, 0]) * np.cos(6 * np.pi * x[:, 1])

    errors = {}
    for frequencies in ("diagonal", "random", "tensor"):
        fitted = LinearMultipleKernelGP(49, frequencies=frequencies, band=4.0, random_state=0).fit(x, wave(x))
        errors[frequencies] = np.std(fitted.predict(z) - wave(z)) / np.std(wave(z))
    assert errors["diagonal"] > 0.8
    assert errors["random"] < 0.3
    assert errors["tensor"] < 0.1


def test_agents_agree_with_one_and_are_counted(tmp_path: Path) -> None:
    x = T[:, None]
    one, mm = small().fit(x, Y), small("mm").fit(x, Y)
    np.testing.assert_allclose(mm.weights_, one.weights_, rtol=1e-9)
    np.testing.assert_allclose(small(n_agents=3).fit(x, Y).weights_, one.weights_, rtol=1e-6, atol=1e-12)
    two = small("mm", n_agents=2).fit(x, Y)
    rounds = two.n_iter_ * 2 * 8 * (3 * 18 + 1)  # theta there, two sums and the cost back
    assert rounds < two.bytes_ < rounds + 2 * 8 * (6 * 17) ** 2
    alone, consensus = small("mm", tol=1e-9).fit(x, Y), small("admm", tol=1e-7).fit(x, Y)
    np.testing.assert_allclose(consensus.weights_, alone.weights_, atol=1e-6 * alone.weights_.max())
    admm, coarse = small("admm", tol=1e-3).fit(x, Y), small("admm", n_agents=2, quantize=8, max_iter=10)
    np.testing.assert_allclose(admm.predict(x), one.predict(x), atol=0.05)
    with pytest.warns(UserWarning, match="rounds"):
        coarse.fit(x, Y)
    assert np.std(coarse.predict(x) - TONES) < 0.2
    file = str(tmp_path / "rounds")
    with pytest.warns(UserWarning, match="more rounds"):
        small("mm", n_agents=2, max_iter=5, checkpoint=file).fit(x, Y)
    again = small("mm", n_agents=2, checkpoint=file).fit(x, Y)
    np.testing.assert_allclose(again.weights_, two.weights_, rtol=1e-9)
    np.testing.assert_allclose(again.history_, two.history_)
    with pytest.raises(Refused, match="another fit"):
        small("mm", n_agents=3, checkpoint=file).fit(x, Y)


def scaled(part: float, by: float) -> float:
    return part * by


def test_workers_give_the_same_and_one_that_is_lost_is_named() -> None:
    distributed = pytest.importorskip("distributed")
    options = {"processes": False, "dashboard_address": None, "threads_per_worker": 1, "silence_logs": 50}
    with (
        distributed.LocalCluster(n_workers=2, **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        x = T[:, None]
        far, near = (small("mm", n_agents=2, client=each).fit(x, Y) for each in (client, None))
        np.testing.assert_allclose(far.weights_, near.weights_, rtol=1e-10)
        assert far.bytes_ == near.bytes_
        agents = OnWorkers(client, [2.0, 3.0])
        agents.keep(scaled, 10.0)
        assert agents(scaled, [(1.0,), (2.0,)]) == Here([20.0, 30.0])(scaled, [(1.0,), (2.0,)])
        gone = agents.homes[1]
        cluster.sync(next(w for w in cluster.workers.values() if w.address == gone).close)
        with pytest.raises(Refused, match=f"agent 1 on worker {gone} is lost"):
            agents(scaled, [(1.0,), (2.0,)])


def test_refusals() -> None:
    for options in (
        {"solver": "mosek"},
        {"quantize": 8},
        {"n_agents": 1000},
        {"frequencies": "even"},
        {"frequencies": [[1.0, 2.0]]},
        {"band": -1.0},
        {"sparsity": -1.0},
    ):
        with pytest.raises(Refused):
            small(**options).fit(T[:, None], Y)
    with pytest.raises(Refused, match="features"):
        LinearMultipleKernelGP(20, frequencies="diagonal").fit(np.random.default_rng(0).random((30, 12)), T[:30])
    for options in (
        {"width": None},
        {"sparsity": "a"},
        {"quantize": 2.5, "solver": "admm"},
        {"client": "a"},
        {"checkpoint": 3},
    ):
        with pytest.raises(Refused, match=next(iter(options))):
            small(**options).fit(T[:, None], Y)


@pytest.mark.filterwarnings("ignore:.*more rounds")
def test_a_checkpoint_is_of_its_data_and_options_and_takes_no_further_round(tmp_path: Path) -> None:
    x = T[:, None]
    few = {"solver": "mm", "max_iter": 3, "checkpoint": str(tmp_path / "rounds")}
    one, again = (small(**few).fit(x, Y) for _ in range(2))
    assert again.n_iter_ == 3
    np.testing.assert_array_equal(one.weights_, again.weights_)
    for other, target, options in ((x, Y + 1e-9, {}), (x[::-1], Y, {}), (x, Y, {"sparsity": 2.0}), (x, Y, {"band": 9})):
        with pytest.raises(Refused, match="another fit"):
            small(**few | options).fit(other, target)


def test_the_scale_of_targets_changes_nothing_and_constants_have_deviations() -> None:
    x = T[:, None]
    plain = small().fit(x, Y).predict(x, return_std=True)
    for scale in (2.0**-600, 2.0**700):
        for found, wanted in zip(small().fit(x, Y * scale).predict(x, return_std=True), plain, strict=True):
            np.testing.assert_allclose(found / scale, wanted)
    means, deviations = small().fit(x, np.full(100, 0.1)).predict(x[:3], return_std=True)
    np.testing.assert_array_equal(means, [0.1] * 3)
    assert deviations.shape == (3,)
