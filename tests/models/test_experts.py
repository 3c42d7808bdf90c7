"""Fused experts as ordinary matrices: the same outputs, and every way in and out of a file."""

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
from eckart.jobs.exports.dense import write as to_dense_directory
from eckart.models import transformers as hf
from eckart.models.experts import Experts, experts, per_token
from eckart.models.fused_experts import fuse, unfuse, unfuse_named
from eckart.models.sites import find_sites, model_cost
from eckart.statistics import Need, collect
from support.mixtures import ids, logits
from support.tiny import VOCABULARY, save_tiny, tiny_gpt_oss, tiny_llama, tiny_mixtral, tiny_qwen3_moe, tiny_tokenizer

MAKERS: list[Callable[[], Any]] = [tiny_mixtral, tiny_qwen3_moe, tiny_gpt_oss]

FIRST = "model.layers.0.mlp.experts"


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
    with pytest.raises(ValueError, match="should hold packed matrices and is LlamaMLP"):
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
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters", calibration=ids())
    eckart.save(model, tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    for unfused, complaint in ("model", "no list"), (["model.layers.0.mlp"], "should hold packed matrices"):
        config["quantization_config"]["unfused"] = unfused
        file.write_text(json.dumps(config))
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
    eckart.compress(plain, "svd", keep=0.6, of="linear-parameters", calibration=ids())
    eckart.compress(model, "svd", keep=0.6, of="linear-parameters", calibration=ids(), **options)
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


def test_fisher_information_of_experts_is_one_a_sequence() -> None:
    model: Any = tiny_mixtral()
    unfuse(model)
    sites = {site.name: site.module for site in find_sites(model)}
    name = f"{FIRST}.2.down_proj"
    found = collect(model, sites, [Need.FISHER_ROWS], [ids(4)])[name]
    generator, expected = torch.Generator().manual_seed(0), torch.zeros(32)
    for sequence in ids(4):
        output = model(sequence[None]).logits[0]
        drawn = torch.rand(len(output), 1, generator=generator)
        labels = torch.searchsorted(output.detach().softmax(-1).cumsum(-1), drawn).clamp_max(VOCABULARY - 1).flatten()
        loss = torch.nn.functional.cross_entropy(output, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, sites[name].weight, allow_unused=True)
        expected += 0 if gradient is None else gradient.square().sum(1) / 4
    torch.testing.assert_close(found.get(Need.FISHER_ROWS).float(), expected, rtol=1e-3, atol=1e-6)
    scaled = per_token(model, {name: found})[name].get(Need.FISHER_ROWS)
    torch.testing.assert_close(scaled.float(), expected * (found.tokens + 0.5) / found.tokens, rtol=1e-3, atol=1e-6)


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


def test_experts_that_are_not_dense_do_not_fuse() -> None:
    model = tiny_mixtral()
    eckart.compress(model, "svd", keep=0.5, of="linear-parameters", calibration=ids())
    with pytest.raises(ValueError, match="does not fit a fused tensor"):
        fuse(model)
    assert isinstance(model.get_submodule(FIRST), Experts)


def test_the_command_line(tmp_path: Path) -> None:
    from eckart.cli.app import main

    source = save_tiny(tmp_path / "model", tiny_qwen3_moe())
    (tmp_path / "text.txt").write_text("Some words about matrices and what is left of them. " * 200)
    arguments = ["compress", str(source), "--out", str(tmp_path / "out"), "--method", "sub-moe", "--keep", "0.6"]
    arguments += ["--of", "linear-parameters"]
    arguments += ["--calibration", str(tmp_path / "text.txt"), "--eval", "none", "--samples", "4", "--length", "32"]
    assert main([*arguments, "--no-speed"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["size"]["linear_parameters"]["after"] <= 0.6 * report["size"]["linear_parameters"]["before"]
    assert any(site.get("experts") == 2 for site in report["sites"])
    assert main(["export", str(tmp_path / "out"), "--to", "dense", "--out", str(tmp_path / "dense")]) == 0
