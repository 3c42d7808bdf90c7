"""SparseGPT against optimal brain surgery with explicit inverses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eckart import METHODS, Statistics
from eckart.compressors._masks import share
from eckart.compressors._one_by_one import OneByOne
from support import hard
from support.pruning import correlated, fitted


def surgery(weight: Tensor, moment: Tensor, width: int, kept: Callable[[Tensor], Tensor]) -> Tensor:
    """Optimal brain surgery, column by column, with the explicit inverse over the columns that are left."""
    n = len(moment)
    inverse = torch.linalg.inv(moment + 1e-2 * moment.diagonal().mean() * torch.eye(n, dtype=moment.dtype))
    # The pivot of column j when the columns before it are gone.
    pivots, left = [], inverse.clone()
    for j in range(n):
        pivots.append(float(left[j, j]))
        left -= torch.outer(left[:, j], left[j]) / left[j, j]
    rest, mask = weight.clone(), torch.zeros_like(weight)
    for j in range(n):
        if j % width == 0:
            group = range(j, min(j + width, n))
            score = torch.stack([rest[:, k] ** 2 / pivots[k] * (float(moment[k, k]) > 0) for k in group], 1)
            mask[:, j : j + width] = kept(score)
        cut = rest[:, j] * (1 - mask[:, j])
        rest -= torch.outer(cut, inverse[j] / inverse[j, j])
        inverse -= torch.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return rest * mask


def first_of(order: list[int], n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.float64).index_fill(0, torch.tensor(order, dtype=torch.int64), 1.0)


@pytest.mark.parametrize("percent", [10, 50, 75])
@pytest.mark.parametrize("dead", [False, True])
def test_sparsegpt_is_optimal_brain_surgery_with_explicit_inverses(percent: int, dead: bool) -> None:
    weight, moment = hard.normal(6, 150, seed=8), correlated(150)
    if dead:
        moment[:, 7] = moment[7, :] = 0

    def kept(score: Tensor) -> Tensor:
        flat = score.flatten().tolist()
        order = sorted(range(len(flat)), key=lambda k: -flat[k])[: share(percent, len(flat))]
        return first_of(order, len(flat)).view(score.shape)

    expected = surgery(weight, moment, 128, kept)
    torch.testing.assert_close(fitted("sparsegpt", weight, moment, percent), expected, rtol=1e-9, atol=1e-10)
    assert not dead or not expected[:, 7].any()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_sparsegpt_semi_is_optimal_brain_surgery_with_explicit_inverses(n: int) -> None:
    weight, moment = hard.normal(6, 150, seed=8), correlated(150)

    def kept(score: Tensor) -> Tensor:
        rows = [sorted(range(len(row)), key=lambda k, row=row: -row[k])[:n] for row in score.tolist()]
        return torch.stack([first_of(order, score.shape[1]) for order in rows])

    expected = surgery(weight, moment, 4, kept)
    torch.testing.assert_close(fitted("sparsegpt-semi", weight, moment, n), expected, rtol=1e-9, atol=1e-10)


def test_surgery_of_independent_inputs_changes_no_weight() -> None:
    weight, moment = hard.normal(6, 150, seed=8), (hard.normal(150, seed=9).square() + 0.1).diag()
    for name, size in (("sparsegpt", 50), ("sparsegpt-semi", 2)):
        pruned = fitted(name, weight, moment, size)
        assert torch.equal(pruned, torch.where(pruned == 0, 0.0, weight))
    assert torch.equal(pruned, fitted("wanda-semi", weight, moment + 1e-2 * moment.trace() / 150 * torch.eye(150), 2))


@pytest.mark.parametrize("name", ["sparsegpt", "sparsegpt-semi"])
def test_short_dtypes_do_not_overflow(name: str) -> None:
    x = hard.normal(64, 1, seed=12) + 0.1 * hard.normal(64, 32, seed=13)
    weight = (6e4 + hard.normal(4, 32, seed=14)).half()
    pruned = fitted(name, weight, x.T @ x / 64, 25 if METHODS[name].size == "percent" else 1)
    assert torch.isfinite(pruned).all()
    assert pruned.abs().max() == torch.finfo(torch.float16).max  # the kept ones would have to be four times as large


@pytest.mark.parametrize("name", ["sparsegpt", "sparsegpt-semi"])
@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_the_scale_of_the_inputs_does_not_matter(name: str, scale: float) -> None:
    weight, moment = hard.normal(4, 32, seed=14).float(), correlated(32)
    size = 50 if METHODS[name].size == "percent" else 2
    one, other = fitted(name, weight, moment, size), fitted(name, weight, moment * scale, size)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sparsegpt", "sparsegpt-semi"])
def test_sizes_share_one_factor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from eckart.compressors import sparsegpt

    calls, real = [], sparsegpt.inverse_factor

    def counted(moment: Tensor) -> Tensor:
        calls.append(len(moment))
        return real(moment)

    monkeypatch.setattr(sparsegpt, "inverse_factor", counted)
    family = METHODS[name].entry(hard.normal(8, 40), Statistics(1, input_second_moment=correlated(40)))
    assert isinstance(family, OneByOne)
    assert calls == []
    assert len(family.errors) > 1
    family.build(family.sizes[0])
    assert calls == [40]
