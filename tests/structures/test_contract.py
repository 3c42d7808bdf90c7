"""What every structure must do, over the whole market, and what each atom means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from eckart.structures import KINDS, StructuredMatrix, apply_transposed, from_spec
from support.cases import each
from support.market import BUILDERS, DTYPES, Stall, kinds, market

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
# their forward unpacks W for the call
FORMS_W = {
    "binary-coded",
    "semisparse",
    "masked",
    "group-sparse",
    "group-sparse-codes",
    "quantized",
    "vector-quantized",
    "kernelized",
    "scored",
    "by-task",
}
CODED = {
    "quantized",
    "vector-quantized",
    "binary-coded",
    "group-sparse-codes",
}  # a parameter is a code there, which takes fewer bytes than a float
OPTIONAL = {
    ("quantized", "zeros"),
    ("quantized", "packed_zeros"),
    ("quantized", "codebook"),
    ("binary-coded", "offsets"),
}
UNTOLD = {("masked", "values")}  # only the bits of the mask tell how many there are


def goods(*dtypes: torch.dtype) -> Callable[[Callable[..., None]], Any]:
    """A test for every structure on the market, of which each runs in some dtypes, by default in all."""

    def decorate(test: Callable[..., None]) -> Any:
        return pytest.mark.parametrize("name", BUILDERS)(each(dtype=dtypes or DTYPES)(test))

    return decorate


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
    # A shared structure is none without its owner: structures/test_shared.py has it. A gated one and one of rounded
    # inputs are no matrices: adapters/test_flylora.py and structures/test_rounded_input.py have them.
    assert seen == set(KINDS) - {"shared", "gated", "rounded-input", "float8-input", "bipolar-input"}, (
        f"not on the market: {set(KINDS) - seen}"
    )


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
    assert 0 <= cost.parameters * dtype.itemsize <= cost.bytes or CODED & kinds(structure)
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
            scale = float(b.norm() + x.detach().norm() * g.norm()) + 1
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
        yield f"{label} shape of nothing", damage(i, lambda n: n.update(shape=None))
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
                "infinite": [dtype, *shape[:-1], float("inf")],
                "nothing": [],
            }
            if (node["kind"], leaf) in UNTOLD:
                del entries["size"]
            for what, entry in entries.items():
                yield (
                    f"{label} leaf {leaf} {what}",
                    damage(i, lambda n, leaf=leaf, entry=entry: n["leaves"].update({leaf: entry})),
                )
            if (node["kind"], leaf) not in OPTIONAL:
                yield f"{label} leaf {leaf} missing", damage(i, lambda n, leaf=leaf: n["leaves"].pop(leaf))


@pytest.mark.parametrize("depth", [65, 300, 900])
def test_deep_nesting_is_refused(depth: int) -> None:
    spec: dict[str, Any] = {"kind": "dense", "shape": [2, 3], "leaves": {"weight": ["float32", 2, 3]}}
    for i in range(depth):
        if i == 63:
            from_spec(spec)
        spec = {"kind": "sum", "shape": [2, 3], "children": [spec]}
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        from_spec(spec, "here")


@pytest.mark.parametrize("n", [10**15, 2**62, 2**70, float("inf"), float("nan"), -1, 0])
def test_huge_and_impossible_shapes_allocate_nothing(n: float) -> None:
    left = {"kind": "dense", "shape": [2, n], "leaves": {"weight": ["float32", 2, n]}}
    right = {"kind": "dense", "shape": [n, 3], "leaves": {"weight": ["float32", n, 3]}}
    spec = {"kind": "chain", "shape": [2, 3], "children": [left, right]}
    if n == 10**15:
        assert all(t.is_meta for t in from_spec(spec).state_dict().values())
        return
    with pytest.raises(ValueError, match="dense"):
        from_spec(spec)


@goods(torch.float32)
def test_damaged_specs_are_refused(name: str, dtype: torch.dtype) -> None:
    spec = json.loads(json.dumps(make(name, dtype)[0].spec()))
    from_spec(spec)
    for what, broken in corruptions(spec):
        try:
            from_spec(broken)
        except ValueError:
            continue
        # Any number but those that are not finite is a scale.
        if not what.endswith(("option scale=-1", "option scale=0.5")):
            pytest.fail(f"accepted: {what}")
