"""Budgets of time: what is timed, where it is kept, and what is chosen when one kind of product is slow."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import eckart
from eckart.budget.currencies import TIMED
from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.files.json import read_json, write_json
from eckart.jobs.compress import product_times
from eckart.jobs.compress.prices import Clock
from eckart.jobs.compress.product_times import (
    TOKENS,
    kind_of,
    product_of,
    seconds_of,
    spread,
    time_method,
    timings,
)
from eckart.models.groups import Group, find_groups
from eckart.models.sites import find_sites, linear_layers
from eckart.structures import low_rank
from eckart.structures.base import Cost, StructuredMatrix
from eckart.structures.dense import Dense
from eckart.structures.masked import Masked
from eckart.structures.quantized import Quantized
from support.tiny import VOCABULARY, tiny_llama

SHAPES = ((16, 24), (24, 16), (32, 32))


def by_bytes(structure: StructuredMatrix, tokens: int) -> float:
    """A machine on which time is bytes, and masks take ten times as long."""
    slow = 10.0 if isinstance(structure, Masked) else 1.0
    cost = structure.cost()
    return slow * (cost.bytes + 4 * tokens * sum(structure.shape)) / 1e9 + 1e-9


def ids(count: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, 32), generator=torch.Generator().manual_seed(0))


def make_group() -> Group:
    return find_groups(model := tiny_llama(), find_sites(model), [])[0]


@pytest.fixture
def slow_masks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Makes the machine that of `by_bytes`; counts how often products are timed."""
    counted: list[int] = []

    def time_them(card: object, dtype: torch.dtype, *_: object, **__: object) -> object:
        counted.append(1)
        return time_method(card, dtype, SHAPES, by_bytes)  # type: ignore[arg-type]

    monkeypatch.setattr(product_times, "time_method", time_them)
    monkeypatch.setenv("ECKART_CACHE", str(tmp_path))
    return counted


def test_the_kind_of_a_product_is_what_decides_how_it_is_computed() -> None:
    weight = torch.randn(8, 16)
    assert kind_of(Dense(weight)) == "dense"
    assert kind_of(Quantized.quantize(weight, 3, 16)) == "quantized 3 bits"
    assert kind_of(low_rank(weight[:, :4].contiguous(), weight[:4].contiguous())) == "chain(dense, dense)"
    product = product_of(Dense(weight), 5)
    assert (product.rows, product.columns, product.tokens, product.bytes, product.macs) == (8, 16, 5, 512, 128)


def test_seconds_are_those_of_the_product_that_runs() -> None:
    class Waiting(Dense):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Waiting.calls += 1
            assert torch.is_inference_mode_enabled()
            assert x.shape == (3, 16)
            return super().forward(x)

    assert 0 < seconds_of(Waiting(torch.randn(8, 16)), 3, patience=0.0) < 1
    assert Waiting.calls > 9


def test_every_member_is_timed_at_every_shape_and_as_many_sizes_as_tell_its_kinds() -> None:
    samples = time_method(METHODS["auto"], torch.float32, SHAPES, by_bytes)
    assert {sample.timed.product.shape for sample in samples} == set(SHAPES)
    assert {sample.timed.product.tokens for sample in samples} == set(TOKENS)
    assert {sample.method for sample in samples} == {"dense", "kfac", "gptq", "sparsegpt", "wanda"}
    assert {f"quantized {bits} bits" for bits in (2, 3, 4)} <= {sample.timed.product.kind for sample in samples}
    assert spread([(i, i) for i in range(100)], 3) == [(0, 0), (50, 50), (99, 99)]


def test_timings_are_kept_and_read_again_and_made_anew_where_the_file_is_damaged(
    slow_masks: list[int], tmp_path: Path
) -> None:
    card = METHODS["rtn"]
    first = timings(card, {}, torch.float32, tmp_path)
    assert timings(card, {}, torch.float32, tmp_path) == first
    assert len(slow_masks) == 1
    (file,) = tmp_path.glob("products-*.json")
    whole = read_json(file)
    assert {"cpu", "threads", "torch", "eckart", "dtype"} <= whole["of"].keys()
    for damage in ({**whole, "of": {}}, {**whole, "samples": [{}]}, {}):
        write_json(damage, file)
        assert timings(card, {}, torch.float32, tmp_path) == first
    file.write_text("{", "utf-8")
    assert timings(card, {}, torch.float32, tmp_path) == first
    assert len(slow_masks) == 5
    timings(card, {}, torch.bfloat16, tmp_path)
    assert len(list(tmp_path.glob("products-*.json"))) == 2


@pytest.mark.parametrize(("of", "keep"), [("decode-time", 0.7), ("prefill-time", 0.95)])
def test_a_budget_of_time_is_kept_by_the_model_of_time(of: str, keep: float, slow_masks: list[int]) -> None:
    model = tiny_llama()
    tokens = TIMED[of]
    clock = Clock(time_method(METHODS["auto"], torch.float32, SHAPES, by_bytes))
    before = clock.total(model, tokens)
    result = eckart.compress(model, "auto", keep=keep, of=of, calibration=ids(8))
    after = sum(
        clock._model.seconds(product_of(layer.structure, tokens))  # type: ignore[union-attr,arg-type]
        if hasattr(layer, "structure")
        else clock.dense(layer.weight.shape, 4, tokens)  # type: ignore[union-attr,arg-type]
        for layer in linear_layers(model, head=True).values()
    )
    assert after <= keep * before * (1 + 1e-6)
    assert any("predicted from products timed" in warning for warning in result.notes)
    for name, size in result.choice.items():
        if size is not None:
            curve = result.plan.curves[name]
            assert curve.members[curve.sizes.index(size)][0] not in ("wanda", "sparsegpt")  # which are slow here


def test_what_has_no_time_worth_counting_is_refused(slow_masks: list[int]) -> None:
    with pytest.raises(Refused, match="look-up"):
        eckart.compress(
            tiny_llama(tied=False), "rtn", keep=0.9, of="decode-time", embeddings=True, include=["*embed_tokens"]
        )
    with pytest.raises(Refused, match=r"keep=0\.01 of decode-time cannot be met"):
        eckart.compress(tiny_llama(), "rtn", keep=0.01, of="decode-time")
    clock = Clock(time_method(METHODS["rtn"], torch.float32, SHAPES, by_bytes))
    with pytest.raises(Refused, match="products of tucker-2 were not timed"):
        clock.candidate("tucker-2", 4, make_group(), Cost(1, 1, 1), 1)
