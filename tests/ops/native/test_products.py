"""When compiled products are used, when not, and that nobody can tell the difference."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import vmap
from torch.utils.flop_counter import FlopCounterMode

import eckart
from eckart.errors import Refused
from eckart.ops.native import products, programs
from eckart.ops.native.build import LEVELS, target
from eckart.ops.native.library import CAP, _allowed, capped, levels, loaded
from eckart.ops.native.products import Product
from eckart.ops.native.quantized import QUANTIZED
from eckart.structures import Dense, Quantized


@pytest.fixture
def matrix() -> Quantized:
    return Quantized.quantize(torch.randn(24, 64), 4, 32).requires_grad_(False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each matrix that C multiplied by."""
    seen: list[int] = []
    library = loaded()
    assert library is not None

    def counted(*arguments: int | None) -> None:
        seen.append(1)
        library.multiply(*arguments)

    from dataclasses import replace

    monkeypatch.setattr(programs, "loaded", lambda: replace(library, multiply=counted))
    return seen


def test_is_compiled_where_there_is_a_compiler() -> None:
    assert bool(levels()) == (target() is not None)
    assert eckart.native().startswith(levels()[-1])


def test_the_level_is_capped_by_name() -> None:
    with capped("baseline"):
        assert eckart.native().startswith("baseline")
    with capped("off"):
        assert eckart.native().startswith("none")
    with pytest.raises(Refused, match=f"{CAP}='fast' is no level"):
        _allowed("fast")
    assert set(levels()) <= {level for names in LEVELS.values() for level in names}


@pytest.mark.parametrize("shape", [(64,), (1, 64), (3, 64), (2, 3, 64), (2, 100, 64), (1, 1, 1, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_shape_and_dtype_of_input(matrix: Quantized, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape).to(dtype)
    y = matrix(x)
    assert y.shape == (*shape[:-1], 24)
    assert y.dtype == dtype
    error = torch.finfo(dtype).eps * 64
    torch.testing.assert_close(y.float(), x.float() @ matrix.to_dense().T, rtol=error, atol=error)


def test_inputs_that_do_not_lie_in_rows(matrix: Quantized, calls: list[int]) -> None:
    x = torch.randn(64, 5).T
    assert torch.equal(matrix(x), matrix(x.contiguous()))
    y = matrix(torch.randn(1, 64).expand(3, 64))
    assert torch.equal(y[0], y[2])
    assert len(calls) == 3


def test_one_thread_or_two_give_the_same_bits() -> None:
    wide = Quantized.quantize(torch.randn(1200, 400), 4, 64).requires_grad_(False)
    before = torch.get_num_threads()
    for vectors in (1, 5, 100):
        x, found = torch.randn(vectors, 400), []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(wide(x))
        torch.set_num_threads(before)
        assert torch.equal(*found) if vectors < 100 else torch.allclose(*found, atol=1e-4)


def test_gradients_go_through_pytorch(matrix: Quantized, calls: list[int]) -> None:
    x = torch.randn(2, 64, requires_grad=True)
    matrix(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, matrix.to_dense().sum(0).expand(2, 64))
    matrix.scales.requires_grad_(True)
    assert matrix(torch.randn(2, 64)).requires_grad
    assert calls == []
    with torch.no_grad():
        matrix(x)
    assert calls == [1]


@pytest.mark.parametrize("case", ["float64", "meta", "empty", "autocast"])
def test_what_pytorch_does(matrix: Quantized, calls: list[int], case: str) -> None:
    if case == "float64":
        assert matrix(torch.randn(2, 64, dtype=torch.float64)).dtype == torch.float64
    elif case == "meta":
        assert matrix.to("meta")(torch.empty(2, 64, device="meta")).shape == (2, 24)
    elif case == "empty":
        assert matrix(torch.empty(0, 64)).shape == (0, 24)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            assert matrix(torch.randn(2, 64)).dtype == torch.bfloat16
    assert calls == []


def test_inputs_of_another_width_fail_as_in_pytorch(matrix: Quantized) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        matrix(torch.randn(2, 63))


def test_vmap_and_watchers(matrix: Quantized) -> None:
    x = torch.randn(5, 64)
    torch.testing.assert_close(vmap(matrix)(x), matrix(x))
    with FlopCounterMode(display=False):
        torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("vectors", [1, 5, 100])
def test_defaults_of_others_change_nothing(matrix: Quantized, dtype: torch.dtype, vectors: int) -> None:
    x = torch.randn(vectors, 64)
    wanted = matrix(x)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        torch.testing.assert_close(matrix(x), wanted)
    finally:
        torch.set_default_dtype(before)
    with torch.device("meta"):
        torch.testing.assert_close(matrix(x), wanted)


def test_the_same_memory_in_another_dtype_or_order_is_seen() -> None:
    weight = torch.randn(32, 32).bfloat16()
    matrix, x = Dense(weight), torch.randn(1, 32).bfloat16()
    with torch.no_grad():
        matrix(x)
        matrix.weight.data = matrix.weight.data.T
        torch.testing.assert_close(matrix(x), x @ matrix.weight.T, rtol=0.05, atol=0.05)
        matrix.weight.data = matrix.weight.data.T.view(torch.float16)
        half = x.half()
        torch.testing.assert_close(matrix(half), half @ matrix.weight.T, rtol=0.05, atol=0.05, equal_nan=True)


def test_tangents_are_carried_along(matrix: Quantized) -> None:
    x, tangent = torch.randn(2, 64), torch.randn(2, 64)
    with torch.no_grad(), forward_ad.dual_level():
        y = forward_ad.unpack_dual(matrix(forward_ad.make_dual(x, tangent)))
        torch.testing.assert_close(y.tangent, tangent @ matrix.to_dense().T)


def test_views_that_are_negative_are(matrix: Quantized) -> None:
    for vectors in (1, 5, 100):
        x = torch.randn(vectors, 64)
        torch.testing.assert_close(matrix(torch._neg_view(x)), -matrix(x))


def test_another_tensor_in_a_leaf_is_seen(matrix: Quantized) -> None:
    x = torch.randn(1, 64)
    matrix(x)
    with torch.no_grad():
        matrix.scales.mul_(2)
        torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T)
        matrix.scales.data = matrix.scales.data * 3
        torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T)
        matrix.codes = matrix.codes.flip(0)
        torch.testing.assert_close(matrix(x), x @ matrix.to_dense().T)
        matrix.to(torch.bfloat16)
        torch.testing.assert_close(matrix(x), x @ matrix.float().to_dense().T)


def test_copies_have_tensors_of_their_own(matrix: Quantized) -> None:
    x = torch.randn(1, 64)
    y = matrix(x)
    other = copy.deepcopy(matrix)
    with torch.no_grad():
        other.scales.mul_(2)
    assert torch.equal(matrix(x), y)
    torch.testing.assert_close(other(x), 2 * y)
    assert pickle.loads(pickle.dumps(Product(QUANTIZED))).layout.name == "quantized"  # noqa: S301


def test_tensors_that_do_not_fit_are_not_shown_to_c(matrix: Quantized) -> None:
    good: list[Tensor | None] = [matrix.codes, matrix.scales, matrix.zeros, None, None]
    assert Product(QUANTIZED)(torch.randn(1, 64), good, (4, 32, 64)) is not None
    for place, bad in [
        (0, matrix.codes[:, :-1].contiguous()),
        (0, matrix.codes.repeat(1, 2)[:, ::2]),
        (0, matrix.codes.int()),
        (1, matrix.scales[:-1]),
        (1, matrix.scales.double()),
        (1, matrix.scales.T),
        (2, None if matrix.zeros is None else matrix.zeros[:, :1]),
        (2, None if matrix.zeros is None else matrix.zeros.int()),
        (3, torch.randn(16)),  # a codebook beside zero-points
        (4, matrix.packed_zeros),  # zero-points twice
    ]:
        leaves = list(good)
        leaves[place] = bad
        assert Product(QUANTIZED)(torch.randn(1, 64), leaves, (4, 32, 64)) is None
    for options in ((1, 32, 64), (9, 32, 64), (4, 0, 64), (4, 16, 64), (4, 32, 66)):
        assert Product(QUANTIZED)(torch.randn(1, options[2]), good, options) is None


def test_compiled_and_exported_models_call_one_op(matrix: Quantized) -> None:
    model = nn.Sequential(matrix, nn.ReLU())
    x = torch.randn(3, 64)
    wanted = F.relu(x @ matrix.to_dense().T)
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        assert any("eckart.multiplied" in str(node.target) for node in exported.graph.nodes)
        torch.testing.assert_close(exported.module()(x), wanted)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), wanted)
    torch.library.opcheck(
        torch.ops.eckart.multiplied.default,
        (x, [matrix.codes, matrix.scales, None, None, matrix.packed_zeros], "quantized", [4, 32, 64]),
    )


def test_products_do_not_import_the_compiler() -> None:
    marked = torch.compiler.assume_constant_result(lambda: True)
    assert vars(marked).items() <= vars(products._available).items()
    code = "import sys, eckart.ops.native.products; raise SystemExit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings("ignore")  # what PyTorch says of tracing
def test_traced_models_are_traced_through_pytorch(matrix: Quantized) -> None:
    traced, x = torch.jit.trace(matrix, (torch.randn(3, 64),)), torch.randn(3, 64)
    torch.testing.assert_close(traced(x), matrix(x))


def test_the_op_needs_no_library(matrix: Quantized) -> None:
    x = torch.randn(3, 64)
    with capped("off"):
        y = torch.ops.eckart.multiplied(x, list(matrix.in_memory()), "quantized", [4, 32, 64])
    torch.testing.assert_close(y, x @ matrix.to_dense().T)
