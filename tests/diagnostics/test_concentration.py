"""Tails and errors on laws for which they are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eckart.diagnostics.concentration import gaussian, sub_gaussian_norm, universality
from eckart.diagnostics.contract import DIAGNOSTICS, Examples, Numbers
from eckart.errors import Refused
from support import hard


def numbers(points: Tensor, labels: Tensor | None = None) -> Numbers:
    return DIAGNOSTICS["concentration"].entry(Examples(points, labels))


def student(n: int, d: int, freedom: int) -> Tensor:
    """Of Student's t with so many degrees of freedom, all coordinates by one divisor."""
    return hard.normal(n, d) / hard.normal(n, freedom, seed=1).square().mean(1, keepdim=True).sqrt()


def test_the_sub_gaussian_norm_is_that_of_its_definition() -> None:
    signs = hard.normal(1000, 1).sign()
    assert float(sub_gaussian_norm(3 * signs)) == pytest.approx(3 / math.sqrt(math.log(2)))
    one = torch.zeros(1000, 1, dtype=torch.float64)
    one[0] = 5  # (999 + exp(25 / t^2)) / 1000 = 2
    assert float(sub_gaussian_norm(one)) == pytest.approx(5 / math.sqrt(math.log(1001)))
    # Quantiles of the normal law, dense enough for its tail to take part.
    grid = torch.special.ndtri((torch.arange(1 << 18, dtype=torch.float64) + 0.5) / (1 << 18))[:, None]
    assert float(sub_gaussian_norm(grid)) == pytest.approx(math.sqrt(8 / 3), rel=0.02)
    assert float(sub_gaussian_norm(torch.zeros(4, 1))) == 0


@pytest.mark.parametrize("decades", [0, 4])
def test_gaussian_points_concentrate(decades: int) -> None:
    found = numbers(hard.normal(1500, 20) * hard.decaying(20, decades))
    assert found["concentrates"]
    assert found["tail_median"] == pytest.approx(1, abs=0.1)
    assert found["directions"] == (20 if decades == 0 else 15)  # singular values above 1e-3


def test_heavy_tails_do_not() -> None:
    found = numbers(student(1500, 20, 2))
    assert not found["concentrates"]
    assert float(found["tail_norm"]) > 5  # type: ignore[arg-type]
    assert not numbers(student(1500, 20, 5))["concentrates"]


def test_a_singular_covariance_is_cut_and_its_law_has_the_same_moments() -> None:
    x = hard.normal(200, 5) @ hard.normal(5, 30, seed=1) + 7
    law = gaussian(x)
    assert law.root.shape == (30, 5)
    assert law.left == pytest.approx(0, abs=1e-12)
    assert torch.allclose(law.root @ law.root.T, torch.cov(x.T, correction=0))
    drawn = law.draw(50, torch.Generator().manual_seed(0))
    assert int(torch.linalg.matrix_rank(drawn - law.mean)) == 5
    assert numbers(x)["directions"] == 5


def test_errors_on_gaussian_classes_are_those_of_their_gaussians() -> None:
    labels = torch.arange(2000) % 2
    x = hard.normal(2000, 4)
    x[:, 0] += 2 * labels
    own, normal = universality(x, 10 * labels)
    best = 0.5 * math.erfc(1 / math.sqrt(2))  # two means at a distance of 2
    for error in (*own, *normal):
        assert error == pytest.approx(best, abs=0.03)


def test_errors_of_classes_that_are_not_gaussian_are_not() -> None:
    """Classes of which one is two halves beside the other: a Gaussian of these moments covers it."""
    labels = torch.arange(600) % 2
    x = 0.01 * hard.normal(600, 3)
    x[:, 0] += torch.where(labels == 0, 0.0, 1.0) * (torch.arange(600) % 4 - 1).double() + 0.4 * labels
    found = numbers(x, labels)
    assert float(found["error_ridge_gaussian"]) > 0.1  # type: ignore[arg-type]
    assert abs(float(found["error_ridge"]) - float(found["error_ridge_gaussian"])) > 0.05  # type: ignore[arg-type]


def test_few_points_are_doubted() -> None:
    x, labels = hard.normal(100, 40), torch.arange(100) % 5
    card = DIAGNOSTICS["concentration"]
    assert card.doubt(Examples(x), numbers(x)) == ""
    subject = Examples(x, labels)
    said = card.doubt(subject, card.entry(subject))
    assert said.startswith("20 points in the smallest class vary in 40 directions")


def test_what_cannot_be_is_refused() -> None:
    x = hard.normal(100, 4)
    for points, labels, said in (
        (x[:50], None, "50 points have no tails; 64 are needed"),
        (torch.ones(100, 4), None, "all the same"),
        (x, torch.arange(100), "100 classes of 1 points or more"),
        (x, torch.zeros(100, dtype=torch.int64), "1 classes of 100 points"),
        (x, torch.zeros(99, dtype=torch.int64), r"labels of shape \(99,\)"),
        (x, torch.zeros(100), "torch.float32 do not go with"),
        (x * math.nan, None, "NaN"),
    ):
        with pytest.raises(Refused, match=said):
            numbers(points, labels)
