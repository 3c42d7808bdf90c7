"""Kernels of lattices and nets beside their series, the points' own order, and means with honest deviations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from eckart.errors import Refused
from eckart.kernels import DigitalNet, Lattice
from eckart.kernels._low_discrepancy import VECTOR, digital_difference
from eckart.kernels.fast_qmc_kernels import BernoulliKernel, WalshKernel, bernoulli, fit_on_lattice, walsh_series
from eckart.linalg.hadamard import walsh_hadamard


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_periodic_kernel_is_its_fourier_series(order: int) -> None:
    t = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.93], dtype=torch.float64)
    h = torch.arange(1, 20001, dtype=torch.float64)[:, None]
    series = 2 * ((2 * np.pi * h * t).cos() / h ** (2 * order)).sum(0)
    torch.testing.assert_close(bernoulli(order, t), series, rtol=0, atol=2e-4 if order == 1 else 1e-10)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_digital_kernel_is_its_walsh_series(order: int) -> None:
    bits = 11
    n = 1 << bits
    places = [[bit + 1 for bit in reversed(range(bits)) if k >> bit & 1] for k in range(n)]
    if order == 1:  # without the constant, and times 2
        wanted = np.array([0.0] + [2.0 * 4.0 ** -digits[0] for digits in places[1:]])
    else:
        wanted = np.array([0.0] + [2.0 ** -sum(digits[:order]) for digits in places[1:]])
    t = torch.arange(n, dtype=torch.float64) / n
    # The digits of k and of t are paired from the two ends; longer k are seen as shorter ones, a few per cent.
    turned = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(n)]
    found = (walsh_hadamard(walsh_series(order, t)) / n**0.5)[turned].numpy()
    np.testing.assert_allclose(found[1:], wanted[1:], rtol=0.1, atol=2e-6)


def test_points_double_and_are_good() -> None:
    shift = np.array([0.2, 0.9, 0.4])
    torch.testing.assert_close(Lattice(64, 3, shift).array()[::2], Lattice(32, 3, shift).array(), rtol=0, atol=0)
    net = DigitalNet(64, 3, shift).array()
    torch.testing.assert_close(net[:32], DigitalNet(32, 3, shift).array(), rtol=0, atol=0)
    i, j = torch.arange(64), torch.arange(64).flip(0) // 3
    torch.testing.assert_close(
        digital_difference(digital_difference(net[i], net[j]), net[i ^ j]), net[:1].expand(64, 3)
    )
    for p in range(3):  # one point in each interval of a coordinate
        assert (
            len(set((net[:, p] * 64).long().tolist())) == len(set((Lattice(64, 3).array()[:, p] * 64).tolist())) == 64
        )
    kernel, rng, errors = BernoulliKernel(1, 1 / np.arange(1, 9) ** 2), np.random.default_rng(0), []
    for vector in [np.array(VECTOR[:8]), *(2 * rng.integers(0, 2**19, (20, 8)) + 1)]:
        with torch.no_grad():
            errors.append(float(kernel.gram(Lattice(1024, 8, vector=vector)).column.mean()) - 1)
    assert errors[0] < 0.5 * np.median(errors[1:])


def test_the_process_is_the_dense_one() -> None:
    rng = np.random.default_rng(0)

    def wave(x: np.ndarray) -> np.ndarray:
        return np.exp(np.sin(2 * np.pi * x).sum(1))

    for points, kind in (("lattice", BernoulliKernel), ("net", WalshKernel)):
        found = fit_on_lattice(
            wave, 2, tolerance=1.0, points=points, order=2, weights=[0.3, 0.2], start=32, noise=1e-6, generator=0
        ).value
        k, x, z = kind(2, [0.3, 0.2]), found.points, rng.random((6, 2))
        gram = k(x).numpy(force=True) - 1
        gram += 1e-6 * k.diag(z)[0] * np.eye(32)
        one, solved = np.ones(32), np.linalg.solve(gram, np.column_stack([np.ones(32), found.values]))
        weight = one @ solved[:, 0]
        mean = one @ solved[:, 1] / weight
        rest = found.values - mean
        scale = rest @ np.linalg.solve(gram, rest) / 31
        assert found.mean == pytest.approx(mean)
        assert found.scale == pytest.approx(scale)
        assert found.sd == pytest.approx((scale / weight) ** 0.5)
        across = k(z, x.array().numpy()) - 1
        far = np.linalg.solve(gram, across.T)
        left = k.diag(z) - 1 - (across * far.T).sum(1) + (1 - one @ far) ** 2 / weight
        means, deviations = found.predict(z, return_std=True)
        np.testing.assert_allclose(means, mean + across @ np.linalg.solve(gram, rest), rtol=1e-8)
        np.testing.assert_allclose(deviations, np.sqrt(scale * left), rtol=1e-7)


def test_it_doubles_until_it_knows_and_asks_for_no_point_twice() -> None:
    asked: list[np.ndarray] = []

    def bump(x: np.ndarray) -> np.ndarray:
        asked.append(x)
        return 5e4 + np.exp(-(x**2) / 8).prod(1)

    truth = 5e4 + (0.25 * 2 * np.sqrt(2 * np.pi) * 0.4772498680518208) ** 2
    inside = []
    for points, folded, tolerance in (("lattice", True, 5e-5), ("net", False, 5e-4)):
        asked.clear()
        found = fit_on_lattice(
            bump, 2, tolerance=tolerance, points=points, folded=folded, bounds=[[-4, 4], [-4, 4]], generator=1
        )
        assert found.converged
        assert found.iterations > 1
        assert found.calls == len(np.concatenate(asked)) == len(np.unique(np.concatenate(asked).round(9), axis=0))
        inside.append(abs(found.value.mean - truth) < 4 * found.value.sd)
        z = np.random.default_rng(2).uniform(-4, 4, (200, 2))
        means, deviations = found.value.predict(z, return_std=True)
        wrong = np.abs(means - (5e4 + np.exp(-(z**2) / 8).prod(1)))
        assert wrong.max() < 0.04
        assert (wrong < 3 * deviations + 1e-6).mean() > 0.9
    assert all(inside)
    assert not fit_on_lattice(bump, 2, tolerance=1e-12, limit=512).converged
    assert fit_on_lattice(lambda x: np.zeros(len(x)), 3, tolerance=1e-3).value.sd == 0


def test_refusals() -> None:
    def flat(x: np.ndarray) -> np.ndarray:
        return np.ones(len(x))

    with pytest.raises(Refused, match="take Nystroem"):
        fit_on_lattice(np.ones((8, 2)), 2, tolerance=1.0)  # type: ignore[arg-type]
    for make in (
        lambda: fit_on_lattice(lambda x: np.full(len(x), np.nan), 2, tolerance=1.0),
        lambda: fit_on_lattice(lambda x: np.ones(3), 2, tolerance=1.0),
        lambda: fit_on_lattice(flat, 2, tolerance=0.0),
        lambda: fit_on_lattice(flat, 2, tolerance=1.0, start=3),
        lambda: fit_on_lattice(flat, 2, tolerance=1.0, bounds=[[0, 0], [0, 1]]),
        lambda: fit_on_lattice(flat, 2, tolerance=1.0).value.predict([[0.5, 1.5]]),
        lambda: Lattice(8, 40),
        lambda: Lattice(8, 2, [0.0, 1.0]),
        lambda: DigitalNet(6, 2),
        lambda: WalshKernel(2)(np.array([[1.0]])),
        lambda: WalshKernel(2)(torch.rand(3, 1, requires_grad=True)).sum().backward(),
        lambda: BernoulliKernel(4),
        lambda: BernoulliKernel(1, [1.0, 2.0])(np.ones((2, 3))),
    ):
        with pytest.raises(Refused):
            make()


def test_a_function_of_any_scale_has_its_mean_or_is_refused() -> None:
    def wave(scale: float) -> Any:
        options = {"tolerance": 1e-3 * scale, "start": 64, "limit": 128, "folded": True, "generator": 0}
        return fit_on_lattice(lambda u: scale * np.exp(-u.sum(1)), 2, **options)

    plain, far = wave(1.0), wave(2.0**-450)
    assert far.value.mean == pytest.approx(plain.value.mean * 2.0**-450)
    assert far.error == pytest.approx(plain.error * 2.0**-450, rel=1e-4)
    for scale in (1e-200, 1e200):
        with pytest.raises(Refused, match="variances"):
            wave(scale)


@pytest.mark.parametrize("options", [{"order": 0}, {"start": 8, "limit": 4}, {"noise": None}, {"noise": "a"}])
def test_lattice_options_out_of_range(options: Any) -> None:
    with pytest.raises(Refused, match=next(iter(options))):
        fit_on_lattice(lambda u: u[:, 0], 2, tolerance=0.1, **options)
