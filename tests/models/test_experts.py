"""Fused experts as ordinary matrices: the same outputs, every way in and out of a file, and experts merged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import eckart
from eckart.compressors._merged_experts import merging
from eckart.compressors.contract import METHODS, Members
from eckart.jobs.export import to_dense_directory
from eckart.layouts.experts import Mixture
from eckart.linalg.clustering import k_means
from eckart.models import transformers as hf
from eckart.models.experts import Experts, experts, per_token
from eckart.models.fused_experts import fuse, unfuse, unfuse_named
from eckart.models.sites import find_sites, model_cost
from eckart.statistics import Need, Statistics, collect
from eckart.statistics.sample import SAMPLED_TOKENS, Sample
from eckart.structures import Shared
from support import hard
from support.tiny import VOCABULARY, save_tiny, tiny_gpt_oss, tiny_llama, tiny_mixtral, tiny_qwen3_moe, tiny_tokenizer

MAKERS: list[Callable[[], Any]] = [tiny_mixtral, tiny_qwen3_moe, tiny_gpt_oss]
FIRST = "model.layers.0.mlp.experts"


def ids(count: int = 8, length: int = 16) -> Tensor:
    return torch.randint(0, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: nn.Module, tokens: Tensor) -> Tensor:
    found: Tensor = model(tokens).logits
    return found


def one_expert_only(model: Any, expert: int, layer: int = 0) -> None:
    """Makes the router of a layer send all tokens to two experts, the named one and its successor."""
    router = model.model.layers[layer].mlp.gate
    route = router.forward

    def forward(x: Tensor) -> Any:
        scores, weights, index = route(x)
        return scores, weights, torch.tensor([expert, expert + 1]).expand_as(index)

    router.forward = forward


@pytest.mark.parametrize("make", MAKERS)
def test_taken_apart_gives_the_same(make: Callable[[], Any]) -> None:
    model = make()
    fused, apart = copy.deepcopy(model), copy.deepcopy(model)
    fused.set_experts_implementation("eager")
    names = unfuse(apart)
    assert names == list(experts(apart)) == [FIRST, FIRST.replace("0", "1")]
    assert (logits(fused, ids()) - logits(apart, ids())).abs().max() <= 1e-6 * logits(fused, ids()).abs().max()
    assert f"{FIRST}.3.gate_proj" in {site.name for site in find_sites(apart)}
    fuse(apart)
    assert list(apart.state_dict()) == list(model.state_dict())
    for (name, one), other in zip(apart.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_nothing_is_copied_and_other_models_are_left_alone() -> None:
    model: Any = tiny_mixtral()
    start = model.model.layers[0].mlp.experts.gate_up_proj.untyped_storage().data_ptr()
    unfuse(model)
    expert = model.model.layers[0].mlp.experts[3]
    assert expert.up_proj.weight.untyped_storage().data_ptr() == start
    assert unfuse(model) == []
    assert unfuse(tiny_llama()) == []
    with pytest.raises(ValueError, match="should be fused experts and is LlamaMLP"):
        unfuse_named(tiny_llama(), ["model.layers.0.mlp"])
    with pytest.raises(ValueError, match="no module"):
        unfuse_named(model, ["model.experts"])


def test_gradients_reach_the_experts_and_the_router() -> None:
    model: Any = tiny_mixtral()
    unfuse(model)
    model(ids()).logits.square().sum().backward()
    assert model.model.layers[0].mlp.experts[0]["down_proj"].weight.grad.abs().sum() > 0
    assert model.model.layers[0].mlp.gate.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("method", ["sub-moe", "svd", "rtn"])
def test_saved_loaded_and_exported(make: Callable[[], Any], method: str, tmp_path: Path) -> None:
    model = make()
    eckart.compress(model, method, keep=0.7, of="bytes", calibration=ids())
    expected = logits(model, ids(2))
    eckart.save(model, tmp_path / "plain")
    assert torch.equal(logits(eckart.load(tmp_path / "plain", make()), ids(2)), expected)
    directory = tmp_path / "hf"
    directory.mkdir()
    hf.write_model(model, tiny_tokenizer(), directory)
    again = transformers.AutoModelForCausalLM.from_pretrained(directory)
    assert torch.equal(logits(again, ids(2)), expected)
    to_dense_directory(str(directory), tmp_path / "dense")
    dense = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "dense")
    assert not experts(dense)
    assert list(dense.state_dict()) == list(make().state_dict())
    dense.set_experts_implementation("eager")
    assert torch.allclose(logits(dense, ids(2)), expected, atol=1e-4 * float(expected.abs().max()))
    assert "unfused" not in (tmp_path / "dense" / "config.json").read_text()


def test_compensation_takes_the_dense_experts_apart() -> None:
    model, dense = tiny_mixtral(), tiny_mixtral()
    eckart.compress(model, "rtn", keep=0.55, of="bytes", calibration=ids(32))
    before = (logits(model, ids()) - logits(dense, ids())).norm()
    result = eckart.compensate(model, dense, rank=8, calibration=ids(32), allocation="greedy")
    assert any(".experts." in name for name in result.added)
    assert (logits(model, ids()) - logits(dense, ids())).norm() < before


def test_a_checkpoint_that_names_no_experts_is_refused(tmp_path: Path) -> None:
    model = tiny_mixtral()
    eckart.compress(model, "svd", keep=0.6, calibration=ids())
    eckart.save(model, tmp_path / "m")
    entry = json.loads((tmp_path / "m" / "eckart.json").read_text())
    for unfused, complaint in ("model", "no list"), (["model.layers.0.mlp"], "should be fused experts"):
        (tmp_path / "m" / "eckart.json").write_text(json.dumps({**entry, "unfused": unfused}))
        with pytest.raises(ValueError, match=complaint):
            eckart.load(tmp_path / "m", tiny_mixtral())


@pytest.mark.parametrize("method", ["kfac", "gptq", "wanda", "fwsvd", "lord"])
def test_experts_are_compressed_as_other_matrices(method: str) -> None:
    model = tiny_mixtral()
    result = eckart.compress(model, method, keep=0.7, of="bytes", calibration=ids(16))
    assert not result.warnings
    structured = [n for n, size in result.choice.items() if size is not None and ".experts." in n]
    assert len(structured) > 12
    assert torch.isfinite(logits(model, ids())).all()


@pytest.mark.parametrize("options", [{"sequential": True}, {"heal": 2}])
def test_passes_over_the_blocks(options: dict[str, Any]) -> None:
    plain, model = tiny_mixtral(), tiny_mixtral()
    eckart.compress(plain, "svd", keep=0.6, calibration=ids())
    eckart.compress(model, "svd", keep=0.6, calibration=ids(), **options)
    assert torch.isfinite(logits(model, ids())).all()
    assert not torch.equal(logits(model, ids()), logits(plain, ids()))


def test_statistics_are_of_the_tokens_that_came() -> None:
    model: Any = tiny_mixtral()
    unfuse(model)
    seen: dict[int, list[Tensor]] = {i: [] for i in range(4)}

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x, index, _ = arguments
        for i in seen:
            seen[i].append(x[(index == i).any(1)])

    handle = model.model.layers[0].mlp.experts.register_forward_pre_hook(record)
    sites = {site.name: site.module for site in find_sites(model)}
    needs = [Need.INPUT_SECOND_MOMENT, Need.INPUT_SAMPLE, Need.GRADIENT_SECOND_MOMENT]
    found = collect(model, sites, needs, [ids(4), ids(8)])
    handle.remove()
    scaled = per_token(model, found)
    for i, parts in seen.items():
        x = torch.cat(parts).double()
        own, up = found[f"{FIRST}.{i}.gate_proj"], found[f"{FIRST}.{i}.up_proj"]
        assert own.tokens == len(x) > 0
        moment = x.T @ x / len(x)
        # Batches are summed in float32, whose rounding is of the size of the whole matrix.
        assert (own.get(Need.INPUT_SECOND_MOMENT) - moment).norm() <= 1e-6 * moment.norm()
        assert up.input_sample is own.input_sample
        assert torch.equal(own.get(Need.INPUT_SAMPLE).sort(0).values, x.sort(0).values)
        # A mean over all 12 x 16 tokens of the text, and half a token.
        share = (len(x) + 0.5) / (12 * 16)
        after = scaled[f"{FIRST}.{i}.gate_proj"].get(Need.GRADIENT_SECOND_MOMENT)
        assert torch.allclose(after, share * own.get(Need.GRADIENT_SECOND_MOMENT))
    name = "model.layers.0.self_attn.q_proj"
    assert scaled[name] is found[name]


def test_a_sample_is_evenly_spaced() -> None:
    rows = torch.arange(3000.0)[:, None]
    whole, parts = Sample(), Sample()
    whole.add(rows)
    for part in rows.split(7):
        parts.add(part)
    assert torch.equal(whole.rows, parts.rows)
    assert SAMPLED_TOKENS / 2 <= len(whole.rows) <= SAMPLED_TOKENS
    assert whole.rows.diff(dim=0).unique().numel() == 1


@pytest.mark.parametrize("method", ["kfac", "gptq", "lord", "sub-moe", "rtn"])
def test_experts_that_no_token_reached(method: str) -> None:
    model: Any = tiny_mixtral()
    one_expert_only(model, 1)
    result = eckart.compress(model, method, keep=0.7, of="bytes", calibration=ids())
    assert not result.warnings
    assert result.choice[f"{FIRST}.0.gate_proj"] is not None
    assert torch.isfinite(logits(model, ids())).all()


def test_unreached_experts_get_the_mean_of_the_others() -> None:
    model: Any = tiny_mixtral()
    one_expert_only(model, 1)
    unfuse(model)
    sites = {site.name: site.module for site in find_sites(model)}
    found = per_token(model, collect(model, sites, [Need.INPUT_SECOND_MOMENT], [ids()]))
    reached, unreached = found[f"{FIRST}.1.up_proj"], found[f"{FIRST}.0.up_proj"]
    assert (reached.tokens, unreached.tokens) == (128, 0)
    assert torch.allclose(unreached.get(Need.INPUT_SECOND_MOMENT), reached.get(Need.INPUT_SECOND_MOMENT))


def test_multiply_adds_are_of_the_experts_that_a_token_visits() -> None:
    model = tiny_mixtral()
    unfuse(model)
    one = 3 * 32 * 24
    attention = 2 * 32 * 32 + 2 * 32 * 16
    assert model_cost(model)["macs_per_token"] == 2 * (2 * one + attention) + 32 * VOCABULARY
    assert model_cost(model)["linear_parameters"] == 2 * (4 * one + attention)
    result = eckart.compress(model, "svd", keep=0.7, of="macs", calibration=ids())
    assert model_cost(model)["macs_per_token"] <= 0.7 * result.plan.totals["macs"]
    assert model_cost(model)["macs_per_token"] >= 0.6 * result.plan.totals["macs"]


def test_all_experts_are_the_model_itself() -> None:
    model, dense = tiny_mixtral(), tiny_mixtral()
    unfuse(dense)
    result = eckart.compress(model, "sub-moe", keep=1.0, calibration=ids())
    assert set(result.choice.values()) == {None}
    assert torch.equal(logits(model, ids()), logits(dense, ids()))


def mixture(seeds: list[int], visits: list[int], seed: int = 7) -> Members:
    """Experts drawn from seeds, (6 -> 5 -> 6), each with inputs of its own."""
    weights = [hard.normal(*s, seed=10 * e + i) for e in seeds for i, s in enumerate([(5, 6), (5, 6), (6, 5)])]
    known = [
        Statistics(tokens=n, input_sample=hard.normal(40, k, seed=seed + 10 * e + i) if n else None)
        for e, n in enumerate(visits)
        for i, k in enumerate((6, 6, 5))
    ]
    return Members(tuple(weights), tuple(known), mixture=Mixture(len(seeds), lambda y: y[0].relu() * y[1]))


def test_equal_experts_are_merged_first_and_for_nothing() -> None:
    family = METHODS["sub-moe"].together["experts"](mixture([1, 2, 1, 3, 2], [30, 20, 10, 5, 0]))
    assert list(family.sizes) == [1, 2, 3, 4]
    assert float(family.errors[2]) <= 1e-12 * family.zero_error < float(family.errors[1])
    parts = family.build(3)
    for one, other in (0, 2), (1, 4):
        for role in range(3):
            structure = parts[3 * other + role].structure
            assert isinstance(structure, Shared)
            assert structure.owner is parts[3 * one + role].structure
    assert not any(isinstance(part.structure, Shared) for part in parts[9:12])
    for part, weight in zip(parts, mixture([1, 2, 1, 3, 2], [30, 20, 10, 5, 0]).weights, strict=True):
        assert torch.allclose(part.structure.to_dense(), weight)


def test_the_error_is_that_of_the_outputs_on_sampled_inputs() -> None:
    visits = [30, 20, 10, 0]
    members = mixture([1, 2, 3, 4], visits)
    family = METHODS["sub-moe"].together["experts"](members)
    for size in family.sizes:
        for i, part in enumerate(family.build(size)):
            x = members.statistics[i].input_sample
            if x is None:
                assert part.error == 0
                continue
            lost = x @ (members.weights[i] - part.structure.to_dense().detach()).T
            assert part.error == pytest.approx(visits[i // 3] / 60 * float(lost.square().sum()) / len(x), rel=1e-9)


@pytest.mark.parametrize("rank", [10, 5, 2])
def test_merging_in_the_joint_decomposition_is_a_projected_mean(rank: int) -> None:
    """U S sum f_i V_i is the mean of the W_i at full rank, and that mean projected on U_r below it."""
    weights = [hard.normal(10, 8, seed=i) for i in range(3)]
    shares = torch.tensor([0.5, 0.3, 0.2]).double()
    u, s, vt = torch.linalg.svd(torch.cat(weights, 1), full_matrices=False)
    u, s, vt = u[:, :rank], s[:rank], vt[:rank]
    merged = u * s @ sum(f * v for f, v in zip(shares, vt.split(8, 1), strict=True))
    mean = sum(f * w for f, w in zip(shares, weights, strict=True))
    assert torch.allclose(merged, u @ (u.T @ mean))

    def lost(a: Tensor) -> float:
        return sum(float(f * (a - w).square().sum()) for f, w in zip(shares, weights, strict=True))

    assert lost(mean) <= lost(merged) * (1 + 1e-12)
    assert rank < 10 or torch.allclose(merged, mean)


def test_k_means_finds_what_is_apart() -> None:
    centres = 10 * hard.normal(5, 4, seed=1)
    truth = torch.arange(40) % 5
    label = k_means(centres[truth] + 0.1 * hard.normal(40, 4, seed=2), 5, torch.Generator().manual_seed(0))
    assert torch.equal(label[:, None] == label, truth[:, None] == truth)
    same = k_means(torch.ones(6, 3).double(), 4, torch.Generator().manual_seed(0))
    assert same.unique().numel() == 1


def test_shares_of_a_cluster() -> None:
    shares = merging(torch.tensor([0, 1, 0, 2, 2]), torch.tensor([30.0, 5.0, 10.0, 0.0, 0.0]).double())
    expected = torch.tensor([[0.75, 0, 0.25, 0, 0], [0, 1, 0, 0, 0]]).double()
    assert torch.allclose(shares[:2], expected)
    assert torch.allclose(shares[3:, 3:], torch.full((2, 2), 0.5).double())


def test_experts_nobody_visits_stay_as_they_are() -> None:
    with pytest.raises(ValueError, match="reached any of the experts"):
        METHODS["sub-moe"].together["experts"](mixture([1, 2], [0, 0]))


def test_experts_that_are_not_dense_do_not_fuse() -> None:
    model = tiny_mixtral()
    eckart.compress(model, "svd", keep=0.5, calibration=ids())
    with pytest.raises(ValueError, match="does not fit a fused tensor"):
        fuse(model)
    assert isinstance(model.get_submodule(FIRST), Experts)


def test_the_command_line(tmp_path: Path) -> None:
    from eckart.cli.app import main

    source = save_tiny(tmp_path / "model", tiny_qwen3_moe())
    (tmp_path / "text.txt").write_text("Some words about matrices and what is left of them. " * 200)
    arguments = ["compress", str(source), "--out", str(tmp_path / "out"), "--method", "sub-moe", "--keep", "0.6"]
    arguments += ["--calibration", str(tmp_path / "text.txt"), "--eval", "none", "--samples", "4", "--length", "32"]
    assert main([*arguments, "--no-speed"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["size"]["linear_parameters"]["after"] <= 0.6 * report["size"]["linear_parameters"]["before"]
    assert any(site.get("experts") == 2 for site in report["sites"])
    assert main(["export", str(tmp_path / "out"), "--to", "dense", "--out", str(tmp_path / "dense")]) == 0
