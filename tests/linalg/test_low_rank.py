"""`project` against the optimum by explicit square roots."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.linalg import Projection, nested_errors, project
from eckart.metrics import Metric, Side
from support import hard
from support.roots import root, sides

few = settings(deadline=None, max_examples=25)

SHAPES = [(5, 9), (9, 5), (7, 7), (1, 6), (6, 1)]

SIDES = ("none", "vector", "matrix")


def metric_of(left: str, right: str, shape: tuple[int, int], seed: int = 1) -> Metric:
    return Metric(sides(shape[0], seed)[left], sides(shape[1], seed + 1)[right])


def optimal_errors(weight: Tensor, metric: Metric) -> Tensor:
    """Squared error of the best approximation at rank 0, 1, ..., from the SVD of L^1/2 W R^1/2."""
    m = root(metric.left, len(weight)) @ weight.double() @ root(metric.right, weight.shape[1])
    squares = torch.linalg.svdvals(m).square()
    return torch.cat([squares.flip(0).cumsum(0).flip(0), squares.new_zeros(1)])


def approximation(projection: Projection, weight: Tensor, rank: int) -> Tensor:
    left, right = projection.factors(weight, rank)
    assert left.shape == (weight.shape[0], rank)
    assert right.shape == (rank, weight.shape[1])
    return left @ right


def check(weight: Tensor, metric: Metric, rtol: float = 1e-11) -> Projection:
    """The properties of a projection that hold for every weight and metric; tolerances relative to the error of 0."""
    projection = project(weight, metric)
    w = weight.double()
    scale = float(metric.error(w))
    close = {"rtol": 1e-9, "atol": rtol * scale}
    errors = projection.errors
    assert errors.dtype == torch.float64
    assert errors.shape == (min(weight.shape) + 1,)
    assert (errors.diff() <= 0).all()
    assert errors[-1] == 0
    torch.testing.assert_close(errors, optimal_errors(weight, metric), **close)
    measured = torch.stack([metric.error(w - approximation(projection, weight, r)) for r in range(len(errors))])
    torch.testing.assert_close(errors, measured, **close)
    full = len(errors) - 1
    assert torch.equal(approximation(projection, weight, full), w)
    return projection


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("left", SIDES)
@pytest.mark.parametrize("right", SIDES)
def test_errors_are_optimal_and_measured(left: str, right: str, shape: tuple[int, int]) -> None:
    weight, metric = hard.normal(*shape, seed=5), metric_of(left, right, shape)
    projection = check(weight, metric)
    expected = root(metric.left, shape[0]) @ weight @ root(metric.right, shape[1])
    u, s, vh = torch.linalg.svd(expected, full_matrices=False)
    for rank in range(min(shape)):
        best = u[:, :rank] * s[:rank] @ vh[:rank]
        best = torch.linalg.pinv(root(metric.left, shape[0])) @ best @ torch.linalg.pinv(root(metric.right, shape[1]))
        torch.testing.assert_close(approximation(projection, weight, rank), best, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("left", SIDES)
@pytest.mark.parametrize("right", SIDES)
def test_the_projection_itself_is_whole_at_full_rank(left: str, right: str, shape: tuple[int, int]) -> None:
    weight, metric = hard.normal(*shape, seed=5), metric_of(left, right, shape)
    p = project(weight, metric)
    oblique = p.synthesis @ p.analysis.T
    torch.testing.assert_close(p.analysis.T @ p.synthesis, torch.eye(min(shape)).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(oblique @ weight if p.left else weight @ oblique.T, weight, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (7, 7)], ids=str)
@pytest.mark.parametrize("name", hard.second_moments(5))
def test_hard_sides(name: str, shape: tuple[int, int]) -> None:
    out, columns = shape
    left, right = hard.second_moments(out)[name], hard.second_moments(columns)[name]
    weight = hard.normal(*shape, seed=5)
    metrics: dict[str, tuple[Side, Side]] = {
        "left": (left, None),
        "right": (None, right),
        "left diagonal": (left.diagonal(), None),
        "right diagonal": (None, right.diagonal()),
        "both": (left, hard.second_moments(columns)["general"]),
        "both hard": (left, right * 1e-190 if name == "huge" else right),
        "both diagonal": (left.diagonal(), hard.second_moments(columns)["general"].diagonal()),
        "mixed": (hard.second_moments(out)["general"].diagonal(), right),
    }
    for l, r in metrics.values():
        check(weight, Metric(l, r), rtol=1e-9)


@pytest.mark.parametrize("name", hard.weights())
def test_hard_weights(name: str) -> None:
    weight = hard.weights()[name]
    before = weight.clone()
    for left in SIDES:
        for right in SIDES:
            metric = metric_of(left, right, (weight.shape[0], weight.shape[1]))
            if name == "graded-entries":
                with pytest.raises(ValueError, match="overflows"):
                    project(weight, metric)
            else:
                check(weight, metric, rtol=1e-10)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", hard.refused())
def test_weights_that_are_not_finite_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="NaN or Inf"):
        project(hard.refused()[name], Metric())


@few
@given(st.sampled_from(SHAPES), st.sampled_from(SIDES), st.sampled_from(SIDES), st.integers(0, 99))
def test_nothing_nearby_is_better(shape: tuple[int, int], left: str, right: str, seed: int) -> None:
    weight, metric = hard.normal(*shape, seed=seed), metric_of(left, right, shape, seed)
    projection = project(weight, metric)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    for rank in range(1, min(shape)):
        assert metric.error(weight - u[:, :rank] * s[:rank] @ vh[:rank]) * (1 + 1e-9) >= projection.errors[rank]
        a, b = projection.factors(weight, rank)
        for size in (1e-4, 1e-2, 1.0):
            da, db = hard.normal(*a.shape, seed=seed + 1), hard.normal(*b.shape, seed=seed + 2)
            near = (a + size * a.norm() * da) @ (b + size * b.norm() * db)
            assert metric.error(weight - near) * (1 + 1e-9) >= projection.errors[rank]


@pytest.mark.parametrize("left", SIDES)
@pytest.mark.parametrize("right", SIDES)
@pytest.mark.parametrize("factor", [2.0**-400, 1e-150, 1e-30, 1e30, 1e140])
def test_scaling_the_weight_scales_its_approximation(left: str, right: str, factor: float) -> None:
    weight, metric = hard.normal(6, 8, seed=5), metric_of(left, right, (6, 8))
    one, other = project(weight, metric), project(weight * factor, metric)
    torch.testing.assert_close(other.errors / factor / factor, one.errors, rtol=1e-9, atol=0)
    for rank in range(7):
        a = approximation(other, weight * factor, rank) / factor
        torch.testing.assert_close(a, approximation(one, weight, rank), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-290, 1e-100, 1e100, 1e290])
def test_scaling_a_side_leaves_the_approximation(factor: float) -> None:
    for shape in ((6, 8), (8, 6)):
        weight = hard.normal(*shape, seed=5)
        l, r = sides(shape[0], 1)["matrix"], sides(shape[1], 2)["matrix"]
        assert l is not None
        assert r is not None
        one = project(weight, Metric(l, r))
        for metric in (Metric(l * factor, r), Metric(l, r * factor)):
            other = project(weight, metric)
            torch.testing.assert_close(other.errors / factor, one.errors, rtol=1e-9, atol=0)
            torch.testing.assert_close(
                approximation(other, weight, 3), approximation(one, weight, 3), rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("left", SIDES)
@pytest.mark.parametrize("right", SIDES)
def test_transposing_swaps_the_sides(left: str, right: str) -> None:
    weight, metric = hard.normal(6, 8, seed=5), metric_of(left, right, (6, 8))
    one, other = project(weight, metric), project(weight.T, Metric(metric.right, metric.left))
    torch.testing.assert_close(other.errors, one.errors, rtol=1e-10, atol=1e-12)
    for rank in range(6):
        torch.testing.assert_close(
            approximation(other, weight.T, rank).T, approximation(one, weight, rank), rtol=1e-8, atol=1e-9
        )


def test_smaller_ranks_are_slices_of_larger_ones() -> None:
    for shape in ((6, 8), (8, 6)):
        weight = hard.normal(*shape)
        projection = project(weight, metric_of("matrix", "matrix", shape))
        left, right = projection.factors(weight, 5)
        for rank in range(5):
            a, b = projection.factors(weight, rank)
            torch.testing.assert_close(a, left[:, :rank], rtol=1e-13, atol=1e-13)
            torch.testing.assert_close(b, right[:rank], rtol=1e-13, atol=1e-13)


def test_ranks_and_sides_that_do_not_fit_are_refused() -> None:
    projection = project(torch.eye(3), Metric())
    for rank in (-1, 4):
        with pytest.raises(ValueError, match=f"rank {rank}"):
            projection.factors(torch.eye(3), rank)
    with pytest.raises(ValueError, match="size 4"):
        project(torch.ones(2, 3), Metric(left=torch.ones(4)))
    with pytest.raises(ValueError, match="size 2"):
        project(torch.ones(2, 3), Metric(right=torch.eye(2)))
    with pytest.raises(ValueError, match="matrix is needed"):
        project(torch.ones(3), Metric())


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)], ids=str)
def test_a_large_moment_that_the_weight_does_not_see(shape: tuple[int, int]) -> None:
    # All of R's size lies where W is zero: the product W R W^T cancels.
    weight, ray = hard.normal(*shape, seed=5), hard.normal(1, shape[1], seed=6)
    ray = ray / ray.norm()
    weight = weight - weight @ ray.T @ ray
    right = hard.second_moments(shape[1])["general"] + 1e5 * ray.T @ ray
    metric = Metric(sides(shape[0], 1)["matrix"], right)
    for m in (metric, Metric(right=right)):
        errors, expected = project(weight, m).errors, optimal_errors(weight, m)
        torch.testing.assert_close(errors, expected, rtol=1e-6, atol=1e-9 * float(expected[0]))


@few
@given(
    out=st.integers(1, 9), columns=st.integers(1, 9), k=st.integers(1, 7), sides=st.integers(0, 8),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_nested_errors_are_those_of_every_product(out: int, columns: int, k: int, sides: int, seed: int) -> None:
    weight, left, right = (
        hard.normal(*s, seed=seed + i) for i, s in enumerate(((out, columns), (out, k), (k, columns)))
    )
    g, h = hard.normal(out, out, seed=seed + 3), hard.normal(columns, columns, seed=seed + 4)
    metric = Metric([None, g[0].square(), g @ g.T][sides % 3], [None, h[0].square(), h @ h.T][sides // 3])
    expected = torch.stack([metric.error(weight - left[:, :r] @ right[:r]) for r in range(k + 1)])
    torch.testing.assert_close(nested_errors(weight, left, right, metric), expected, rtol=1e-9, atol=1e-9)
