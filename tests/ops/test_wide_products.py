"""Products of 16-bit floats that are computed in float32: rounded once, with gradients, and only where it pays."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from eckart.jobs.compress.block_streams import observe
from eckart.jobs.compress.distill import judged
from eckart.jobs.evaluate.quality import evaluate
from eckart.jobs.learning.loop import judged as lessons_judged
from eckart.models.sites import find_sites
from eckart.ops.wide_products import MANY, WideProducts, _Wide, slow_dtypes
from eckart.statistics.batches import call
from tests.support.tiny import tiny_llama

HALVES = (torch.bfloat16, torch.float16)


def factors(dtype: torch.dtype, *lead: int, bias: bool = True) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    made = [torch.randn(*lead, 24, generator=generator), torch.randn(8, 24, generator=generator)]
    made += [torch.randn(8, generator=generator)] if bias else []
    return [tensor.to(dtype).requires_grad_() for tensor in made]


@pytest.mark.parametrize("dtype", HALVES)
@given(lead=st.sampled_from([(MANY,), (4, MANY), (2, 3, MANY)]), bias=st.booleans())
def test_is_the_product_rounded_once(dtype: torch.dtype, lead: tuple[int, ...], bias: bool) -> None:
    tensors = factors(dtype, *lead, bias=bias)
    exact = F.linear(*[tensor.double() for tensor in tensors])
    with WideProducts(frozenset(HALVES)):
        found = F.linear(*tensors)
    assert found.dtype == dtype
    # Half a unit in the last place, and the sums in float32.
    allowed = torch.finfo(dtype).eps / 2 * exact.abs() + 1e-5
    assert ((found.double() - exact).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_gradients_are_rounded_once(dtype: torch.dtype) -> None:
    tensors = factors(dtype, 2, MANY)
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    out = torch.randn(2, MANY, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = torch.autograd.grad(F.linear(*wide), wide, out.double())
    with WideProducts(frozenset(HALVES)):
        product = F.linear(*tensors)
    for found, right in zip(torch.autograd.grad(product, tensors, out), expected, strict=True):
        assert found.dtype == dtype
        assert ((found.double() - right).abs() <= torch.finfo(dtype).eps / 2 * right.abs() + 1e-4).all()


def test_what_is_kept_for_the_gradient_stays_narrow() -> None:
    kept: list[torch.dtype] = []
    x, weight, bias = factors(torch.bfloat16, MANY)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.dtype), t)[1], lambda t: t),
        WideProducts(frozenset(HALVES)),
    ):
        F.linear(x, weight, bias)
    assert kept
    assert set(kept) == {torch.bfloat16}


def test_few_vectors_other_dtypes_and_fast_processors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> Tensor:
        raise AssertionError("a product was computed in float32")

    monkeypatch.setattr("eckart.ops.wide_products._Wide.apply", never)
    with WideProducts(frozenset(HALVES)):
        F.linear(*factors(torch.bfloat16, MANY - 1))
        F.linear(*factors(torch.float32, MANY))
        with torch.autocast("cpu", torch.bfloat16):
            F.linear(*factors(torch.bfloat16, MANY))
    with WideProducts(frozenset()):
        F.linear(*factors(torch.bfloat16, MANY))
    with WideProducts(frozenset(HALVES)), pytest.raises(AssertionError, match="in float32"):
        F.linear(*factors(torch.float16, MANY))


def test_evaluation_training_and_distillation_compute_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eckart.ops.wide_products.slow_dtypes", lambda: frozenset(HALVES))
    model = tiny_llama(seed=0).to(torch.bfloat16)
    counted: list[int] = []
    apply = _Wide.apply
    monkeypatch.setattr("eckart.ops.wide_products._Wide.apply", lambda *a: (counted.append(1), apply(*a))[1])
    ids = torch.randint(8, (4, MANY), generator=torch.Generator().manual_seed(0))
    runs = {
        "evaluate": lambda: evaluate(model, ids),
        "distill": lambda: judged(model, model, [ids], {}),
        "train": lambda: lessons_judged(model, [{"input_ids": ids, "labels": ids}], 1, lambda some: some[0]),
        "observe": lambda: observe(model, find_sites(model), [ids]),
    }
    for name, run in runs.items():
        counted.clear()
        run()
        assert counted, name


def test_a_model_in_a_pass_is_computed_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eckart.ops.wide_products.slow_dtypes", lambda: frozenset(HALVES))
    model = nn.Sequential(nn.Linear(24, 24), nn.Linear(24, 8)).to(torch.bfloat16)
    output = call(model, factors(torch.bfloat16, MANY)[0])
    assert output.grad_fn.name() == "_WideBackward"
    output.sum().backward()
    assert model[0].weight.grad is not None


def test_processors_with_units_have_no_slow_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_dtypes.cache_clear()
    try:
        for name in ("_is_avx2_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: True)
        assert torch.bfloat16 not in slow_dtypes()
        slow_dtypes.cache_clear()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: False)
        assert torch.bfloat16 in slow_dtypes()
        slow_dtypes.cache_clear()
        monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: False)
        assert not slow_dtypes()
    finally:
        slow_dtypes.cache_clear()
