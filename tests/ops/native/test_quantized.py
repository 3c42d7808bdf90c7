"""The product of codes in compiled code is that of PyTorch, at every level of the processor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from eckart.ops.input_rounding import round_symmetric
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.ops.native.quantized import QUANTIZED, ROUNDED
from eckart.ops.packing import normal_float
from eckart.structures import Quantized, RoundedInput
from tests.support.guarded import guarded

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
sizes = st.sampled_from([1, 7, 8, 15, 16, 17, 31, 64, 100, 288, 576, 577])


def codes(rows: int, columns: int, bits: int, group: int, grid: str, dtype: torch.dtype) -> Quantized:
    weight = torch.randn(rows, columns)
    book = normal_float(bits) if grid == "codebook" else None
    made = Quantized.quantize(weight, bits, group, symmetric=grid == "symmetric", codebook=book, dtype=dtype)
    return made.requires_grad_(False)


def leaves(matrix: Quantized) -> list[Tensor | None]:
    return list(matrix.in_memory())


def product(matrix: Quantized, x: Tensor) -> Tensor:
    y = Product(QUANTIZED)(x, leaves(matrix), (matrix.bits, matrix.group, matrix.columns))
    assert y is not None
    return y


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=sizes,
    bits=st.integers(2, 8),
    group=st.sampled_from([1, 5, 16, 32, 64, 128, 10000]),
    grid=st.sampled_from(["affine", "symmetric", "codebook"]),
    dtype=st.sampled_from(FLOATS),
    vectors=st.sampled_from([1, 2, 4, 5, 70]),
)
@example(rows=5, columns=576, bits=3, group=64, grid="affine", dtype=torch.float32, vectors=1)
def test_is_the_product_with_the_dense_matrix(
    rows: int, columns: int, bits: int, group: int, grid: str, dtype: torch.dtype, vectors: int
) -> None:
    matrix = codes(rows, columns, bits, group, grid, dtype)
    x = torch.randn(vectors, columns)
    # Values are products of a scale and a level, rounded to float32 here and to their own dtype in `to_dense`.
    dense = matrix.float().to_dense().double()
    wanted, bound = x.double() @ dense.T, x.double().abs() @ dense.abs().T
    for level in levels():
        with capped(level):
            found = product(matrix, x)
        assert ((found - wanted).abs() <= 4 * torch.finfo(torch.float32).eps * columns**0.5 * bound + 1e-30).all()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [64, 577])
def test_rows_do_not_depend_on_the_others(bits: int, columns: int) -> None:
    whole = codes(9, columns, bits, 64, "affine", torch.float32)
    x = torch.randn(1, columns)
    for level in levels():
        with capped(level):
            y = product(whole, x)
            for row in range(9):
                part = Quantized(
                    whole.codes[row : row + 1],
                    whole.scales[row : row + 1].detach(),
                    None if whole.zeros is None else whole.zeros[row : row + 1].contiguous(),
                    bits=bits,
                    group=64,
                    columns=columns,
                ).requires_grad_(False)
                assert torch.equal(product(part, x)[:, 0], y[:, row])


@pytest.mark.parametrize("bits", range(2, 9))
def test_processors_with_fused_multiply_adds_agree_bit_for_bit(bits: int) -> None:
    fused = [level for level in levels() if level != "baseline"]
    for grid in ("affine", "symmetric", "codebook"):
        matrix, x = codes(7, 300, bits, 32, grid, torch.float32), torch.randn(1, 300)
        found = []
        for level in fused:
            with capped(level):
                found.append(product(matrix, x))
        assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [1, 9, 17, 64, 577])
@pytest.mark.parametrize("vectors", [1, 3, 80])
def test_reads_nothing_beyond_its_tensors(bits: int, columns: int, vectors: int) -> None:
    for grid in ("affine", "codebook"):
        matrix = codes(3, columns, bits, 32, grid, torch.float32)
        ends = [None if leaf is None else guarded(leaf) for leaf in leaves(matrix)]
        x = guarded(torch.randn(vectors, columns))
        for level in levels():
            with capped(level):
                found = Product(QUANTIZED)(x, ends, (bits, 32, columns))
            assert found is not None
            torch.testing.assert_close(found, x @ matrix.to_dense().T, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=sizes,
    bits=st.integers(2, 8),
    group=st.sampled_from([1, 5, 16, 32, 64, 100, 10000]),
    symmetric=st.booleans(),
    dtype=st.sampled_from(FLOATS),
    input_bits=st.integers(2, 8),
)
def test_rounded_inputs_are_multiplied_as_integers(
    rows: int, columns: int, bits: int, group: int, symmetric: bool, dtype: torch.dtype, input_bits: int
) -> None:
    matrix = codes(rows, columns, bits, group, "symmetric" if symmetric else "affine", dtype)
    x = guarded(torch.randn(1, columns))
    rounded, dense = round_symmetric(x, input_bits, columns).double(), matrix.float().to_dense().double()
    bound = rounded.abs() @ (dense.abs() + matrix.scales.amax() * (1 << bits)).T
    ends = [None if leaf is None else guarded(leaf) for leaf in leaves(matrix)]
    for level in levels():
        with capped(level):
            found = Product(ROUNDED)(x, ends, (bits, matrix.group, columns, input_bits))
        assert found is not None
        assert ((found - rounded @ dense.T).abs() <= 1e-5 * bound + 1e-30).all()


def test_inputs_that_cannot_be_rounded_or_need_not_be() -> None:
    matrix = RoundedInput(codes(5, 48, 4, 16, "affine", torch.float32))
    with torch.no_grad():
        for value in (torch.nan, torch.inf, -torch.inf):
            x = torch.randn(1, 48)
            x[0, 7] = value
            assert matrix(x).isnan().all()
        assert torch.equal(matrix(torch.zeros(1, 48)), torch.zeros(1, 5))
        several = torch.randn(3, 48)
        torch.testing.assert_close(matrix(several), torch.cat([matrix(x[None]) for x in several]), rtol=1e-4, atol=1e-4)
        large = torch.full((1, 48), 3e38)
        with capped("off"):
            wanted = matrix(large / 1e4)
        torch.testing.assert_close(matrix(large / 1e4), wanted, rtol=1e-4, atol=0)


def test_infinite_inputs_and_codes_beyond_the_codebook_behave_as_in_a_dense_product() -> None:
    matrix = codes(4, 40, 3, 16, "affine", torch.float32)
    for value in (torch.inf, torch.nan):
        x = torch.randn(1, 40)
        x[0, 3] = value
        with capped("off"):
            wanted = matrix(x)
        torch.testing.assert_close(product(matrix, x), wanted, equal_nan=True)
    short = Quantized(torch.full((1, 3), 255, dtype=torch.uint8), torch.ones(1, 1), None, torch.tensor([-1.0, 1.0]),
                      bits=3, group=8, columns=8).requires_grad_(False)  # fmt: skip
    assert product(short, torch.ones(1, 8)).item() == 0.0
