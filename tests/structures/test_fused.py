"""Several matrices multiplied in one call of compiled code, and that nobody can tell the difference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import vmap

from eckart.models.modules import StructuredLinear
from eckart.ops.native import programs
from eckart.ops.native.library import capped, levels, loaded
from eckart.structures import (
    Chain,
    ColumnSparse,
    Dense,
    GroupSparse,
    Interpolative,
    Permutation,
    Quantized,
    Sparse,
    StructuredMatrix,
    Sum,
    low_rank,
)
from eckart.structures._fused import FEW
from tests.support.guarded import guarded

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def normal(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape).to(dtype)


def thin(out: int, columns: int, rank: int, dtype: torch.dtype) -> Chain:
    return low_rank(normal(out, rank, dtype=dtype), normal(rank, columns, dtype=dtype))


def picked(out: int, columns: int, rank: int, dtype: torch.dtype) -> Interpolative:
    rank = min(rank, out)
    return Interpolative(torch.randperm(out), normal(out - rank, rank, dtype=dtype), normal(rank, columns, dtype=dtype))


def coded(out: int, columns: int, dtype: torch.dtype) -> Quantized:
    return Quantized.quantize(normal(out, columns, dtype=dtype), 4, 32)


MADE: dict[str, Callable[[int, int, int, torch.dtype], StructuredMatrix]] = {
    "two factors": thin,
    "three": lambda m, n, r, t: Chain(thin(m, r, r, t), Dense(normal(r, n, dtype=t))),
    "picked": picked,
    "codes and two factors": lambda m, n, r, t: Sum(coded(m, n, t), thin(m, n, r, t)),
    "sparse and two factors": lambda m, n, r, t: Sum(
        thin(m, n, r, t), Sparse.from_dense(normal(m, n, dtype=t) * (torch.rand(m, n) < 0.3))
    ),
    "twice two factors": lambda m, n, r, t: Sum(thin(m, n, r, t), thin(m, n, r, t)),
    "a factor that is a sum": lambda m, n, r, t: Chain(
        Sum(Dense(normal(m, r, dtype=t)), coded(m, r, t)), Dense(normal(r, n, dtype=t))
    ),
    "a dictionary": lambda m, n, r, t: Chain(
        Dense(normal(m, r, dtype=t)), ColumnSparse.from_dense(normal(r, n, dtype=t), -(-r // 3))
    ),
    "picked and groups": lambda m, n, r, t: Sum(
        picked(m, n, r, t), GroupSparse.from_dense(normal(m, n, dtype=t), torch.rand(m, -(-n // 16)) < 0.5)
    ),
}


def make(name: str, out: int, columns: int, rank: int, dtype: torch.dtype = torch.float32) -> StructuredMatrix:
    return MADE[name](out, columns, rank, dtype).requires_grad_(False)


def double(matrix: StructuredMatrix) -> Tensor:
    """W, and what its entries can be made of: the products of magnitudes."""
    return copy.deepcopy(matrix).double().to_dense()


def sizes(matrix: StructuredMatrix) -> Tensor:
    """A bound on how large what is added up for an entry of W is."""
    if isinstance(matrix, Sum):
        return torch.stack([sizes(part) for part in matrix.operands()]).sum(0)
    if isinstance(matrix, Chain):
        found = [sizes(part) for part in matrix.operands()]
        return found[0] if len(found) == 1 else torch.linalg.multi_dot(found)
    if isinstance(matrix, Interpolative):
        rest, basis = matrix.rest.double().abs(), matrix.basis.double().abs()
        return torch.cat([basis, rest @ basis])[matrix.index.long()]
    return double(matrix).abs() + (matrix.scales.double().abs().amax() * 16 if isinstance(matrix, Quantized) else 0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each call of C."""
    seen: list[int] = []
    library = loaded()
    assert library is not None

    def counted(*arguments: int | None) -> None:
        seen.append(1)
        library.multiply(*arguments)

    monkeypatch.setattr(programs, "loaded", lambda: replace(library, multiply=counted))
    return seen


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=25, deadline=None)
@given(
    out=st.integers(1, 40),
    columns=st.sampled_from([1, 7, 16, 17, 64, 100, 577]),
    rank=st.sampled_from([1, 3, 16, 20, 40]),
    dtype=st.sampled_from(FLOATS),
    vectors=st.integers(1, FEW),
    biased=st.booleans(),
)
def test_is_the_product_with_the_dense_matrix(
    name: str, out: int, columns: int, rank: int, dtype: torch.dtype, vectors: int, biased: bool
) -> None:
    matrix, x = make(name, out, columns, rank, dtype), normal(vectors, columns, dtype=dtype)
    bias = normal(out, dtype=dtype) if biased else None
    wanted = x.double() @ double(matrix).T + (0 if bias is None else bias.double())
    bound = x.double().abs() @ sizes(matrix).T
    error = 8 * torch.finfo(torch.float32).eps * (columns + 3 * rank) ** 0.5 * bound
    # Values of codes are products of a scale and a level, which `to_dense` rounds to their dtype.
    error += torch.finfo(dtype).eps * (wanted.abs() + (0 if dtype == torch.float32 else 2 * bound)) + 1e-30
    for level in levels():
        with capped(level):
            y = matrix(x) if bias is None else matrix.affine(x, bias)
        assert y.dtype == dtype
        assert ((y.double() - wanted).abs() <= error).all()


@pytest.mark.parametrize("name", MADE)
def test_is_one_call(name: str, calls: list[int]) -> None:
    matrix, bias = make(name, 24, 40, 8), torch.randn(24)
    matrix(torch.randn(1, 1, 40))
    assert len(calls) == 1
    StructuredLinear(matrix, bias).requires_grad_(False)(torch.randn(40))
    assert len(calls) == 2
    if name != "a dictionary":
        matrix(torch.randn(2, 2, 40))
        assert len(calls) == 3


@pytest.mark.parametrize("name", MADE)
def test_parts_one_by_one_agree(name: str) -> None:
    matrix, bias, x = make(name, 24, 40, 8), torch.randn(24), torch.randn(FEW, 40)
    several = torch.cat([x, torch.randn(20, 40)])
    torch.testing.assert_close(matrix(x), matrix(several)[:FEW], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(matrix.affine(x, bias), matrix.affine(several, bias)[:FEW], rtol=1e-4, atol=1e-4)
    with capped("off"):
        torch.testing.assert_close(matrix.affine(several, bias), matrix(several) + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_threads_and_levels_give_the_same_bits(name: str) -> None:
    matrix, before = make(name, 700, 400, 300), torch.get_num_threads()
    for x in (torch.randn(1, 400), torch.randn(3, 400)):
        found = []
        for level in levels()[1:]:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                with capped(level):
                    found.append(matrix(x))
        torch.set_num_threads(before)
        assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("columns", [1, 17, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reads_nothing_beyond_its_tensors(name: str, columns: int, dtype: torch.dtype) -> None:
    matrix, bias = make(name, 9, columns, 5, dtype), guarded(normal(9, dtype=dtype))
    for vectors in (1, 3):
        x = guarded(normal(vectors, columns, dtype=dtype))
        with capped("off"):
            wanted = matrix.affine(x, bias)
        for part in matrix.modules():
            assert isinstance(part, StructuredMatrix | nn.ModuleList)
            for leaf, tensor in part.leaves().items() if isinstance(part, StructuredMatrix) else ():
                if tensor.numel():
                    end = guarded(tensor)
                    is_float = isinstance(tensor, nn.Parameter)
                    setattr(part, leaf, nn.Parameter(end, requires_grad=False) if is_float else end)
        error = 60 * torch.finfo(dtype).eps * float(wanted.abs().max().clamp_min(1))  # of sums that may cancel
        for level in levels():
            with capped(level):
                torch.testing.assert_close(matrix.affine(x, bias), wanted, rtol=0, atol=error)


def test_leaves_and_parts_that_were_put_in_the_place_of_others_are_seen() -> None:
    matrix, x = make("codes and two factors", 24, 40, 8), torch.randn(1, 40)
    assert isinstance(matrix, Sum)
    matrix(x)

    def agrees() -> None:
        torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T, rtol=1e-4, atol=1e-4)

    inner = matrix.operands()[1]
    assert isinstance(inner, Chain)
    first = inner.operands()[0]
    assert isinstance(first, Dense)
    with torch.no_grad():
        first.weight.mul_(2)
        agrees()
        first.weight.data = first.weight.data.T.contiguous().T
        agrees()
        first.weight = nn.Parameter(torch.randn(24, 8))
        agrees()
        inner.parts[1] = Dense(torch.randn(8, 40))
        agrees()
        matrix.parts[0] = coded(24, 40, torch.float32)
        agrees()
        inner.parts[0] = Chain(Dense(torch.randn(24, 8)), Permutation(torch.randperm(8)))  # which is not compiled
        agrees()
        other = copy.deepcopy(matrix)
        other.double()
        agrees()


def test_an_index_that_is_written_to_is_looked_at_again() -> None:
    matrix, x = make("picked", 12, 40, 5), torch.randn(1, 40)
    assert isinstance(matrix, Interpolative)
    matrix(x)
    matrix.index.copy_(torch.randperm(12))
    torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T, rtol=1e-4, atol=1e-4)
    matrix.index[3] = 12
    with pytest.raises((IndexError, RuntimeError)):
        matrix(x)


def test_an_index_that_is_damaged_unseen_reads_no_other_memory() -> None:
    with torch.inference_mode():
        matrix = make("picked", 12, 40, 5)
        assert isinstance(matrix, Interpolative)
        matrix(torch.randn(1, 40))
        for value in (1 << 30, -(1 << 30)):
            matrix.index[3] = value
            for level in levels():
                with capped(level):
                    assert matrix(torch.randn(1, 40)).shape == (1, 12)


@pytest.mark.parametrize("name", MADE)
def test_gradients_and_wide_inputs_go_through_pytorch(name: str, calls: list[int]) -> None:
    matrix, bias = make(name, 24, 40, 8), torch.randn(24)
    x = torch.randn(2, 40, requires_grad=True)
    matrix.affine(x, bias).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, matrix.to_dense().sum(0).expand(2, 40), rtol=1e-4, atol=1e-4)
    matrix.double()(torch.randn(1, 40, dtype=torch.float64))
    assert calls == []


def test_a_bias_of_another_dtype_gives_what_pytorch_gives() -> None:
    matrix, x = make("two factors", 24, 40, 8, torch.bfloat16), torch.randn(1, 40).bfloat16()
    assert matrix.affine(x, torch.randn(24)).dtype == torch.float32


def test_compiled_exported_and_mapped() -> None:
    matrix, x = make("codes and two factors", 24, 40, 8), torch.randn(3, 40)
    with torch.no_grad():
        exported = torch.export.export(nn.Sequential(StructuredLinear(matrix, torch.randn(24))), (x,))
        assert any("eckart.multiplied" in str(node.target) for node in exported.graph.nodes)
        torch.testing.assert_close(vmap(matrix)(x), matrix(x), rtol=1e-4, atol=1e-4)


def test_not_finite_and_largest_values_behave_as_in_pytorch() -> None:
    for name in ("two factors", "picked"):
        matrix = make(name, 24, 40, 8)
        for value in (torch.nan, torch.inf):
            x = torch.randn(1, 40)
            x[0, 3] = value
            assert not matrix(x).isfinite().any()
    half = make("two factors", 24, 40, 8, torch.float16)
    assert half(torch.full((1, 40), 6e4, dtype=torch.float16)).isinf().any()
    torch.testing.assert_close(make("two factors", 1, 40, 1)(torch.zeros(1, 40)), torch.zeros(1, 1))
