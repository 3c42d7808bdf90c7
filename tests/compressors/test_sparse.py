"""Masked, and the pruning papers against their formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import eckart
from eckart import METHODS, Metric, Statistics, StructuredLinear
from eckart.compressors._masks import largest, share
from eckart.compressors._one_by_one import OneByOne
from eckart.structures import Dense, Masked, SemiSparse, Sparse
from support import hard

few = settings(deadline=None, max_examples=25)
UNSTRUCTURED = ("magnitude", "wanda", "sparsegpt")
SEMI = tuple(f"{name}-semi" for name in UNSTRUCTURED)


def correlated(n: int, seed: int = 1) -> Tensor:
    """E[x x^T] of correlated inputs of different sizes."""
    x = hard.normal(4 * n, n, seed=seed) @ (torch.eye(n).double() + n**-0.5 * hard.normal(n, n, seed=seed + 1))
    x = x * 2 ** hard.normal(n, seed=seed + 2)
    return x.T @ x / len(x)


def fitted(name: str, weight: Tensor, moment: Tensor, size: int) -> Tensor:
    statistics = Statistics(1, input_second_moment=moment)
    structure = eckart.fit(weight, name, statistics=statistics, **{METHODS[name].size: size})
    structure.check_values()
    return structure.to_dense().detach()


def random_mask(out: int, columns: int, density: float, seed: int = 0) -> Tensor:
    return torch.rand(out, columns, generator=torch.Generator().manual_seed(seed)) < density


@few
@given(st.integers(1, 7), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_masked_against_a_loop(out: int, columns: int, density: float, seed: int) -> None:
    W, mask = hard.normal(out, columns, seed=seed), random_mask(out, columns, density, seed)
    masked = Masked.from_dense(W, mask)
    masked.check_values()
    width = -(-columns // 8)
    values, packed = [], [[0] * width for _ in range(out)]
    for i in range(out):
        for j in range(columns):
            if mask[i, j]:
                values.append(float(W[i, j]))
                packed[i][j % width] |= 1 << (j // width)
    assert masked.values.tolist() == values
    assert masked.mask.tolist() == packed
    assert masked.mask.dtype == torch.uint8
    dense = torch.where(mask, W, 0.0)
    assert torch.equal(masked.to_dense(), dense)
    index = torch.randint(out, (2, 5), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(masked.rows(index), dense[index])
    cost = masked.cost()
    assert (cost.parameters, cost.bytes, cost.macs) == (len(values), 8 * len(values) + out * width, len(values))
    assert Masked.empty((out, columns), len(values), W.dtype).cost() == cost


def test_masked_stores_zeros_that_train() -> None:
    masked = Masked.from_dense(torch.zeros(2, 3), torch.tensor([[True, False, False], [False, False, True]]))
    masked.check_values()
    masked(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert masked.values.grad is not None
    assert masked.values.grad.tolist() == [1, 3]


def test_masked_rows_train_the_values_asked_for() -> None:
    masked = Masked.from_dense(torch.ones(3, 4), torch.tensor([[1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]]).bool())
    masked.rows(torch.tensor([2, 0, 2])).sum().backward()
    assert masked.values.grad is not None
    assert masked.values.grad.tolist() == [1, 1, 0, 0, 0, 0, 2]


def test_masked_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    W, mask = hard.normal(23, 10, seed=4), random_mask(23, 10, 0.5)
    mask[5:9] = False
    x, g = hard.normal(3, 10, seed=5).requires_grad_(), hard.normal(3, 23, seed=6)
    results = []
    for piece in (1 << 20, 40, 1):
        monkeypatch.setattr("eckart.structures.masked.PIECE", piece)
        masked = Masked.from_dense(W, mask)
        y = masked(x)
        results.append((masked.to_dense(), y, *torch.autograd.grad((y * g).sum(), [masked.values, x])))
    assert torch.equal(results[0][0], torch.where(mask, W, 0.0))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_masked_on_the_meta_device() -> None:
    masked = Masked.empty((3000, 1000), 7, torch.float32)
    assert masked(torch.ones(2, 1000, device="meta")).shape == (2, 3000)
    assert masked.to_dense().shape == (3000, 1000)


def test_masked_forward_of_another_precision_is_refused_as_by_a_dense_layer() -> None:
    masked = Masked.from_dense(torch.ones(3, 4), torch.ones(3, 4).bool())
    with pytest.raises(RuntimeError, match="dtype"):
        masked(torch.ones(2, 4).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_masked_is_the_smaller_one_above_a_sixteenth(dtype: torch.dtype) -> None:
    W = hard.normal(64, 256, seed=2).to(dtype)
    for kept in range(1, 16):
        mask = largest(W.double().abs(), 16 * kept)
        masked, sparse = Masked.from_dense(W, mask), Sparse.from_dense(W * mask)
        assert torch.equal(masked.to_dense(), sparse.to_dense())
        assert masked.cost().bytes < sparse.cost().bytes
    assert Masked.from_dense(W, largest(W.double().abs(), 128)).cost().bytes * 16 == Dense(W).cost().bytes * (
        9 if dtype == torch.bfloat16 else 8.5
    )


byte = torch.uint8
WRONG: dict[str, Callable[[], Masked]] = {
    "mask must be torch.uint8 of shape": lambda: Masked(torch.ones(2), torch.zeros(2, 2), size=9),
    r"shape \(out, 2\), got torch.uint8 of shape \(2, 1\)": lambda: Masked(
        torch.ones(2), torch.zeros(2, 1, dtype=byte), size=9
    ),
    "values must be a floating-point tensor": lambda: Masked(torch.ones(2, 1), torch.zeros(2, 2, dtype=byte), size=9),
    r"19 values do not fit a matrix of shape \(2, 9\)": lambda: Masked(
        torch.ones(19), torch.zeros(2, 2, dtype=byte), size=9
    ),
    "mask must be torch.bool": lambda: Masked.from_dense(torch.ones(2, 3), torch.ones(2, 3)),
    r"of shape \(2, 3\), got torch.bool of shape \(3, 2\)": lambda: Masked.from_dense(
        torch.ones(2, 3), torch.ones(3, 2).bool()
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_masked_refuses(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_masked_finds_damage() -> None:
    good = Masked.from_dense(torch.ones(2, 9), random_mask(2, 9, 0.5))
    nnz = len(good.values)
    with pytest.raises(ValueError, match=f"{nnz - 1} values but {nnz} places"):
        Masked(good.values[1:], good.mask, size=9).check_values()
    # 9 columns in 2 bytes: the second byte has place for columns 1, 3, 5, 7, then for 9, 11, ...
    beyond = torch.zeros(2, 2, dtype=byte)
    beyond[1, 1] = 1 << 4
    with pytest.raises(ValueError, match="columns beyond 9"):
        Masked(torch.ones(1), beyond, size=9).check_values()


@few
@given(st.integers(1, 5), st.integers(1, 30), st.integers(0, 99), st.data())
def test_largest_against_a_stable_sort(rows: int, columns: int, seed: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, columns))
    levels = data.draw(st.sampled_from([1, 3, 1000]))  # with many ties, and with few
    score = torch.randint(levels, (rows, columns), generator=torch.Generator().manual_seed(seed)).double()
    mask = largest(score, kept)
    for row, chosen in zip(score.tolist(), mask.tolist(), strict=True):
        order = sorted(range(columns), key=lambda j: -row[j])[:kept]
        assert [j for j in range(columns) if chosen[j]] == sorted(order)


@pytest.mark.parametrize("name", METHODS)
def test_an_exact_number_is_stored(name: str) -> None:
    if name not in UNSTRUCTURED + SEMI:
        pytest.skip("is not sparse")
    for out, columns in ((7, 30), (5, 300), (1, 9), (9, 1), (30, 3)):
        weight = hard.normal(out, columns, seed=3).to(torch.bfloat16)
        family = METHODS[name].entry(weight, Statistics(1, input_second_moment=correlated(columns)))
        dense = weight.numel() * weight.element_size()
        for size, cost in zip(family.sizes, family.costs, strict=True):
            structure = family.build(size).structure
            structure.check_values()
            assert structure.cost() == cost
            assert cost.bytes < dense
            if isinstance(structure, Masked):
                expected = {
                    "magnitude": share(size, out * columns),
                    "wanda": out * share(size, columns),
                    "sparsegpt": sum(share(size, out * min(128, columns - j)) for j in range(0, columns, 128)),
                }[name]
                assert cost.parameters == expected > 0
                compared = {"magnitude": 1, "wanda": out, "sparsegpt": -(-columns // 128)}[name]
                assert -1e-9 < size / 100 * out * columns - expected < compared
            else:
                assert isinstance(structure, SemiSparse)
                assert (structure.to_dense() != 0).sum(1).tolist() == [
                    sum(min(size, columns - j, 4) for j in range(0, columns, 4))
                ] * out
        assert list(family.sizes) or columns == 1


@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_a_matrix_without_smaller_forms_offers_none(name: str) -> None:
    family = METHODS[name].entry(torch.ones(1, 1), Statistics(1, input_second_moment=torch.ones(1, 1)))
    assert len(family.sizes) == len(family.costs) == len(family.errors) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_the_file_has_the_bytes_of_the_cost(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    weight = hard.normal(24, 45, seed=5).to(dtype)
    family = METHODS[name].entry(weight, Statistics(1, input_second_moment=correlated(45)))
    for size, cost in zip(family.sizes, family.costs, strict=True):
        folder = tmp_path / str(size)
        eckart.save(nn.Sequential(StructuredLinear(family.build(size).structure)), folder)
        (file,) = folder.glob("*.safetensors")
        blob = file.read_bytes()
        assert cost.bytes == len(blob) - 8 - int.from_bytes(blob[:8], "little") < weight.numel() * dtype.itemsize


@pytest.mark.parametrize("percent", [5, 50, 85])
def test_magnitude_keeps_the_largest_of_the_matrix(percent: int) -> None:
    weight = hard.normal(13, 22, seed=6)
    order = sorted(((abs(float(weight[i, j])), i, j) for i in range(13) for j in range(22)), reverse=True)
    expected = torch.zeros_like(weight)
    for _, i, j in order[: share(percent, 13 * 22)]:
        expected[i, j] = weight[i, j]
    assert torch.equal(fitted("magnitude", weight, torch.eye(22), percent), expected)


@pytest.mark.parametrize("percent", [5, 50, 85])
def test_wanda_is_a_sort_of_each_row(percent: int) -> None:
    weight, moment = hard.normal(13, 22, seed=6), correlated(22)
    expected = torch.zeros_like(weight)
    for i in range(13):
        order = sorted(range(22), key=lambda j: -abs(float(weight[i, j])) * float(moment[j, j]) ** 0.5)
        for j in order[: share(percent, 22)]:
            expected[i, j] = weight[i, j]
    assert torch.equal(fitted("wanda", weight, moment, percent), expected)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_of_four_neighbours_the_best_are_kept(kept: int) -> None:
    weight, moment = hard.normal(5, 23, seed=7), correlated(23)
    for name, norm in (("magnitude-semi", torch.ones(23).double()), ("wanda-semi", moment.diagonal().sqrt())):
        expected = torch.zeros_like(weight)
        for i in range(5):
            for first in range(0, 23, 4):
                group = range(first, min(first + 4, 23))
                for j in sorted(group, key=lambda j: -abs(float(weight[i, j] * norm[j])))[:kept]:
                    expected[i, j] = weight[i, j]
        assert torch.equal(fitted(name, weight, moment, kept), expected)


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_surgery_beats_scores_and_scores_beat_magnitudes(seed: int, dtype: torch.dtype) -> None:
    weight, moment = hard.normal(40, 200, seed=10 + seed).to(dtype), correlated(200, seed=20 + seed)
    metric = Metric(right=moment)
    for suffix, sizes in (("", range(20, 85, 10)), ("-semi", range(1, 4))):
        for size in sizes:
            magnitude, wanda, sparsegpt = (
                float(metric.error(weight.double() - fitted(name + suffix, weight, moment, size).double()))
                for name in UNSTRUCTURED
            )
            assert sparsegpt < wanda < magnitude


def test_surgery_of_independent_inputs_changes_no_weight() -> None:
    weight, moment = hard.normal(6, 150, seed=8), (hard.normal(150, seed=9).square() + 0.1).diag()
    for name, size in (("sparsegpt", 50), ("sparsegpt-semi", 2)):
        pruned = fitted(name, weight, moment, size)
        assert torch.equal(pruned, torch.where(pruned == 0, 0.0, weight))
    assert torch.equal(pruned, fitted("wanda-semi", weight, moment + 1e-2 * moment.trace() / 150 * torch.eye(150), 2))


@pytest.mark.parametrize("name", [*UNSTRUCTURED, *SEMI])
def test_where_nothing_was_seen_magnitudes_decide(name: str) -> None:
    weight = hard.normal(8, 100, seed=11)
    size = 50 if METHODS[name].size == "percent" else 2
    pruned = fitted(name, weight, torch.zeros(100, 100), size)
    assert torch.equal(pruned, torch.where(pruned == 0, 0.0, weight))
    assert weight[pruned == 0].abs().mean() < 0.5 * weight[pruned != 0].abs().mean()


@pytest.mark.parametrize("name", ["wanda", "sparsegpt"])
def test_silent_inputs_go_first(name: str) -> None:
    weight, moment = hard.normal(8, 40, seed=11), correlated(40)
    weight[:, 3] *= 1e3
    moment[3, :] = moment[:, 3] = 0
    assert not fitted(name, weight, moment, 90)[:, 3].any()
    metric = Metric(right=moment)
    assert float(metric.error(weight - fitted(name, weight, moment, 95))) < 0.02 * float(metric.error(weight))


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


@pytest.mark.parametrize("name", ["wanda", "wanda-semi", "sparsegpt", "sparsegpt-semi"])
def test_statistics_that_do_not_fit_are_refused(name: str) -> None:
    statistics = Statistics(1, input_second_moment=torch.eye(9))
    with pytest.raises(ValueError, match=r"second moment of shape \(9, 9\) does not fit a weight of shape \(4, 8\)"):
        METHODS[name].entry(torch.ones(4, 8), statistics)
    if name.startswith("sparsegpt"):
        indefinite = replace(statistics, input_second_moment=2 * torch.ones(8, 8) - torch.eye(8))
        with pytest.raises(ValueError, match="not positive semi-definite"):
            _ = METHODS[name].entry(torch.ones(4, 8), indefinite).errors
