"""The products of sparse matrices in compiled code are those of PyTorch, at every level of the processor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eckart.ops.native.layouts import LAYOUTS
from eckart.ops.native.library import capped, levels
from eckart.ops.native.products import Product
from eckart.structures import GroupSparse, GroupSparseCodes, Masked, SemiSparse, Sparse, StructuredMatrix
from tests.support.guarded import guarded

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
sizes = st.sampled_from([1, 7, 8, 15, 16, 17, 31, 32, 64, 100, 129, 576, 577, 2053])


def chosen(out: int, columns: int, density: float) -> Tensor:
    return torch.rand(out, columns) < density


def masked(W: Tensor, density: float) -> StructuredMatrix:
    return Masked.from_dense(W, chosen(*W.shape, density))


def sparse(W: Tensor, density: float) -> StructuredMatrix:
    return Sparse.from_dense(W * chosen(*W.shape, density))


def groups(W: Tensor, density: float) -> StructuredMatrix:
    return GroupSparse.from_dense(W, chosen(len(W), -(-W.shape[1] // 16), density))


def codes(W: Tensor, density: float) -> StructuredMatrix:
    return GroupSparseCodes.quantize(W, chosen(len(W), -(-W.shape[1] // 16), density), 4)


def of_neighbours(n: int, m: int) -> Callable[[Tensor, float], StructuredMatrix]:
    return lambda W, density: SemiSparse.from_dense(W, n, m)


MADE: dict[str, Callable[[Tensor, float], StructuredMatrix]] = {
    "masked": masked,
    "sparse": sparse,
    "group-sparse": groups,
    "group-sparse-codes": codes,
    **{f"{n}:{m}": of_neighbours(n, m) for n, m in ((1, 4), (2, 4), (3, 4), (4, 8), (8, 16), (5, 16))},
}
BY_INDEX = [name for name in MADE if ":" not in name]
"""Those in which values decide on what is read."""


def make(
    name: str, out: int, columns: int, dtype: torch.dtype = torch.float32, density: float = 0.5
) -> StructuredMatrix:
    return MADE[name](torch.randn(out, columns).to(dtype), density).requires_grad_(False)


class Watched:
    """Stands before the product of a matrix and remembers what it was given."""

    def __init__(self, matrix: StructuredMatrix) -> None:
        self.product: Product = matrix._product  # type: ignore[assignment]
        self.given: tuple[Sequence[Tensor | None], Sequence[int]] = ((), ())
        matrix._product = self  # type: ignore[assignment]

    def __call__(self, x: Tensor, leaves: Sequence[Tensor | None], options: Sequence[int]) -> Tensor | None:
        self.given = leaves, options
        return self.product(x, leaves, options)


def ran(matrix: StructuredMatrix) -> bool:
    """Whether C made its last product."""
    product = matrix._product
    assert isinstance(product, Product)
    return product._program is not None


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=sizes,
    density=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    dtype=st.sampled_from(FLOATS),
    vectors=st.sampled_from([1, 2, 5, 70]),
)
def test_is_the_product_with_the_dense_matrix(
    name: str, rows: int, columns: int, density: float, dtype: torch.dtype, vectors: int
) -> None:
    matrix, x = make(name, rows, columns, dtype, density), torch.randn(vectors, columns)
    # Values of codes are products of a scale and a level, rounded to float32 here and to their own dtype in `to_dense`.
    dense = copy.deepcopy(matrix).float().to_dense().double()
    wanted, bound = x.double() @ dense.T, x.double().abs() @ dense.abs().T
    for level in levels():
        with capped(level):
            found = matrix(x)
        assert ran(matrix)
        assert ((found - wanted).abs() <= 4 * torch.finfo(torch.float32).eps * columns**0.5 * bound + 1e-30).all()


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("columns", [64, 577, 2053])
def test_rows_do_not_depend_on_the_others(name: str, columns: int) -> None:
    W, x = torch.randn(9, columns), torch.randn(1, columns)
    kept = {"masked": (9, columns), "sparse": (9, columns)}.get(name, (9, -(-columns // 16)))
    mask = chosen(*kept, 0.5)

    def part(rows: slice) -> StructuredMatrix:
        if name == "masked":
            return Masked.from_dense(W[rows], mask[rows])
        if name == "sparse":
            return Sparse.from_dense(W[rows] * mask[rows])
        if name == "group-sparse":
            return GroupSparse.from_dense(W[rows], mask[rows])
        if name == "group-sparse-codes":
            return GroupSparseCodes.quantize(W[rows], mask[rows], 4)
        return MADE[name](W[rows], 0.5)

    for level in levels():
        with capped(level), torch.no_grad():
            y = part(slice(None))(x)
            for row in range(9):
                assert torch.equal(part(slice(row, row + 1))(x)[:, 0], y[:, row])


@pytest.mark.parametrize("name", MADE)
def test_processors_with_fused_multiply_adds_agree_bit_for_bit(name: str) -> None:
    for columns in (300, 512, 2053):
        matrix, x, found = make(name, 7, columns), torch.randn(1, columns), []
        for level in levels()[1:]:
            with capped(level):
                found.append(matrix(x))
        assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("columns", [1, 9, 16, 17, 64, 577, 2053])
@pytest.mark.parametrize("vectors", [1, 3, 80])
def test_reads_nothing_beyond_its_tensors(name: str, columns: int, vectors: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        matrix, x = make(name, 3, columns, dtype), guarded(torch.randn(vectors, columns))
        wanted = x @ copy.deepcopy(matrix).float().to_dense().T
        for leaf, tensor in matrix.leaves().items():
            if tensor.numel():
                end = guarded(tensor)
                setattr(
                    matrix, leaf, nn.Parameter(end, requires_grad=False) if isinstance(tensor, nn.Parameter) else end
                )
        for level in levels():
            with capped(level):
                found = matrix(x)
            assert ran(matrix)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_several_vectors_and_panels_agree_with_one(name: str) -> None:
    matrix, x = make(name, 40, 200), torch.randn(100, 200)
    one = torch.cat([matrix(x[i : i + 1]) for i in range(100)])
    for batch in (x, x[:5]):
        torch.testing.assert_close(matrix(batch), one[: len(batch)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BY_INDEX)
def test_indices_that_are_written_to_are_looked_at_again(name: str) -> None:
    matrix, other, x = make(name, 6, 80), make(name, 6, 80), torch.randn(1, 80)
    matrix(x)
    for _ in range(20):  # one of as many values
        if all(
            a.shape == b.shape for a, b in zip(matrix.state_dict().values(), other.state_dict().values(), strict=True)
        ):
            break
        other = make(name, 6, 80)
    else:
        matrix, other = make(name, 6, 80, density=1.0), make(name, 6, 80, density=1.0)
    matrix.load_state_dict(other.state_dict())  # in place
    torch.testing.assert_close(matrix(x), x @ other.to_dense().T)


DAMAGE: dict[str, list[tuple[str, int]]] = {
    "masked": [("mask", 0), ("mask", 255)],
    "sparse": [("columns", 30000), ("columns", -1), ("offsets", 500), ("offsets", -1)],
    "group-sparse": [("places", 200), ("counts", 200), ("counts", 0)],
    "group-sparse-codes": [("places", 200), ("counts", 200)],
}


@pytest.mark.parametrize(("name", "leaf", "value"), [(n, *damage) for n, each in DAMAGE.items() for damage in each])
def test_damaged_indices_are_not_shown_to_c(name: str, leaf: str, value: int) -> None:
    matrix, x = make(name, 6, 80), torch.randn(1, 80)
    watched = Watched(matrix)
    matrix(x)
    assert watched.product(x, *watched.given) is not None
    damaged = getattr(matrix, leaf)
    damaged[1] = 1 if (damaged[1] == value).all() else value
    with pytest.raises(ValueError, match=type(matrix).__name__):
        matrix.check_values()
    assert watched.product(x, *watched.given) is None


@pytest.mark.parametrize(("name", "leaf", "value"), [(n, *damage) for n, each in DAMAGE.items() for damage in each])
@pytest.mark.parametrize("vectors", [1, 5])
def test_damage_that_cannot_be_seen_reads_no_other_memory(name: str, leaf: str, value: int, vectors: int) -> None:
    # What is written to tensors of inference mode is not counted.
    with torch.inference_mode():
        matrix, x = make(name, 6, 80), guarded(torch.randn(vectors, 80))
        watched = Watched(matrix)
        matrix(x)
        getattr(matrix, leaf)[1] = value
        for level in levels():
            with capped(level):
                found = watched.product(x, *watched.given)
                assert found is None or found.shape == (vectors, 6)


@pytest.mark.parametrize("name", ["group-sparse", "group-sparse-codes", "sparse"])
def test_inputs_that_no_value_meets_are_not_read(name: str) -> None:
    W, x = torch.randn(3, 64), torch.randn(1, 64)
    W[:, 16:32] = 0
    kept = torch.tensor([[True, False, True, True]]).expand(3, 4)
    matrix = {
        "group-sparse": lambda: GroupSparse.from_dense(W, kept),
        "group-sparse-codes": lambda: GroupSparseCodes.quantize(W, kept, 4),
        "sparse": lambda: Sparse.from_dense(W),
    }[name]()
    clean = x.clone()
    x[0, 20] = torch.nan
    with torch.no_grad():
        assert torch.equal(matrix(x), matrix(clean))


def test_a_mask_multiplies_by_its_zeros() -> None:
    matrix, x = Masked.from_dense(torch.ones(2, 40), torch.arange(40).expand(2, 40) % 2 == 0), torch.ones(1, 40)
    x[0, 1] = torch.nan
    with torch.no_grad():
        assert matrix(x).isnan().all()
        with capped("off"):
            assert matrix(x).isnan().all()


@pytest.mark.parametrize("name", MADE)
def test_gradients_and_other_dtypes_go_through_pytorch(name: str) -> None:
    matrix = make(name, 5, 48)
    x = torch.randn(2, 48, requires_grad=True)
    matrix(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, matrix.to_dense().sum(0).expand(2, 48))
    assert not ran(matrix)
    assert matrix.double()(torch.randn(2, 48).double()).dtype == torch.float64


@pytest.mark.parametrize("name", MADE)
def test_compiled_models_call_one_op(name: str) -> None:
    matrix, x = make(name, 5, 48), torch.randn(3, 48)
    with torch.no_grad():
        exported = torch.export.export(nn.Sequential(matrix), (x,))
        assert any("eckart.multiplied" in str(node.target) for node in exported.graph.nodes)
        torch.testing.assert_close(exported.module()(x), matrix(x))
        with capped("off"):
            torch.testing.assert_close(exported.module()(x), x @ matrix.to_dense().T)


def test_tensors_that_do_not_fit_are_not_shown_to_c() -> None:
    place, count = torch.zeros(2, dtype=torch.uint8), torch.tensor([1, 1], dtype=torch.uint8)
    for leaves, options in (
        ([torch.ones(2, 16), None, None, place[:1], count], (16, 32, 0)),
        ([torch.ones(2, 16).double(), None, None, place, count], (16, 32, 0)),
        ([torch.ones(2, 8), None, None, place, count], (8, 32, 0)),
        ([torch.ones(2, 16), torch.zeros(2, 8, dtype=torch.uint8), torch.ones(2), place, count], (16, 32, 4)),
        ([None, torch.zeros(2, 8, dtype=torch.uint8), torch.ones(2), place, count], (16, 32, 3)),
        ([None, torch.zeros(2, 8, dtype=torch.uint8), torch.ones(1), place, count], (16, 32, 4)),
        ([torch.ones(2, 16), None, None, place.long(), count], (16, 32, 0)),
    ):
        assert Product(LAYOUTS["group_sparse"])(torch.randn(1, 32), leaves, options) is None
    good: list[Tensor | None] = [torch.ones(2, 16), None, None, place, count]
    assert Product(LAYOUTS["group_sparse"])(torch.randn(1, 32), good, (16, 32, 0)) is not None
