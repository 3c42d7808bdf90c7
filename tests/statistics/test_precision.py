"""Statistics of a model that computes in bfloat16: what is summed up is rounded, the sums are not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, collect
from eckart.statistics.accumulators import OF_INPUTS
from eckart.statistics.precision import said_of
from support.tiny import tiny_llama

NEEDS = [Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.GRADIENT_SECOND_MOMENT, Need.FISHER_ROWS, Need.FISHER_COLUMNS]


@pytest.fixture(scope="module")
def given() -> tuple[nn.Module, dict[str, nn.Module], list[Tensor]]:
    model = tiny_llama().eval()
    draw = torch.Generator().manual_seed(3)
    batches = [torch.randint(model.config.vocab_size, (2, 96), generator=draw) for _ in range(3)]
    return model, {site.name: site.module for site in find_sites(model)}, batches


Given = tuple[nn.Module, dict[str, nn.Module], list[Tensor]]


def in_bfloat16() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [nullcontext, in_bfloat16], ids=["asked for", "around"])
def test_sums_are_those_of_what_matrices_are_given(given: Given, around: Any) -> None:
    model, modules, batches = given
    seen: dict[str, list[Tensor]] = {name: [] for name in modules}
    hooks = [
        module.register_forward_hook(
            lambda _, inputs, __, rows=seen[name]: rows.append(inputs[0].double().flatten(0, 1))
        )
        for name, module in modules.items()
    ]
    with in_bfloat16(), torch.no_grad():
        for batch in batches:
            model(batch, use_cache=False)
    for hook in hooks:
        hook.remove()
    with around():
        found = collect(model, modules, NEEDS, batches, mixed_precision=around is nullcontext)
    for name, rows in seen.items():
        x = torch.cat(rows)
        moment = found[name].get(Need.INPUT_SECOND_MOMENT).double()
        assert torch.linalg.norm(moment - x.T @ x / len(x)) < 1e-6 * torch.linalg.norm(moment)
        assert found[name].tokens == len(x)


def test_the_model_is_rounded_and_labels_are_drawn_anew(given: Given) -> None:
    model, modules, batches = given
    whole, rounded = (collect(model, modules, NEEDS, batches, mixed_precision=asked) for asked in (False, True))
    assert not torch.is_autocast_enabled("cpu")
    other = collect(model, modules, NEEDS, batches, seed=1)
    for need in NEEDS:
        change = max(difference(whole[name], rounded[name], need) for name in modules)
        bound = 0.02 if need in OF_INPUTS else 1.2 * max(difference(whole[n], other[n], need) for n in modules)
        assert 0 < change < bound
    for each in rounded.values():  # the same sum in two orders
        fisher = each.get(Need.FISHER_ROWS).sum(), each.get(Need.FISHER_COLUMNS).sum()
        torch.testing.assert_close(*fisher)


def difference(one: Statistics, other: Statistics, need: Need) -> float:
    a, b = one.get(need).double(), other.get(need).double()
    return float((a - b).norm() / a.norm())


def test_a_report_says_it() -> None:
    assert said_of(False) == []
    assert "bfloat16 (mixed_precision)" in said_of(True)[0]
