"""What every structure must do, over the whole market, and what each atom means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.fft import dct
from scipy.linalg import hadamard
from torch import Tensor

from eckart.structures import (
    KINDS,
    BlockDiagonal,
    Chain,
    ColumnSparse,
    Cosine,
    Dense,
    Diagonal,
    Hadamard,
    Identity,
    Kronecker,
    Permutation,
    Selection,
    SemiSparse,
    Sparse,
    Stack,
    StructuredMatrix,
    Sum,
    apply_transposed,
    from_spec,
    low_rank,
    low_rank_cost,
    pivoted_low_rank,
    pivoted_low_rank_cost,
)
from eckart.structures.leaves import index_dtype
from market import BUILDERS, DTYPES, Stall, kinds, market

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
FORMS_W = {"semisparse", "quantized"}  # their forward unpacks W for the call
OPTIONAL = {("quantized", "zeros"), ("quantized", "codebook")}
few = settings(deadline=None, max_examples=20)


def goods(*dtypes: torch.dtype) -> Callable[[Any], Any]:
    names = [
        pytest.param(name, dtype, id=f"{name}-{str(dtype).removeprefix('torch.')}")
        for name in BUILDERS
        for dtype in dtypes or DTYPES
    ]
    return pytest.mark.parametrize(("name", "dtype"), names)


def make(name: str, dtype: torch.dtype) -> tuple[StructuredMatrix, Stall]:
    return BUILDERS[name](Stall(name, dtype)), Stall(f"{name} input", dtype)


def exact(structure: StructuredMatrix) -> Tensor:
    """W in float64, from the structure in float64."""
    return deepcopy(structure).double().to_dense().detach().double()


def close(got: Tensor, expected: Tensor, dtype: torch.dtype, scale: float) -> bool:
    return bool((got.detach().double() - expected).norm() <= TOLERANCE[dtype] * max(scale, 1e-30))


def precision(structure: StructuredMatrix, dtype: torch.dtype) -> torch.dtype:
    """A structure without float leaves gives its dense form in float32."""
    stored = any(p.is_floating_point() for p in structure.parameters())
    return dtype if stored or dtype != torch.float64 else torch.float32


def test_market_has_every_kind() -> None:
    seen = set().union(*(kinds(structure) for _, structure in market(DTYPES[:1])))
    assert seen == set(KINDS), f"not on the market: {set(KINDS) - seen}"


@goods()
def test_forward_is_the_product(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    W = exact(structure)
    for batch in ((), (3,), (2, 3), (0,), (2, 0)):
        x = stall.normal(*batch, structure.shape[1])
        y = structure(x)
        assert y.dtype == dtype
        assert y.shape == (*batch, structure.shape[0])
        assert close(y, x.double() @ W.T, precision(structure, dtype), float(x.double().norm() * W.norm()))


@goods()
def test_forward_takes_strided_input(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    columns = structure.shape[1]
    transposed, skipping = stall.normal(columns, 4).T, stall.normal(3, 2 * columns)[:, ::2]
    repeated = stall.normal(columns).expand(3, columns)
    for x in (transposed, skipping, repeated):
        y, expected = structure(x), structure(x.contiguous())
        scale = float(x.double().norm() * exact(structure).norm())
        assert close(y, expected.detach().double(), dtype, scale)


@goods()
def test_dense_and_rows(name: str, dtype: torch.dtype) -> None:
    structure, _ = make(name, dtype)
    dense, W = structure.to_dense(), exact(structure)
    assert dense.shape == structure.shape == tuple(W.shape)
    assert dense.dtype == structure.dtype
    parts = max(float(W.norm()), 1.0)
    assert close(dense, W, precision(structure, dtype), 4 * parts)
    n = structure.shape[0]
    indices = (torch.arange(n), torch.tensor(n - 1), torch.tensor([[0, n - 1, 0], [n // 2, 0, n // 2]]))
    for index in (*indices, indices[2].int(), torch.zeros(0, dtype=torch.int64)):
        rows = structure.rows(index)
        assert rows.dtype == dense.dtype
        assert rows.shape == (*index.shape, structure.shape[1])
        assert close(rows, W[index.long()], precision(structure, dtype), 4 * parts)


@goods(torch.float64, torch.float32)
def test_transposed(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    W = exact(structure)
    for batch in ((), (2, 3)):
        x = stall.normal(*batch, structure.shape[0])
        y = apply_transposed(structure, x)
        assert y.dtype == dtype
        assert close(y, x.double() @ W, precision(structure, dtype), 4 * float(x.double().norm() * W.norm()))


@goods()
def test_saved_and_loaded_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    spec = json.loads(json.dumps(structure.spec()))
    blob = save(dict(structure.state_dict()))
    loaded = from_spec(spec)
    assert all(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))
    assert loaded.cost() == structure.cost()
    loaded.load_state_dict(load(blob), assign=True)
    loaded.check_values()
    assert loaded.spec() == structure.spec()
    assert type(loaded) is type(structure)
    before, after = structure.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    for key in before:
        assert before[key].dtype == after[key].dtype
        assert torch.equal(before[key], after[key])
    x = stall.normal(3, structure.shape[1])
    assert torch.equal(structure(x), loaded(x))


@goods()
def test_cost_is_what_the_file_has(name: str, dtype: torch.dtype) -> None:
    structure, _ = make(name, dtype)
    state, cost = structure.state_dict(), structure.cost()
    blob = save(dict(state))
    assert cost.bytes == sum(t.numel() * t.element_size() for t in state.values())
    assert cost.bytes == len(blob) - 8 - int.from_bytes(blob[:8], "little")
    assert 0 <= cost.parameters * dtype.itemsize <= cost.bytes or "quantized" in kinds(structure)
    assert cost.macs >= 0
    assert str(cost.bytes) in structure.extra_repr()
    assert type(structure).__name__ in repr(structure)


@goods(torch.float64)
def test_gradients_are_those_of_the_dense_product(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    structure.double()
    trained = [p for p in structure.parameters() if p.requires_grad]
    for batch in ((), (5,)):
        x = stall.normal(*batch, structure.shape[1]).requires_grad_()
        g = stall.normal(*batch, structure.shape[0])
        got = torch.autograd.grad((structure(x) * g).sum(), [x, *trained])
        dense = structure.to_dense().double()
        loss = (x @ dense.T * g).sum()
        expected = torch.autograd.grad(loss, [x, *trained])
        for a, b in zip(got, expected, strict=True):
            assert a.shape == b.shape
            scale = float(b.norm()) + float(x.norm() * g.norm()) + 1
            assert close(a, b, precision(structure, dtype), 10 * scale)


@goods()
def test_gradients_reach_every_float_leaf(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    with torch.inference_mode():
        structure(stall.normal(2, structure.shape[1]))  # leaves nothing behind that autograd cannot use
    x = stall.normal(2, structure.shape[1]).requires_grad_()
    structure(x).sum().backward()
    for tensor in (x, *(p for p in structure.parameters() if p.requires_grad)):
        assert tensor.grad is not None
        assert tensor.grad.dtype == tensor.dtype
        assert torch.isfinite(tensor.grad).all()


@goods(torch.float32)
def test_moves_to_another_dtype(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    stored = any(p.is_floating_point() for p in structure.parameters())
    indices = {k: b.dtype for k, b in structure.named_buffers() if not b.is_floating_point()}
    for target in DTYPES:
        structure = structure.to(target)
        assert structure.dtype == (target if stored else torch.float32)
        assert {k: b.dtype for k, b in structure.named_buffers() if not b.is_floating_point()} == indices
        assert structure(stall.normal(2, structure.shape[1]).to(target)).dtype == target


@goods(torch.float32)
def test_deepcopy_is_apart(name: str, dtype: torch.dtype) -> None:
    structure, stall = make(name, dtype)
    copy = deepcopy(structure)
    x = stall.normal(3, structure.shape[1])
    before = structure(x).detach().clone()
    assert torch.equal(copy(x), before)
    with torch.no_grad():
        for p in copy.parameters():
            p.zero_() if p.is_floating_point() else None
    assert torch.equal(structure(x), before)


@goods(torch.float32)
def test_forward_does_not_form_w(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    structure, stall = make(name, dtype)
    if kinds(structure) & FORMS_W:
        pytest.skip("its forward unpacks W")

    def forbidden(self: StructuredMatrix) -> Tensor:
        raise AssertionError(f"{type(self).__name__}.to_dense was called")

    for kind in KINDS.values():
        monkeypatch.setattr(kind, "to_dense", forbidden)
    structure(stall.normal(structure.shape[1]))


def nodes(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec
    for child in spec.get("children", []):
        yield from nodes(child)


def corruptions(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way of damaging one node of a spec that this suite knows."""

    def damage(where: int, what: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        broken = deepcopy(spec)
        what(list(nodes(broken))[where])
        return broken

    for i, node in enumerate(nodes(spec)):
        label = f"{i}:{node['kind']}"
        yield f"{label} kind", damage(i, lambda n: n.update(kind="os.system"))
        yield f"{label} no kind", damage(i, lambda n: n.pop("kind"))
        yield f"{label} shape", damage(i, lambda n: n.update(shape=[n["shape"][0] + 1, n["shape"][1]]))
        yield f"{label} no shape", damage(i, lambda n: n.pop("shape"))
        yield f"{label} option", damage(i, lambda n: n.setdefault("options", {}).update(surprise=1))
        yield f"{label} leaf", damage(i, lambda n: n.setdefault("leaves", {}).update(surprise=["float32", 2]))
        for option in node.get("options", {}):
            bad: Any
            for bad in ("3", None, -1, 0.5, [1]):
                yield (
                    f"{label} option {option}={bad!r}",
                    damage(i, lambda n, option=option, bad=bad: n["options"].update({option: bad})),
                )
        for leaf, (dtype, *shape) in node.get("leaves", {}).items():
            other = "int64" if "float" in dtype else "float32"
            entries = {
                "dtype": [other, *shape],
                "unknown dtype": ["object", *shape],
                "dimensions": [dtype, *shape, 1],
                "size": [dtype, *shape[:-1], shape[-1] + 1],
                "text": [dtype, "x"],
                "nothing": [],
            }
            for what, entry in entries.items():
                yield (
                    f"{label} leaf {leaf} {what}",
                    damage(i, lambda n, leaf=leaf, entry=entry: n["leaves"].update({leaf: entry})),
                )
            if (node["kind"], leaf) not in OPTIONAL:
                yield f"{label} leaf {leaf} missing", damage(i, lambda n, leaf=leaf: n["leaves"].pop(leaf))


@goods(torch.float32)
def test_damaged_specs_are_refused(name: str, dtype: torch.dtype) -> None:
    spec = json.loads(json.dumps(make(name, dtype)[0].spec()))
    from_spec(spec)
    for what, broken in corruptions(spec):
        try:
            from_spec(broken)
        except ValueError:
            continue
        pytest.fail(f"accepted: {what}")


# What each atom means, against a construction of its own.


def test_dtype_of_an_index() -> None:
    assert [index_dtype(n) for n in (1, 32766, 32767, 2**31 - 2, 2**31)] == [
        torch.int16, torch.int16, torch.int32, torch.int32, torch.int64,
    ]  # fmt: skip


def test_sparse_keeps_the_entries() -> None:
    W = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 3.0]])
    sparse = Sparse.from_dense(W)
    assert torch.equal(sparse.to_dense(), W)
    assert sparse.values.tolist() == [2, -1, 3]
    assert sparse.columns.tolist() == [1, 0, 2]
    assert sparse.offsets.tolist() == [0, 1, 1, 3]
    assert sparse.columns.dtype == sparse.offsets.dtype == torch.int16
    assert sparse.cost().parameters == sparse.cost().macs == 3


def test_sparse_stores_zeros_that_train() -> None:
    sparse = Sparse(torch.zeros(2), torch.tensor([0, 2]), torch.tensor([0, 1, 2]), size=3)
    sparse.check_values()
    sparse(torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert sparse.values.grad is not None
    assert sparse.values.grad.tolist() == [1, 3]


@few
@given(
    st.integers(1, 8), st.integers(1, 40), st.sampled_from([(1, 2), (2, 4), (4, 4), (3, 5), (4, 8), (5, 16), (1, 256)])
)
def test_semisparse_keeps_the_largest(out: int, columns: int, pattern: tuple[int, int]) -> None:
    n, m = pattern
    W = Stall(f"{out} {columns} {m}", torch.float32).normal(out, columns)
    structure = SemiSparse.from_dense(W, n, m)
    structure.check_values()
    dense = structure.to_dense()
    for i in range(out):
        for start in range(0, columns, m):
            group, kept = W[i, start : start + m], dense[i, start : start + m]
            largest = group.abs().topk(min(n, len(group))).indices
            expected = torch.zeros_like(group).scatter(0, largest, group[largest])
            assert torch.equal(kept, expected)


def test_semisparse_is_smaller_in_the_file() -> None:
    W = torch.ones(64, 128, dtype=torch.bfloat16)
    assert SemiSparse.from_dense(W, 2, 4).cost().bytes * 16 == Dense(W).cost().bytes * 9


@few
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_column_sparse_keeps_the_largest(out: int, columns: int, data: st.DataObject) -> None:
    s = data.draw(st.integers(1, out))
    W = Stall(f"{out} {columns}", torch.float64).normal(out, columns)
    structure = ColumnSparse.from_dense(W, s)
    structure.check_values()
    dense = structure.to_dense()
    assert (dense != 0).sum(0).tolist() == [s] * columns
    assert torch.equal(dense[dense != 0], W[dense != 0])
    assert all(
        W[dense[:, j] != 0, j].abs().min() >= W[dense[:, j] == 0, j].abs().max() for j in range(columns) if s < out
    )
    x = Stall("x", torch.float64).normal(out + 2, columns)
    torch.testing.assert_close(structure(x), torch.stack([structure(row) for row in x]))


def test_block_diagonal_against_torch() -> None:
    blocks = Stall("blocks", torch.float32).normal(3, 2, 4)
    assert torch.equal(BlockDiagonal(blocks).to_dense(), torch.block_diag(*blocks))


@few
@given(*[st.integers(1, 5)] * 4)
def test_kronecker_against_its_definition(a: int, b: int, c: int, d: int) -> None:
    stall = Stall("factors", torch.float64)
    A, B, x = stall.normal(a, b), stall.normal(c, d), stall.normal(2, b * d)
    structure = Kronecker(A, B)
    W = torch.einsum("ab,cd->acbd", A, B).reshape(a * c, b * d)
    torch.testing.assert_close(structure.to_dense().detach(), W)
    torch.testing.assert_close(structure(x), x @ W.T)
    assert structure.cost().parameters == a * b + c * d
    assert structure.cost().macs == min(a * b * d + a * d * c, b * d * c + a * b * c)


def test_permutation_and_selection() -> None:
    x = torch.tensor([10.0, 20.0, 30.0, 40.0])
    assert Permutation(torch.tensor([2, 0, 3, 1]))(x).tolist() == [30, 10, 40, 20]
    assert Selection(torch.tensor([3, 3, 0]), size=4)(x).tolist() == [40, 40, 10]
    picked = torch.tensor([3, 0])
    back = Selection(picked, size=4, adjoint=True)
    assert back(torch.tensor([1.0, 2.0])).tolist() == [2, 0, 0, 1]
    assert torch.equal(back.to_dense(), Selection(picked, size=4).to_dense().T)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13, 60])
def test_cosine_against_scipy(n: int) -> None:
    eye = torch.eye(n, dtype=torch.float64)
    C = torch.from_numpy(dct(eye.numpy(), type=2, norm="ortho", axis=0))
    torch.testing.assert_close(Cosine(n)(eye).T, C, atol=1e-14, rtol=0)
    torch.testing.assert_close(Cosine(n, adjoint=True)(eye), C, atol=1e-14, rtol=0)
    torch.testing.assert_close(Chain(Cosine(n, adjoint=True), Cosine(n))(eye), eye, atol=1e-14, rtol=0)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 128])
def test_hadamard_against_scipy(n: int) -> None:
    eye = torch.eye(n, dtype=torch.float64)
    H = torch.from_numpy(hadamard(n, dtype=float)) / n**0.5
    torch.testing.assert_close(Hadamard(n)(eye), H, atol=1e-14, rtol=0)


def test_hadamard_says_which_sizes_work() -> None:
    with pytest.raises(ValueError, match=r"power of two, got 12; the nearest are 8 and 16"):
        Hadamard(12)


def test_combinators_against_torch() -> None:
    stall = Stall("combinators", torch.float64)
    A, B, C = stall.normal(3, 4), stall.normal(3, 4), stall.normal(4, 2)
    assert torch.equal(Sum(Dense(A), Dense(B)).to_dense(), A + B)
    torch.testing.assert_close(Chain(Dense(A), Dense(C)).to_dense().detach(), A @ C)
    assert torch.equal(Stack(Dense(A), Dense(B)).to_dense(), torch.cat([A, B]))


@few
@given(st.integers(1, 9), st.integers(1, 6), st.data())
def test_pivoted_low_rank(out: int, columns: int, data: st.DataObject) -> None:
    pivots = torch.tensor(data.draw(st.permutations(range(out))))[: data.draw(st.integers(1, out))]
    r = len(pivots)
    stall = Stall(f"{out} {columns} {r}", torch.float64)
    rest, rows = stall.normal(out - r, r), stall.normal(r, columns)
    structure = pivoted_low_rank(pivots, rest, rows)
    structure.check_values()
    W = structure.to_dense().detach()
    others = [i for i in range(out) if i not in pivots.tolist()]
    assert torch.equal(W[pivots], rows)
    torch.testing.assert_close(W[others], rest @ rows)
    assert structure.cost() == pivoted_low_rank_cost(out, columns, r, 8)
    assert low_rank(stall.normal(out, r), rows).cost() == low_rank_cost(out, columns, r, 8)


@pytest.mark.parametrize("pivots", [[0, 0], [0, 5], [-1, 2], [0], [[0, 1]]], ids=str)
def test_pivoted_low_rank_refuses(pivots: list[int]) -> None:
    with pytest.raises(ValueError, match="pivot"):
        pivoted_low_rank(torch.tensor(pivots), torch.zeros(3, 2), torch.zeros(2, 4))


v = torch.ones
IMPOSSIBLE: dict[str, Callable[[], StructuredMatrix]] = {
    "sparse column": lambda: Sparse(v(2), torch.tensor([0, 3]), torch.tensor([0, 2]), size=3),
    "sparse negative": lambda: Sparse(v(2), torch.tensor([-1, 2]), torch.tensor([0, 2]), size=3),
    "sparse unsorted": lambda: Sparse(v(2), torch.tensor([2, 0]), torch.tensor([0, 2]), size=3),
    "sparse twice": lambda: Sparse(v(2), torch.tensor([1, 1]), torch.tensor([0, 2]), size=3),
    "sparse start": lambda: Sparse(v(2), torch.tensor([0, 1]), torch.tensor([1, 2]), size=3),
    "sparse end": lambda: Sparse(v(2), torch.tensor([0, 1]), torch.tensor([0, 1]), size=3),
    "sparse descent": lambda: Sparse(v(2), torch.tensor([0, 1]), torch.tensor([0, 2, 1, 2]), size=3),
    "sparse wrap": lambda: Sparse(v(1), torch.tensor([2**16]), torch.tensor([0, 1]), size=3),
    "semisparse order": lambda: SemiSparse(v(1, 2), torch.tensor([[0b0000]], dtype=torch.uint8), n=2, m=4, size=4),
    "semisparse range": lambda: SemiSparse(v(1, 1), torch.tensor([[3]], dtype=torch.uint8), n=1, m=3, size=3),
    "column-sparse range": lambda: ColumnSparse(v(1, 2), torch.tensor([[0, 3]]), size=3),
    "column-sparse twice": lambda: ColumnSparse(v(2, 1), torch.tensor([[1], [1]]), size=3),
    "permutation twice": lambda: Permutation(torch.tensor([0, 0, 1])),
    "permutation range": lambda: Permutation(torch.tensor([0, 1, 3])),
    "permutation wrap": lambda: Permutation(torch.tensor([0, 1 + 2**32])),
    "selection range": lambda: Selection(torch.tensor([4]), size=4),
    "selection twice": lambda: Selection(torch.tensor([1, 1]), size=4, adjoint=True),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_values_are_found(name: str) -> None:
    structure = IMPOSSIBLE[name]()
    for broken in (structure, Sum(Chain(structure, Identity(structure.shape[1])))):
        with pytest.raises(ValueError, match=type(structure).__name__):
            broken.check_values()


WRONG: dict[str, Callable[[], StructuredMatrix]] = {
    "Identity": lambda: Identity(0),
    "Identity ": lambda: Identity(True),
    "Diagonal": lambda: Diagonal(v(2, 2)),
    "Sparse": lambda: Sparse(v(2), torch.tensor([0]), torch.tensor([0, 2]), size=3),
    "SemiSparse": lambda: SemiSparse.from_dense(v(2, 4), 5, 4),
    "SemiSparse ": lambda: SemiSparse(v(1, 3), torch.zeros(1, 1, dtype=torch.uint8), n=2, m=4, size=4),
    "ColumnSparse": lambda: ColumnSparse.from_dense(v(2, 4), 3),
    "ColumnSparse ": lambda: ColumnSparse(v(2, 4), torch.zeros(2, 3, dtype=torch.int64), size=5),
    "BlockDiagonal": lambda: BlockDiagonal(v(2, 4)),
    "Kronecker": lambda: Kronecker(v(2, 2), v(2, 2).double()),
    "Permutation": lambda: Permutation(v(3)),
    "Selection": lambda: Selection(torch.tensor([0, 1, 1]), size=2, adjoint=True),
    "Cosine": lambda: Cosine(-1),
    "Sum": lambda: Sum(Identity(2), Identity(3)),
    "Chain": lambda: Chain(Identity(2), Identity(3)),
    "Stack": lambda: Stack(Identity(2), Identity(3)),
    "Stack ": lambda: Stack(),
}


@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name.strip()):
        WRONG[name]()
