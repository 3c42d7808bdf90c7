"""Models of every class, compressed or adapted in memory, saved by transformers' own `save_pretrained`."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

import eckart
from eckart.models import checkpoint
from support.saving import assert_equal
from support.tiny import tiny_llama
from support.zoo import ids, outputs, zoo

ZOO = zoo()


def made(name: str) -> tuple[Any, Any]:
    model, batch = ZOO[name]()
    if not isinstance(model, PreTrainedModel):
        pytest.skip("not of transformers")
    return model, batch


def compressed(name: str) -> tuple[Any, Any]:
    model, batch = made(name)
    with torch.no_grad():
        before = outputs(model, batch)
        eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
        assert (outputs(model, batch) - before).norm() > 0.05 * before.norm()
    return model, batch


def reloaded(model: Any, directory: Path, kind: Any = None) -> Any:
    kind = kind or type(model)
    loaded, info = kind.from_pretrained(directory, output_loading_info=True)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    return loaded


@pytest.mark.parametrize("name", ZOO)
def test_a_compressed_model_of_any_class_reloads_to_the_same_tensors(name: str, tmp_path: Path) -> None:
    model, batch = compressed(name)
    model.save_pretrained(tmp_path / "saved")
    loaded = reloaded(model, tmp_path / "saved")
    assert_equal(loaded, model)
    # Equal but for the last bits, which depend on where tensors lie in memory.
    torch.testing.assert_close(outputs(loaded, batch), outputs(model, batch), rtol=1e-5, atol=1e-6)
    loaded.save_pretrained(tmp_path / "again")
    assert_equal(reloaded(model, tmp_path / "again"), model)
    eckart.save(model, tmp_path / "ours")
    assert_equal(reloaded(model, tmp_path / "ours"), model)
    assert_equal(eckart.load(tmp_path / "ours", made(name)[0]), model)


@torch.no_grad()  # attention picks its kernel by whether gradients are asked for
@pytest.mark.parametrize("method", ["lora", "pissa", "loldu", "flylora"])
@pytest.mark.parametrize("name", ["Llama", "GPT2", "Mixtral", "BERT classifier", "T5", "ResNet", "Mamba"])
def test_an_adapter_in_place_is_saved_with_its_base(name: str, method: str, tmp_path: Path) -> None:
    model, batch = made(name)
    before = outputs(model, batch)
    try:
        adapter = eckart.adapt(model, method, rank=2, exclude=("*dt_proj",) if name == "Mamba" else ())
    except eckart.Refused as error:
        pytest.skip(str(error))
    for p in adapter.trainable_parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    expected = outputs(model, batch)
    assert (expected - before).norm() > 0.01 * before.norm()
    model.save_pretrained(tmp_path / "with")
    torch.testing.assert_close(outputs(reloaded(model, tmp_path / "with"), batch), expected)

    # What was saved goes back into the model with the adapter in place, as a resumed training does it.
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for p in model.parameters():
        p.add_(0.1)
    model.load_state_dict(state)
    assert torch.equal(outputs(model, batch), expected)

    adapter.deactivate()
    model.save_pretrained(tmp_path / "without")
    saved = json.loads((tmp_path / "without" / "config.json").read_text())
    # Experts stay apart as long as adapters stand beside them.
    assert not saved.get("quantization_config", {}).get("modules")
    assert ("quantization_config" in saved) == (name == "Mixtral")
    torch.testing.assert_close(outputs(reloaded(model, tmp_path / "without"), batch), outputs(model, batch))


def test_a_merged_adapter_leaves_an_ordinary_model(tmp_path: Path) -> None:
    model, batch = made("Llama")
    adapter = eckart.adapt(model, "pissa", rank=2)
    with torch.no_grad():
        adapter.trainable_parameters()[0].mul_(2)
    adapter.merge()
    model.save_pretrained(tmp_path)
    assert not checkpoint.manifest(model)["modules"]
    assert torch.equal(outputs(reloaded(model, tmp_path), batch), outputs(model, batch))


@torch.no_grad()
def test_switching_off_what_was_loaded_gives_the_base_that_was_loaded() -> None:
    def adapted() -> tuple[Any, Any, Any]:
        model, batch = made("GPT2")
        return model, batch, eckart.adapt(model, "pissa", rank=2)

    model, batch, adapter = adapted()
    for p in model.parameters():
        p.mul_(1.1)
    state = model.state_dict()
    adapter.deactivate()
    other, _, second = adapted()
    other.load_state_dict(state)
    second.deactivate()
    # What stood there before is what the first model would have without its path as it was taken out.
    base = {name: place.base.weight for name, place in second.places.items()}
    for name, place in second.places.items():
        taken = place.taken["default"].to_dense().T
        rest = state[f"{name}.structure.parts.0.weight"].T
        torch.testing.assert_close(base[name], rest + taken)
    assert outputs(other, batch).isfinite().all()


def test_an_adapter_beside_a_compressed_base_saved_as_a_plain_module(tmp_path: Path) -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 8)).to(torch.bfloat16)

    model, x = net(), torch.randn(5, 24, dtype=torch.bfloat16)
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    adapter = eckart.adapt(model, "lora", rank=2)
    with torch.no_grad():
        for p in adapter.trainable_parameters():
            p.add_(0.1)
    eckart.save(model, tmp_path / "saved")
    loaded = eckart.load(tmp_path / "saved", net())
    torch.testing.assert_close(loaded(x), model(x), rtol=2e-2, atol=2e-2)


def test_embeddings_and_head_in_other_classes_of_the_model(tmp_path: Path) -> None:
    model: Any = tiny_llama()
    eckart.compress(model, "svd", keep=0.6, of="parameters", embeddings=True, head=True)
    expected, states = model(ids()).logits, model.model(ids()).last_hidden_state
    model.save_pretrained(tmp_path / "causal")
    assert torch.equal(reloaded(model, tmp_path / "causal", AutoModelForCausalLM)(ids()).logits, expected)
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "causal")(ids()).last_hidden_state, states)
    classifier, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "causal", output_loading_info=True)
    assert info["missing_keys"] == {"score.weight"}
    assert torch.equal(classifier.model(ids()).last_hidden_state, states)

    model.model.save_pretrained(tmp_path / "base")
    assert torch.equal(reloaded(model, tmp_path / "base", AutoModel)(ids()).last_hidden_state, states)
    causal = reloaded(model, tmp_path / "base", AutoModelForCausalLM)
    assert torch.equal(causal(ids()).logits, expected)
    causal.save_pretrained(tmp_path / "again")
    assert torch.equal(reloaded(model, tmp_path / "again", AutoModelForCausalLM)(ids()).logits, expected)


def test_another_head_on_an_encoder(tmp_path: Path) -> None:
    model, batch = compressed("BERT masked")
    model.save_pretrained(tmp_path / "masked")
    classifier = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "masked")
    expected = model.bert(**batch).last_hidden_state
    assert torch.equal(classifier.bert(**batch).last_hidden_state, expected)
    classifier.save_pretrained(tmp_path / "classifier")
    again = transformers.BertModel.from_pretrained(tmp_path / "classifier", add_pooling_layer=False)
    assert torch.equal(again(**batch).last_hidden_state, expected)


def test_a_bias_that_transformers_ties_is_in_the_file(tmp_path: Path) -> None:
    model, batch = made("BERT masked")
    eckart.compress(model, "svd", keep=0.7, of="parameters", embeddings=True)
    model.save_pretrained(tmp_path)
    loaded = reloaded(model, tmp_path)
    assert torch.equal(outputs(loaded, batch), outputs(model, batch))
    assert loaded.cls.predictions.decoder.bias is not None


def test_tensors_that_were_handed_in_are_written_as_the_configuration_says(tmp_path: Path) -> None:
    model, batch = compressed("Llama")
    half = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=half)
    expected = copy.deepcopy(model)
    for p in expected.parameters():
        p.data = p.data.bfloat16().float()
    torch.testing.assert_close(outputs(reloaded(model, tmp_path), batch), outputs(expected, batch))


@pytest.mark.parametrize("method", ["lora", "pissa", "loldu", "osf"])
@torch.no_grad()
def test_a_model_goes_to_another_dtype_with_its_adapter(method: str) -> None:
    model, batch = made("Llama")
    eckart.adapt(model, method, rank=2)
    expected = outputs(model, batch)
    model.to(torch.bfloat16)
    torch.testing.assert_close(outputs(model, batch).float(), expected, rtol=0.1, atol=0.3)
    model.to(torch.float32)
    assert outputs(model, batch).dtype == torch.float32


@torch.no_grad()
def test_an_adapter_beside_a_tied_head(tmp_path: Path) -> None:
    model, batch = made("Qwen2")
    adapter = eckart.adapt(model, "lora", rank=2, include=["lm_head"])
    for p in adapter.trainable_parameters():
        p.add_(0.1)
    model.save_pretrained(tmp_path)
    assert torch.equal(outputs(reloaded(model, tmp_path), batch), outputs(model, batch))


def test_another_configuration_than_that_of_the_directory_is_refused(tmp_path: Path) -> None:
    model, _ = made("Llama")
    config = copy.deepcopy(model.config)
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    model.save_pretrained(tmp_path / "llama")
    with pytest.raises(eckart.Refused, match="configuration that LlamaForCausalLM was given does not describe"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "llama", config=config)
    clip, _ = compressed("CLIP")
    clip.save_pretrained(tmp_path / "clip")
    with pytest.raises(eckart.Refused, match="configuration that CLIPTextModel was given does not describe"):
        transformers.CLIPTextModel.from_pretrained(tmp_path / "clip")


def test_another_model_is_refused(tmp_path: Path) -> None:
    model, _ = compressed("Llama")
    model.save_pretrained(tmp_path)
    with pytest.raises(eckart.Refused, match=r"none of the compressed matrices|does not have"):
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path)


def test_copies_and_models_that_were_compressed_by_hand_are_saved_right(tmp_path: Path) -> None:
    model, _ = compressed("GPT2")
    copied = copy.deepcopy(model)
    with torch.no_grad():
        next(p for n, p in copied.named_parameters() if "structure" in n).mul_(2)
    copied.save_pretrained(tmp_path)
    assert_equal(reloaded(copied, tmp_path), copied)


WITHOUT = """
import sys, transformers
transformers.utils.logging.set_verbosity_error()
for kind, directory in zip(sys.argv[1::2], sys.argv[2::2]):
    for name in (kind, "AutoModel", "AutoConfig"):
        try:
            getattr(transformers, name).from_pretrained(directory)
            print(name, "loaded")
        except Exception as error:
            print(name, "failed:", error)
"""


def test_without_eckart_it_fails_and_names_the_import(tmp_path: Path) -> None:
    arguments = []
    for name in ("Llama", "BERT masked", "ResNet", "Mixtral"):
        model, _ = compressed(name)
        model.save_pretrained(tmp_path / name)
        arguments += [type(model).__name__, str(tmp_path / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    assert len(lines) == 12
    for line in lines:
        assert "import-eckart" in line if not line.startswith("AutoConfig") else "loaded" in line, line
