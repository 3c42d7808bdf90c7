"""Groups of matrices are found."""

from __future__ import annotations

import pytest
from torch import nn

from eckart.compressors.contract import METHODS
from eckart.models.groups import KINDS, find_groups
from eckart.models.sites import find_sites
from support.tiny import tiny_gpt2, tiny_llama

TOGETHER = [name for name, card in METHODS.items() if card.together]


@pytest.mark.parametrize("method", TOGETHER)
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_every_site_is_in_one_group(method: str, make: type) -> None:
    model = make()
    sites = find_sites(model)
    groups = find_groups(model, sites, list(METHODS[method].together))
    assert sorted(site.name for group in groups for site in group.sites) == sorted(site.name for site in sites)
    assert all(group.name == group.sites[0].name for group in groups)
    assert {group.kind for group in groups} <= {"matrix", *METHODS[method].together}


def test_groups_of_every_kind_are_made_by_some_method() -> None:
    assert {kind for name in TOGETHER for kind in METHODS[name].together} == set(KINDS)


def test_layers_are_paired_by_name_and_shape() -> None:
    model = tiny_llama()
    groups = [g for g in find_groups(model, find_sites(model), ["layers"]) if g.kind == "layers"]
    names = [[site.name for site in group.sites] for group in groups]
    assert ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"] in names
    assert not any(name.endswith(("o_proj", "down_proj")) for pair in names for name in pair)
    gap = [s for s in find_sites(nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))) if s.name in "0345"]
    assert [[s.name for s in g.sites] for g in find_groups(model, gap, ["layers"])] == [["0"], ["3", "4"], ["5"]]
