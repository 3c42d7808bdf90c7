"""Where matrices are found in a model, and what stands there after they are replaced."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.models.places import replace
from eckart.models.sites import find_sites, linear_parameters, model_cost
from eckart.structures import Dense, low_rank
from support.tiny import HIDDEN, VOCABULARY, tiny_gpt2, tiny_llama

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Tied(nn.Module):
    """An embedding and a head over one tensor, the head with a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.middle = nn.Linear(8, 8)
        self.head = nn.Linear(8, 12)
        self.head.weight = self.embed.weight

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.middle(self.embed(ids)))
        return logits


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.between = nn.ReLU()
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.between(self.first(x)))
        return y


def names(model: nn.Module, *include: str, exclude: tuple[str, ...] = (), **options: bool) -> list[str]:
    return [site.name for site in find_sites(model, include, exclude, **options)]


def test_all_linear_maps_are_found_in_module_order() -> None:
    found = names(tiny_llama())
    assert [name.rpartition(".")[2] for name in found] == LLAMA * 2
    assert found[0] == "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*", 14),
        ("*.q_proj", 2),
        ("q_proj", 2),
        ("model.layers.1.*", 7),
        ("mlp.*", 6),
        ("*.[qk]_proj", 4),
        ("re:layers\\.0\\..*(up|down)_proj$", 2),
        ("re:^model\\.layers\\.1", 7),
    ],
)
def test_patterns_include_and_exclude(pattern: str, count: int) -> None:
    model = tiny_llama()
    taken = names(model, pattern)
    assert len(taken) == count
    if count < 14:
        assert sorted([*taken, *names(model, exclude=(pattern,))]) == sorted(names(model))


def test_exclude_wins_over_include() -> None:
    assert names(tiny_llama(), "model.layers.0.*", exclude=("mlp.*",)) == [
        f"model.layers.0.self_attn.{n}" for n in LLAMA[:4]
    ]


@pytest.mark.parametrize("where", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_an_error_that_lists_the_names(where: str) -> None:
    with pytest.raises(ValueError, match="'fc9' matches no matrix") as error:
        find_sites(tiny_llama(), **{where: ["fc9"]})
    for name in LLAMA:
        assert name in str(error.value)


def test_a_broken_regular_expression_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"'re:\(' is not a regular expression"):
        find_sites(tiny_llama(), ["re:("])


def test_nothing_left_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(ValueError, match=r"no matrix to work on .*q_proj"):
        find_sites(tiny_llama(), exclude=["*"])
    with pytest.raises(ValueError, match="no matrix to work on in ReLU"):
        find_sites(nn.ReLU())


def test_grouped_query_attention_has_narrow_keys_and_values() -> None:
    shapes = {site.name.rpartition(".")[2]: site.shape for site in find_sites(tiny_llama(gqa=True))}
    assert shapes["q_proj"] == (HIDDEN, HIDDEN)
    assert shapes["k_proj"] == shapes["v_proj"] == (HIDDEN // 2, HIDDEN)
    assert shapes["down_proj"] == (HIDDEN, 64)


def test_conv1d_is_read_as_out_by_in() -> None:
    model = tiny_gpt2()
    site = find_sites(model, ["transformer.h.0.attn.c_attn"])[0]
    assert isinstance(site.module, Conv1D)
    assert site.shape == (3 * HIDDEN, HIDDEN)
    x = torch.randn(5, HIDDEN)
    assert site.bias is not None
    torch.testing.assert_close(site.module(x), x @ site.weight.T + site.bias)


def test_head_and_embeddings_are_optional() -> None:
    model = tiny_llama(tied=False)
    embed, head = "model.embed_tokens", "lm_head"
    assert not {embed, head} & set(names(model))
    assert set(names(model, embeddings=True)) - set(names(model)) == {embed}
    assert set(names(model, head=True)) - set(names(model)) == {head}
    assert set(names(model, embeddings=True, head=True)) - set(names(model)) == {embed, head}


@pytest.mark.parametrize("options", [{"head": True}, {"embeddings": True}, {"head": True, "embeddings": True}])
def test_tied_embeddings_are_one_site(options: dict[str, bool]) -> None:
    sites = [site for site in find_sites(tiny_llama(tied=True), **options) if site.is_embedding]
    assert [(site.name, site.tied, site.shape) for site in sites] == [
        ("model.embed_tokens", ("lm_head",), (VOCABULARY, HIDDEN))
    ]


def test_a_tied_site_goes_by_both_names() -> None:
    model = tiny_llama(tied=True)
    assert names(model, "lm_head", head=True) == ["model.embed_tokens"]
    assert "model.embed_tokens" not in names(model, exclude=("lm_head",), head=True)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_replacing_by_the_same_matrix_changes_nothing(make: type[nn.Module]) -> None:
    model = make()
    ids = torch.randint(VOCABULARY, (2, 9))
    expected = model(ids).logits
    for site in find_sites(model, head=True):
        replace(model, site, Dense(site.weight.contiguous()))
    assert sum(isinstance(m, StructuredLinear | StructuredEmbedding) for m in model.modules()) in (15, 9)
    torch.testing.assert_close(model(ids).logits, expected)


def test_replacing_keeps_the_bias_and_adds_to_it() -> None:
    for layer in (nn.Linear(6, 4), Conv1D(4, 6)):
        model = nn.Sequential(layer)
        nn.init.normal_(layer.bias)
        x, extra = torch.randn(3, 6), torch.randn(4)
        expected = model(x)
        site = find_sites(model)[0]
        replace(model, site, Dense(site.weight.contiguous()))
        torch.testing.assert_close(model(x), expected)
        replace(model, site, Dense(site.weight.contiguous()), extra)
        torch.testing.assert_close(model(x), expected + extra)


def test_replacing_gives_a_bias_to_a_layer_without_one() -> None:
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    x, extra = torch.randn(3, 6), torch.randn(4)
    expected = model(x) + extra
    site = find_sites(model)[0]
    replace(model, site, Dense(site.weight), extra)
    torch.testing.assert_close(model(x), expected)


def test_replacing_keeps_the_training_flag() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model.train()
    model[0].eval()
    for site in find_sites(model):
        replace(model, site, Dense(site.weight))
    assert [m.training for m in (model[0], model[0].structure, model[1], model[1].structure)] == [0, 0, 1, 1]


def test_a_structure_of_another_shape_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    with pytest.raises(ValueError, match=r"0: a structure of shape \(6, 4\) cannot replace \(4, 6\)"):
        replace(model, find_sites(model)[0], Dense(torch.ones(6, 4)))


def test_a_tied_head_keeps_its_own_bias() -> None:
    model = Tied()
    nn.init.normal_(model.head.bias)
    ids = torch.randint(12, (2, 5))
    expected = model(ids)
    site = find_sites(model, embeddings=True)[0]
    replace(model, site, Dense(site.weight))
    assert isinstance(model.head, TiedLinear)
    torch.testing.assert_close(model(ids), expected)


def test_a_layer_under_two_names_is_replaced_under_both() -> None:
    model = Twice()
    x = torch.randn(3, 8)
    sites = find_sites(model)
    assert [site.name for site in sites] == ["first"]
    left, right = torch.randn(8, 2), torch.randn(2, 8)
    bias = model.first.bias
    replace(model, sites[0], low_rank(left, right))
    assert model.first is model.second
    expected = (x @ right.T @ left.T + bias).relu() @ right.T @ left.T + bias
    torch.testing.assert_close(model(x), expected)
    assert sum(p.numel() for p in model.parameters()) == 2 * 16 + 8


def counted(model: nn.Module) -> dict[str, int]:
    """An independent count for dense models: every tensor once, the head and embeddings not linear."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D)]
    return {
        "parameters": sum(t.numel() for t in {id(p): p for p in model.parameters()}.values()),
        "linear_parameters": sum(t.numel() for m in linear if m is not head for t in m.parameters()),
        "macs_per_token": sum(m.weight.numel() for m in linear),
    }


@pytest.mark.parametrize("make", [tiny_llama, lambda: tiny_llama(tied=False, gqa=False), tiny_gpt2, Tied, Twice])
def test_cost_of_a_dense_model(make: type[nn.Module]) -> None:
    model = make()
    assert model_cost(model) == counted(model)
    assert linear_parameters(model) == model_cost(model)["linear_parameters"]


@pytest.mark.parametrize("make", [tiny_llama, lambda: tiny_llama(tied=False), tiny_gpt2, Tied])
def test_cost_changes_by_what_was_replaced(make: type[nn.Module]) -> None:
    model = make()
    before = model_cost(model)
    expected = dict(before)
    rank = 3
    for site in find_sites(model, embeddings=True, head=True):
        out, columns = site.shape
        saved = out * columns - rank * (out + columns)
        is_head = site.name == "lm_head"
        expected["parameters"] -= saved
        expected["linear_parameters"] -= 0 if site.is_embedding or is_head else saved
        expected["macs_per_token"] -= 0 if site.is_embedding and not site.tied else saved
        replace(model, site, low_rank(torch.randn(out, rank), torch.randn(rank, columns)))
    assert model_cost(model) == expected
    assert expected["parameters"] == sum(p.numel() for p in model.parameters())


def test_a_new_bias_is_counted() -> None:
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    site = find_sites(model)[0]
    replace(model, site, Dense(site.weight), torch.zeros(4))
    assert model_cost(model) == {"parameters": 28, "linear_parameters": 28, "macs_per_token": 24}


def test_linear_maps_tied_to_each_other_are_counted_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(6, 6, bias=False), "b": nn.Linear(6, 6, bias=False)})
    model["b"].weight = model["a"].weight
    assert model_cost(model)["parameters"] == model_cost(model)["linear_parameters"] == 36
    sites = find_sites(model)
    assert [(site.name, site.tied) for site in sites] == [("a", ("b",))]
    replace(model, sites[0], low_rank(torch.randn(6, 1), torch.randn(1, 6)))
    x = torch.randn(2, 6)
    assert torch.equal(model["a"](x), model["b"](x))
    assert model_cost(model)["linear_parameters"] == 12


def test_a_tied_pair_of_which_the_second_is_an_embedding() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 12, bias=False), "embed": nn.Embedding(12, 8)})
    model["head"].weight = model["embed"].weight
    sites = find_sites(model, embeddings=True)
    ids, x = torch.tensor([3, 7]), torch.randn(2, 8)
    expected = model["embed"](ids), model["head"](x)
    for site in sites:
        replace(model, site, Dense(site.weight))
    torch.testing.assert_close(model["embed"](ids), expected[0])
    torch.testing.assert_close(model["head"](x), expected[1])
