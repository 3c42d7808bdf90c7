"""Structures that are another's."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from eckart.structures import Chain, Dense, Shared, apply_transposed, from_spec
from eckart.structures.shared import bind, locate
from support import hard


def test_a_shared_structure_reads_its_owner() -> None:
    owner = Dense(hard.normal(3, 4))
    shared = Shared(owner)
    x = hard.normal(5, 4, seed=1)
    assert torch.equal(shared(x), owner(x))
    assert torch.equal(shared.rows(torch.tensor([2])), owner.rows(torch.tensor([2])))
    assert torch.equal(apply_transposed(shared, x @ owner.weight.T), x @ owner.weight.T @ owner.weight)
    assert (shared.dtype, shared.device) == (owner.dtype, owner.device)
    assert shared.cost().bytes == shared.cost().parameters == 0
    assert shared.cost().macs == 12
    assert not shared.state_dict()
    first, second = copy.deepcopy(nn.ModuleList([Chain(owner), Chain(shared)]))
    with torch.no_grad():
        next(first.parameters()).zero_()
    assert not second(x).any()


def test_a_shared_structure_is_found_again() -> None:
    owner = Dense(hard.normal(3, 4))
    pair = {"a": Chain(Dense(hard.normal(2, 3)), owner), "b": Chain(Dense(hard.normal(2, 3, seed=1)), Shared(owner))}
    locate(pair)
    specs = {name: json.loads(json.dumps(structure.spec())) for name, structure in pair.items()}
    again = {name: from_spec(spec) for name, spec in specs.items()}
    bind(again)
    assert again["b"].operands()[1].owner is again["a"].operands()[1]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="not there any more"):
        locate({"b": pair["b"]})
    with pytest.raises(ValueError, match="which is not there"):
        bind({"b": from_spec(specs["b"])})
    specs["b"]["children"][1]["options"]["of"] = "a/0"
    with pytest.raises(ValueError, match="was shared as"):
        bind({name: from_spec(spec) for name, spec in specs.items()})
    with pytest.raises(ValueError, match="itself shared"):
        Shared(Shared(owner))
    with pytest.raises(ValueError, match="needs an owner"):
        Shared()
