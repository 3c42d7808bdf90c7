"""Models on a device that is not the CPU: every job runs there, and its results are those of the CPU."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

import eckart
from eckart.adapters.contract import ADAPTERS
from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.jobs.adapt.directory import Request, adapt_directory
from eckart.jobs.compensate.directory import compensate_directory
from eckart.jobs.compress import directory
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.diagnose.directory import diagnose_directory
from eckart.jobs.evaluate.quality import evaluate
from eckart.jobs.learning.checkpoint import CheckpointFile
from eckart.jobs.learning.loop import Training
from eckart.jobs.texts import Texts
from eckart.jobs.train.directory import Request as train_request
from eckart.jobs.train.directory import train_directory
from eckart.machine import DEVICES, device_named
from eckart.models import transformers as hf
from eckart.models.modules import Structured
from eckart.ops.polynomial_attention import polynomial_attention
from eckart.statistics import Need, statistics_for
from support.commands import prose
from support.directories import save_data, save_zoo
from support.reparametrizing import EVERY, made, networks
from support.tiny import save_tiny, tiny_llama
from tests.support.elsewhere import DEVICE, Mixed, elsewhere

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = [torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(i)) for i in range(3)]
CPU = torch.device("cpu")
INPUT_RULES = {"flylora"}
"""Adapters whose path depends on its input, so that there is nothing to merge."""
JOBS: dict[str, dict[str, Any]] = {
    "sequential": {"method": "kfac", "keep": 0.8, "of": "linear-parameters", "sequential": True},
    "heal": {"method": "kfac", "keep": 0.8, "of": "linear-parameters", "heal": 3},
    "distill": {"method": "svd", "keep": 0.8, "of": "linear-parameters", "distill": 2},
    "rotate": {"method": "rtn", "bits": 4, "rotate": True},
    "tables": {"method": "kfac", "keep": 0.6, "embeddings": True, "head": True},
    "influence": {"method": "kfac", "keep": 0.8, "of": "linear-parameters", "allocation": "influence"},
}


@pytest.fixture(autouse=True)
def _there() -> Iterator[None]:
    with elsewhere():
        yield


def _there_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is what jobs find where they are asked for `cuda`."""
    for module in (hf, directory):
        monkeypatch.setattr(module, "device_named", lambda name: DEVICE if name == "cuda" else CPU)


def make(device: torch.device, blocks: int = 2) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=64, num_hidden_layers=blocks, max_position_embeddings=64, **shape)
    return LlamaForCausalLM(config).eval().to(device)


def logits(model: Any) -> Tensor:
    device = next(model.parameters()).device
    assert {t.device for t in (*model.parameters(), *model.buffers())} == {device}
    with torch.no_grad():
        found: Tensor = model(IDS[0].to(device)).logits.cpu()
    return found


def close(found: Tensor, wanted: Tensor, within: float = 1e-4) -> None:
    assert float((found - wanted).norm()) <= within * float(wanted.norm())


@pytest.mark.parametrize("method", ["kfac", "gptq"])
def test_a_model_that_accelerate_has_spread(method: str) -> None:
    alone, spread = make(CPU), make(CPU)
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb"), CPU)
    accelerate.dispatch_model(
        spread, places | {"model.layers.1": DEVICE, "lm_head": DEVICE}, main_device="cpu", force_hooks=True
    )
    assert {parameter.device for parameter in spread.parameters()} == {CPU, DEVICE}
    for model in (alone, spread):
        eckart.compress(model, method, keep=0.6, calibration=IDS, head=True)
    specs = [
        {n: m.structure.spec() for n, m in model.named_modules() if isinstance(m, Structured)}
        for model in (spread, alone)
    ]
    assert specs[0] == specs[1] != {}
    assert {parameter.device for parameter in spread.lm_head.parameters()} == {DEVICE}
    found, wanted = (evaluate(model, IDS[0]).nll for model in (spread, alone))
    assert found == pytest.approx(wanted, rel=1e-4)


def test_the_device_is_another_one() -> None:
    x = torch.ones(2, 3).to(DEVICE)
    with pytest.raises(Mixed):
        x + torch.ones(3)
    with pytest.raises(TypeError, match="float64"):
        x.double()
    net = nn.Linear(3, 2).to(DEVICE)
    net(x).sum().backward()
    assert net.weight.grad is not None
    assert net.weight.grad.device == DEVICE
    assert net.weight.grad.tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_compresses_there_as_on_the_cpu(method: str) -> None:
    # Layers that share a basis are two at least; of one, `auto` has two choices that are as good but for rounding.
    blocks, keep = (2, 0.6) if METHODS[method].together or method == "auto" else (1, 0.66)
    found = []
    for device in (CPU, DEVICE):
        model = make(device, blocks)
        result = eckart.compress(model, method, keep=keep, of="bytes", calibration=IDS)
        found.append((logits(model), result.choice))
    assert found[0][1] == found[1][1]
    close(found[1][0], found[0][0], 1e-2 if "int8" in method else 1e-4)


@pytest.mark.parametrize("job", JOBS)
def test_what_else_compressing_does(job: str) -> None:
    found = []
    for device in (CPU, DEVICE):
        model = make(device)
        eckart.compress(model, calibration=IDS, **JOBS[job])
        found.append(logits(model))
    close(found[1], found[0])


@pytest.mark.parametrize("method", ADAPTERS)
def test_every_adapter_is_trained_saved_and_merged_there_as_on_the_cpu(method: str, tmp_path: Path) -> None:
    found = []
    for device in (CPU, DEVICE):
        model = make(device, blocks=1)
        if method == "welore":
            eckart.compress(model, "welore", keep=0.6, of="linear-parameters")
        adapter = eckart.adapt(model, method, rank=4, calibration=IDS)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for batch in IDS[:2]:
            optimizer.zero_grad()
            (model(batch.to(device), labels=batch.to(device)).loss + adapter.regulariser()).backward()
            optimizer.step()
        found.append(logits(model))
        if device == DEVICE and method != "welore":
            eckart.save_adapter(adapter, tmp_path / "adapter")
            again = make(device, blocks=1)
            eckart.load_adapter(again, tmp_path / "adapter")
            close(logits(again), found[-1])
        if method not in INPUT_RULES:
            adapter.merge()
            logits(model)
            adapter.unmerge()
            close(logits(model), found[-1], 1e-6)
    close(found[1], found[0])


def test_a_model_is_diagnosed_evaluated_and_compensated_there(tmp_path: Path) -> None:
    dense, small = make(DEVICE), make(DEVICE)
    eckart.compress(small, "svd", keep=0.6, of="linear-parameters")
    here = copy.deepcopy(small).to(CPU)
    for of_here, of_there in zip(*(eckart.diagnose(m, tokens=torch.cat(IDS)).rows for m in (here, small)), strict=True):
        assert of_there["stable_rank"] == pytest.approx(of_here["stable_rank"], rel=1e-5)
    quality = [evaluate(m, torch.cat(IDS), reference=make(d)) for m, d in ((here, CPU), (small, DEVICE))]
    assert quality[1].kl == pytest.approx(quality[0].kl, rel=1e-4)
    eckart.compensate(small, dense, rank=2, calibration=IDS)
    logits(small)


def test_what_is_loaded_is_where_the_model_is(tmp_path: Path) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).to(DEVICE)

    small, x = net(), torch.randn(3, 32).to(DEVICE)
    eckart.compress(small, "svd", keep=0.5)
    eckart.save(small, tmp_path / "net")
    loaded = eckart.load(tmp_path / "net", net())
    assert {t.device for t in loaded.parameters()} == {DEVICE}
    close(loaded(x).detach().cpu(), small(x).detach().cpu(), 1e-6)


@pytest.mark.parametrize("method", EVERY)
def test_a_structure_trains_from_the_start_there(method: str) -> None:
    x = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    for network in networks(method):
        model = network(dtype=torch.float32).to(DEVICE)
        result = made(model, method)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        hooks = result.schedule(optimizer, 6)
        for _ in range(6):
            hooks.before_step()
            model(x).square().mean().backward()
            hooks.after_backward()
            optimizer.step()
            hooks.after_step()
            optimizer.zero_grad()
        result.finish()
        assert {t.device for t in model.state_dict().values()} == {DEVICE}


def test_statistics_lie_in_the_memory_of_the_cpu() -> None:
    model = make(DEVICE)
    modules = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    found, _ = statistics_for(model, modules, list(Need), IDS)
    assert all(t.device == CPU for s in found.values() for t in vars(s).values() if isinstance(t, Tensor))


def test_time_is_that_of_the_cpu() -> None:
    with pytest.raises(Refused, match="on the CPU"):
        eckart.compress(make(DEVICE), "rtn", keep=0.8, of="decode-time")


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    assert device_named("cpu") == CPU
    assert device_named("auto").type in DEVICES
    for name, said in (("gpu", "none of auto"), ("cuda:x", "none of auto"), ("cpu:9", "not there")):
        with pytest.raises(Refused, match=f"{re.escape(repr(name))}.*{said}"):
            device_named(name)


def test_scaled_embeddings_and_masked_mappings_there() -> None:
    found = []
    for device in (CPU, DEVICE):
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
        config = Gemma3TextConfig(vocab_size=64, num_hidden_layers=2, head_dim=8, **shape)
        model = Gemma3ForCausalLM(config).eval().to(device)
        model.tie_weights()
        mask = torch.ones(4, 16, dtype=torch.long)
        mask[0, 10:] = 0
        data = [{"input_ids": IDS[0], "attention_mask": mask}]
        result = eckart.compress(model, "gptq", bits=4, embeddings=True, head=True, calibration=data)
        found.append((result.choice, logits(model)))
    assert found[0][0] == found[1][0]
    close(found[1][1], found[0][1])


def test_what_else_asks_for_float64(tmp_path: Path) -> None:
    model = make(DEVICE)
    eckart.save_peft(eckart.adapt(model, "pissa", rank=2), tmp_path / "peft")
    server, client = (eckart.Federation(eckart.adapt(make(DEVICE), "fedsvd", rank=2)) for _ in range(2))
    client.load(server.arrays())
    server.average([[a + 1 for a in client.trained()]])
    x = 0.1 * torch.randn(1, 2, 8, 4).to(DEVICE)
    assert polynomial_attention(x, x, x, 0.5).device == DEVICE
    with eckart.int4_cache(make(DEVICE), calibration=IDS[0]):
        pass


def _quality(report: dict[str, Any]) -> list[float]:
    found = report["quality"]
    return [found["after"]["mean"], found["before"]["mean"], found["kl"] or 0.0, found["top1_agreement"] or 0.0]


def test_the_commands_there_say_what_they_say_on_the_cpu(
    texts: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is tied: a subclass takes the place of a tensor when it is moved, and is another one in each place.
    source = str(save_tiny(tmp_path / "model", tiny_llama(tied=False)))
    _there_by_name(monkeypatch)
    data = tmp_path / "pairs.jsonl"
    lines = Path(texts[0]).read_text("utf-8").splitlines()[:12]
    data.write_text("".join(json.dumps({"prompt": line[:20], "response": line[20:50]}) + "\n" for line in lines))
    few, judged = {"samples": 4, "length": 32}, {"eval_samples": 3, "eval_length": 32}
    recipe, read = Recipe("kfac", keep=0.7, **few), Texts(calibration=texts[0], evaluation=texts[1], **judged)
    found: list[list[float]] = []
    for name in ("cpu", "cuda"):
        small, own = tmp_path / name, {"device": name, "cache": tmp_path / "cache" / name}
        compressed = compress_directory(source, small, recipe, read, measure_speed=name == "cuda", **own)
        added = compensate_directory(str(small), source, tmp_path / f"{name}-more", 2, read, **few, **own)
        seen = diagnose_directory(str(small), against=source, text=texts[0], **few, **own)
        training = Training(steps=3, batch=4, every=2)
        request = Request(data=str(data), method="pissa", rank=2, length=32, text=texts[1])
        taught = adapt_directory(source, tmp_path / f"{name}-adapter", request, training, device=name)
        found.append(
            [
                *_quality(compressed),
                added["quality"]["after"]["kl"],
                *(row["stable_rank"] for row in seen["matrices"]),
                *(state["matrix_entropy"] for state in seen["hidden_states"]),
                *taught["loss"],
                taught["forgetting"]["after"]["perplexity"],
            ]
        )
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("options", [{"optimizer": "galore:rank=4"}, {"parametrization": "rigl:keep=0.5"}])
def test_a_model_is_trained_there_and_goes_on_there(
    options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(save_tiny(tmp_path / "model", tiny_llama(tied=False)))
    _there_by_name(monkeypatch)
    for seed, name in enumerate(("learned", "held")):
        (tmp_path / name).write_text(prose(seed, 8), "utf-8")
    asked = train_request(str(tmp_path / "learned"), str(tmp_path / "held"), length=32, **options)
    training = Training(steps=4, batch=2, every=2)
    found = [train_directory(source, tmp_path / name, asked, training, device=name)["loss"] for name in ("cpu", "cuda")]
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    write = CheckpointFile.write

    def stop(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointFile, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            train_directory(source, tmp_path / "out", asked, training, device="cuda")
    again = train_directory(source, tmp_path / "out", asked, training, device="cuda", resume=True)
    assert again["loss"] == found[1]


@pytest.mark.parametrize(("name", "kind"), [("BERT classifier", "pairs"), ("T5", "pairs"), ("ViT", "images")])
def test_other_tasks_there_are_judged_as_on_the_cpu(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _there_by_name(monkeypatch)
    source = save_zoo(name, tmp_path / "model")
    read = Texts(*(save_data(kind, tmp_path / each, i) for i, each in enumerate("ab")), eval_samples=4, eval_length=16)
    found = []
    for device in ("cpu", "cuda"):
        recipe = Recipe("svd", keep=0.9, of="linear-parameters", samples=4, length=16)
        report = compress_directory(str(source), tmp_path / device, recipe, read, device=device, measure_speed=False)
        found.append([report["quality"]["after"]["mean"], report["quality"]["top1_agreement"] or 0.0])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_model_writes_its_own_text_there() -> None:
    found = []
    for device in (CPU, DEVICE):
        model = make(device)
        model.generation_config.eos_token_id = None
        eckart.compress(model, "wanda", percent=50, samples=3, length=12)
        found.append(logits(model))
    close(found[1], found[0])
