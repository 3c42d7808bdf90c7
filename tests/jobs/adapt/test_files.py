"""Adapters on disk, in eckart's form and in that of PEFT."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import eckart
from eckart.adapters.contract import ADAPTERS
from eckart.jobs.adapt.adapted import Adapted
from eckart.jobs.adapt.peft import export_adapter
from support.adapting import IN_PLACE, MODELS, adapted, close, has_matrix, ids, logits, made, train, unquantized
from support.cases import in_turn
from support.tiny import tiny_gpt2, tiny_llama
from support.zoo import outputs, zoo


@pytest.mark.parametrize(("method", "kind"), in_turn(ADAPTERS, MODELS))
def test_saved_and_loaded(method: str, kind: str, tmp_path: Path) -> None:
    model = made(method, kind)
    adapter = adapted(model, method, name="mine")
    train(model, adapter)
    eckart.save_adapter(adapter, tmp_path / "a")
    other = made(method, kind)
    again = eckart.load_adapter(other, tmp_path / "a")
    assert close(logits(other, ids()), logits(model, ids()), 1e-6)
    assert again.name == "mine"
    assert again.method is adapter.method
    assert again.ranks == adapter.ranks
    assert [p.shape for p in again.trainable_parameters()] == [p.shape for p in adapter.trainable_parameters()]
    with pytest.raises(ValueError, match="has an adapter 'mine' already"):
        eckart.load_adapter(other, tmp_path / "a")
    eckart.load_adapter(other, tmp_path / "a", name="theirs")


@pytest.mark.parametrize("method", ADAPTERS)
def test_the_error_of_a_lower_rank_is_what_is_lost(method: str, tmp_path: Path) -> None:
    model = made(method)
    adapter = adapted(model, method)
    train(model, adapter)
    if not (has_matrix(adapter) and unquantized(adapter)) or method in IN_PLACE:
        return
    errors = eckart.save_peft(adapter, tmp_path / "cut", rank=1)
    config = json.loads((tmp_path / "cut" / "adapter_config.json").read_text())
    assert config["r"] == 1
    name, place = next(iter(adapter.places.items()))
    change = place.path().to_dense().detach().double()
    if adapter.name in place.taken:
        change -= place.taken[adapter.name].to_dense().double()
    tail = torch.linalg.svdvals(change)
    assert errors[name] == pytest.approx(float(tail[1:].norm() / tail.norm()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"lora_alpha": 3, "rank_pattern": {"q_proj": 2}}])
def test_what_peft_writes_is_read(make: type, options: dict[str, object], tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        targets = ["q_proj", "down_proj"] if make is tiny_llama else ["c_attn", "c_proj"]
        config = peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **options)
        theirs = peft.get_peft_model(make(), config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    model = make()
    adapter = eckart.load_adapter(model, tmp_path / "theirs", name="read")
    assert close(logits(model, ids()), logits(theirs, ids()), 1e-5)
    assert len(adapter.places) == sum(isinstance(m, Adapted) for m in model.modules()) > 0


def broken(directory: Path, **changes: object) -> Path:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return directory


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = tiny_llama()
    adapter = adapted(model, "lora")
    eckart.save_adapter(adapter, tmp_path / "a")
    eckart.save_peft(adapter, tmp_path / "p")
    with pytest.raises(ValueError, match="exists and is not empty"):
        eckart.save_adapter(adapter, tmp_path / "a")
    for source in ("a", "p"):
        with pytest.raises(ValueError, match=r"which GPT2LMHeadModel does not have"):
            eckart.load_adapter(tiny_gpt2(), tmp_path / source)
        narrow = tiny_llama()
        narrow.model.layers[0].self_attn.q_proj = nn.Linear(16, 32, bias=False)
        with pytest.raises(ValueError, match=r"has shape \(32, 32\); in this LlamaForCausalLM it is \(32, 16\)"):
            eckart.load_adapter(narrow, tmp_path / source)
    with pytest.raises(ValueError, match="use_dora=True"):
        eckart.load_adapter(tiny_llama(), broken(tmp_path / "p", use_dora=True))
    with pytest.raises(ValueError, match="of type 'LOHA'"):
        eckart.load_adapter(tiny_llama(), broken(tmp_path / "p", peft_type="LOHA"))
    with pytest.raises(ValueError, match="it is no adapter"):
        eckart.load_adapter(tiny_llama(), tmp_path)
    save_file({"lora_unet_conv_in.alpha": torch.ones(1)}, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ValueError, match=r"whose names say where it belongs only beside a model"):
        export_adapter(tmp_path, tmp_path / "peft")
    (tmp_path / "pytorch_lora_weights.safetensors").unlink()
    (tmp_path / "a" / "adapter.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"adapter\.safetensors is damaged or cut short"):
        eckart.load_adapter(tiny_llama(), tmp_path / "a")


@pytest.mark.parametrize("save", [eckart.save_adapter, eckart.save_peft])
def test_running_statistics_that_moved_are_told(save: Any, tmp_path: Path) -> None:
    model, batch = zoo()["ResNet"]()
    adapter = eckart.adapt(model, "lora", rank=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(adapter, tmp_path / "before")
    model.train()
    outputs(model, batch)
    with pytest.warns(UserWarning, match="running statistics of batch normalisation have moved"):
        save(adapter, tmp_path / "after")
