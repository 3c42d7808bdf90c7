"""Every compressor on a net of convolutions, and those for filters alone against one suite."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

import eckart
from eckart import METHODS, Metric, Statistics, StructuredConv2d
from eckart.jobs.compress.report import expression
from eckart.structures import Dense, Geometry
from support import hard
from support.cases import each
from support.convolutions import KERNELS, Net, chosen, family, images, net, normal_filters


def test_a_matrix_that_does_not_act_on_such_patches_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 7\) does not act on patches of 3 x 1"):
        StructuredConv2d(Dense(torch.ones(4, 7)), None, Geometry((3, 1)))
    for name in KERNELS:
        with pytest.raises(ValueError, match=r"\(4, 7\) does not act on patches of 3 x 1"):
            METHODS.find(name).entry(torch.ones(4, 7), Statistics(patch=(3, 1)))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_compresses_a_network_and_the_file_holds_it(method: str, tmp_path: Path) -> None:
    model, x = net(), images()
    result = eckart.compress(model, method=method, keep=0.85, of="bytes", calibration=[images(8, seed=5)])
    assert not [text for text in result.warnings if "token by token" not in text]
    convolutions = {n: m for n, m in model.named_modules() if isinstance(m, StructuredConv2d)}
    assert convolutions
    eckart.save(model, tmp_path / "small")
    loaded = eckart.load(tmp_path / "small", Net(seed=9)).eval()
    assert {n: expression(m.structure) for n, m in loaded.named_modules() if isinstance(m, StructuredConv2d)} == {
        n: expression(m.structure) for n, m in convolutions.items()
    }
    one, other = model.state_dict(), loaded.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    # Copied, because a file aligns tensors to 8 bytes only, and the order of a sum can depend on that.
    assert torch.equal(copy.deepcopy(loaded)(x), model(x))


@pytest.mark.parametrize("method", ["svd", "kfac", "auto", *KERNELS])
def test_more_of_a_network_is_nearer_to_it(method: str) -> None:
    dense, x = net(), images(32, seed=8)
    errors = []
    for keep in (0.3, 0.95):
        model = net()
        options = {"keep": keep, "calibration": [images(32, seed=5)], "exclude": ("head",)}
        eckart.compress(model, method=method, **options)
        errors.append(((model(x) - dense(x)).norm() / dense(x).norm()).item())
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.1


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *((shape, torch.float64) for shape in [(6, 5, 3, 3), (5, 6, 2, 3), (7, 5, 1, 3), (5, 7, 3, 1), (9, 1, 3, 3)]),
        ((6, 4, 2, 3), torch.bfloat16),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", KERNELS)
def test_a_family_of_kernels_keeps_its_promises(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    filters = normal_filters(*shape).to(dtype)
    found = family(name, filters)
    assert [c.bytes for c in found.costs] == sorted(c.bytes for c in found.costs)
    assert len(found.sizes) > 0
    assert found.costs[-1].parameters < filters.numel()
    at = dict(zip(found.sizes, zip(found.costs, found.errors, strict=True), strict=True))
    assert (found.errors.diff() <= 0).all()
    for size in chosen(found):
        cost, error = at[size]
        structure = found.build(size).structure
        assert structure.dtype == dtype
        assert structure.cost().bytes <= cost.bytes  # after errors were read, the best candidate up to that size
        if dtype == torch.float64:
            difference = filters.flatten(1) - structure.to_dense()
            torch.testing.assert_close(Metric().error(difference), error, rtol=1e-6, atol=1e-9)
        assert family(name, filters).build(size).structure.cost() == cost


@pytest.mark.parametrize("name", ["spatial-svd", "cp"])
def test_without_patches_it_is_the_svd(name: str) -> None:
    weight = hard.normal(12, 20)
    expected = eckart.fit(weight, "svd", rank=5).to_dense()
    torch.testing.assert_close(eckart.fit(weight, name, rank=5).to_dense(), expected, rtol=1e-8, atol=1e-8)


@cache
def hard_filters() -> dict[str, Tensor]:
    """Kernels (out, channels, height, width) that break careless decompositions."""
    reshaped = {n: w.reshape(len(w), -1, 2, 1) for n, w in hard.weights().items() if w.shape[1] % 2 == 0}
    squares = {n: w.reshape(len(w), -1, 2, 2) for n, w in hard.weights().items() if w.shape[1] % 4 == 0}
    strided = {"one-channel": normal_filters(12, 1, 3, 3), "one-output": normal_filters(1, 12, 3, 3)}
    strided["constant"] = torch.ones(6, 5, 3, 3)
    strided["zero"] = torch.zeros(6, 5, 3, 3, dtype=torch.float64)
    strided["one-tap"] = normal_filters(6, 5, 3, 3) * (torch.arange(9).reshape(3, 3) == 4)
    strided["degenerate"] = sum(
        torch.einsum("o,c,y,x->ocyx", *(normal_filters(n, seed=3 * n + (k == i)) for i, n in enumerate((6, 5, 3, 3))))
        for k in range(3)
    )
    return {**reshaped, **{f"{n}-square": w for n, w in squares.items()}, **strided}


@pytest.mark.parametrize("name", KERNELS)
@each(filters_name=hard_filters())
def test_hard_filters(name: str, filters_name: str) -> None:
    filters = hard_filters()[filters_name]
    before = filters.clone()
    if filters_name.startswith("graded-entries"):
        with pytest.raises(ValueError, match="overflows"):
            family(name, filters)
        return
    fitted = family(name, filters)
    for size in chosen(fitted):
        dense = fitted.build(size).structure.to_dense().double()
        assert torch.isfinite(dense).all()
        assert dense.norm() <= 1.01 * filters.double().norm() + 1e-30
    assert torch.equal(filters, before)


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_that_is_not_finite_is_refused(name: str) -> None:
    for weight in hard.refused().values():
        with pytest.raises(ValueError, match="NaN or Inf"):
            METHODS.find(name).entry(weight, Statistics(patch=(2, 1)))
