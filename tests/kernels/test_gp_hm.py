"""Equations with known solutions: waves on a line and in the plane, fewer points than Nyquist's, other operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from eckart.errors import Refused
from eckart.kernels._collocation import between, peaks, waves_of
from eckart.kernels._newton import newton
from eckart.kernels.gp_hm import collocate

X = np.linspace(0, 2 * np.pi, 100)


def wave(x: np.ndarray) -> np.ndarray:
    return np.sin(5 * x) + 0.1 * np.sin(25 * x)


def bent(x: np.ndarray) -> np.ndarray:
    return -25 * np.sin(5 * x) - 62.5 * np.sin(25 * x)


def test_frequencies_of_a_source_are_found() -> None:
    t = np.linspace(0, 1, 400)[:, None]
    found = peaks(np.sin(2 * np.pi * 12.3 * t) + 0.2 * np.cos(2 * np.pi * 40.7 * t))
    np.testing.assert_allclose(found[:2], [12.3, 40.7], atol=0.05)
    assert len(peaks(np.zeros((50, 1)))) == 0


def test_the_second_derivative_is_right_at_zero() -> None:
    kernel, x, step = waves_of(np.array([3.0]), 0.4, "matern"), np.linspace(0, 1, 7), 1e-4
    near = (between(kernel, x + step, x) - 2 * between(kernel, x, x) + between(kernel, x - step, x)) / step**2
    np.testing.assert_allclose(between(kernel, x, x, 2), near, rtol=1e-3)
    assert abs(between(kernel, x, x, 2)[0, 0]) > 100


def test_two_waves_on_a_line_and_between_the_points() -> None:
    found = collocate(bent, (X,), boundary=wave, tolerance=1e-5)
    assert found.converged
    assert np.abs(found.value.values - wave(X)).max() < 1e-4
    z = np.linspace(0.1, 6.0, 333)
    assert np.abs(found.value.predict(z) - wave(z)).max() < 1e-4


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_frequencies_that_are_known_need_less_than_two_points_a_wave() -> None:
    for frequencies in ("source", [[70 / (2 * np.pi)]]):
        found = collocate(
            lambda x: -4900 * np.sin(70 * x),
            (X,),
            boundary=lambda x: np.sin(70 * x),
            frequencies=frequencies,
            lengthscale=0.5,
        )
        assert np.abs(found.value.values - np.sin(70 * X)).max() < 1e-3
    wrong = collocate(lambda x: -4900 * np.sin(70 * x), (X,), frequencies=[[1.0]], lengthscale=0.5)
    assert not wrong.converged
    assert wrong.error > 0.1
    learned = collocate(
        lambda x: -400 * np.sin(20 * x),
        (X[::3],),
        boundary=lambda x: np.sin(20 * x),
        frequencies="learn",
        lengthscale=0.1,
    )
    assert learned.error < min(learned.history[0], 1e-3)


def test_the_plane_and_an_operator_with_all_its_terms() -> None:
    x, y = np.linspace(0, 2, 24), np.linspace(-1, 1, 30)

    def u(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sin(6 * x) * np.cos(4 * y) + x

    def source(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        s, c = np.sin(6 * x) * np.cos(4 * y), np.cos(6 * x) * np.cos(4 * y)
        t = np.sin(6 * x) * np.sin(4 * y)
        return -36 * s - 2 * 16 * s + 3 * (6 * c + 1) + 0.5 * (-4 * t) - 2 * (s + x)

    found = collocate(
        source, (x, y), boundary=u, second=(1.0, 2.0), first=(3.0, 0.5), zeroth=-2.0, lengthscale=1.0, tolerance=1e-2
    )
    assert found.converged
    truth = u(*np.meshgrid(x, y, indexing="ij"))
    assert np.abs(found.value.values - truth).max() < 1e-3
    assert np.abs(found.value.predict(x[:5], y[3:9]) - truth[:5, 3:9]).max() < 1e-3


def test_allen_and_cahns_equation_on_a_line_and_in_the_plane() -> None:
    def react(u: np.ndarray) -> np.ndarray:
        return u * (u * u - 1)

    options = {"reaction": react, "base": "rbf", "lengthscale": 1.0, "tolerance": 1e-2}
    found = collocate(lambda x: bent(x) + react(wave(x)), (X,), boundary=wave, **options)
    assert found.converged
    assert np.abs(found.value.values - wave(X)).max() < 1e-3

    def flat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sin(8 * x) * np.sin(8 * y)

    x = np.linspace(0, 2, 25)
    found = collocate(
        lambda x, y: -128 * flat(x, y) + react(flat(x, y)),
        (x, x),
        boundary=flat,
        **options,
    )
    assert np.abs(found.value.values - flat(x[:, None], x)).max() < 1e-3


def test_newtons_steps_are_halved_where_they_grow_and_end_where_nothing_is_gained() -> None:
    def step(u: np.ndarray) -> np.ndarray:
        return u - np.arctan(u) * (1 + u * u)

    # Whole steps from 3 go to and fro without end.
    np.testing.assert_allclose(newton(step, np.arctan, np.array([3.0])), 0, atol=1e-12)
    assert newton(lambda u: u + 1, lambda u: 2 + np.cos(u), np.array([0.1]))[0] != 0.1
    with pytest.raises(np.linalg.LinAlgError, match="begin"):
        newton(step, lambda u: u * np.nan, np.array([-1.0]))


def test_refusals() -> None:
    for make in (
        lambda: collocate(bent, (X[::-1],)),
        lambda: collocate(bent, (X, X, X)),
        lambda: collocate(bent, (X,), second=[0.0]),
        lambda: collocate(bent, (X,), frequencies="fourier"),
        lambda: collocate(bent, (X,), frequencies=[[1.0], [2.0]]),
        lambda: collocate(lambda x: x * np.nan, (X,)),
        lambda: collocate(bent, (X,), base="sinc"),
        lambda: collocate(bent, (X,), boundary=wave, tolerance=1e-4).value.predict(X, X),
    ):
        with pytest.raises(Refused):
            make()


@pytest.mark.parametrize(
    "options",
    [
        {"frequencies": None},
        {"zeroth": "a"},
        {"reaction": 2.0},
        {"reaction": lambda u: u[:1]},
        {"reaction": lambda u: u * np.nan},
        {"reaction": lambda u: 1 / u},
        {"reaction": lambda u: np.where(u < 0, np.nan, u)},
        {"reaction": lambda u: u.astype(str)},
        {"boundary": None},
        {"boundary": "a"},
        {"source": np.zeros(9)},
        {"source": lambda x: np.zeros(4)},
        {"axes": None},
    ],
)
def test_what_is_no_function_or_number_is_refused(options: Any) -> None:
    given = {"source": lambda x: 0 * x, "axes": (np.linspace(0, 1, 9),)} | options
    with pytest.raises(Refused):
        collocate(given.pop("source"), given.pop("axes"), **given)


def test_where_there_is_no_solution_it_is_said_once() -> None:
    x = np.linspace(0, 1, 25)
    with pytest.warns(ConvergenceWarning, match="or there is no solution") as said:
        # u'' + e^u (Bratu, Gelfand) has solutions up to a factor of 3.51 only.
        found = collocate(np.zeros_like, (x,), reaction=lambda u: 20 * np.exp(u), base="rbf", lengthscale=1.0)
    assert len(said) == 1
    assert not found.converged
    assert "above 1e-06" in found.message
    with pytest.raises(Refused, match="NaN or Inf on the way"):
        collocate(np.zeros_like, (x,), boundary=5.0, reaction=lambda u: np.where(u > 1, np.nan, u))
