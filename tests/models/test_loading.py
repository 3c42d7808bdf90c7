"""A directory becomes the class that its configuration names, whole, or is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from eckart.errors import Refused
from eckart.models import transformers as hf
from support.saving import edit_json, edit_tensors
from support.tiny import tiny_tokenizer
from support.zoo import outputs, zoo

KINDS = [name for name, make in zoo().items() if isinstance(make()[0], PreTrainedModel)]


def saved(name: str, directory: Path) -> PreTrainedModel:
    """Saves a model of the zoo with a tokenizer, and returns it."""
    model = zoo()[name]()[0]
    assert isinstance(model, PreTrainedModel)
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return model


@pytest.mark.parametrize("name", KINDS)
def test_every_class_is_read_as_what_it_is(name: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    found = hf.load(str(tmp_path)).model
    assert type(found) is type(model)
    batch = zoo()[name]()[1]
    torch.testing.assert_close(outputs(found, batch), outputs(model, batch))


@pytest.mark.parametrize("name", KINDS)
def test_no_tensor_is_lost_or_made_up(name: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    edit_tensors(tmp_path, lambda tensors: tensors.update({"encoder.more.weight": torch.ones(2, 2)}))
    with pytest.raises(Refused, match=r"no place for.*encoder\.more\.weight.*architectures"):
        hf.load(str(tmp_path))

    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["encoder.more.weight"]
        del tensors[max((key for key in tensors if key.endswith("weight")), key=lambda key: tensors[key].ndim)]

    edit_tensors(tmp_path, drop)
    with pytest.raises(Refused, match="lacks weights"):
        hf.load(str(tmp_path))


def test_shapes_that_do_not_belong_to_the_configuration_are_refused(tmp_path: Path) -> None:
    saved("BERT classifier", tmp_path)
    edit_json(tmp_path / "config.json", lambda config: config.update(id2label={"0": "no", "1": "yes"}))
    with pytest.raises(Refused, match=r"other shapes than its config\.json says: classifier\.bias, classifier\.weight"):
        hf.load(str(tmp_path))


def test_a_class_that_is_not_there_is_named(tmp_path: Path) -> None:
    saved("BERT masked", tmp_path)
    for name, said in (("BertForNothing", "does not have"), ("T5ForConditionalGeneration", "do not belong together")):
        edit_json(tmp_path / "config.json", lambda config, name=name: config.update(architectures=[name]))
        with pytest.raises(Refused, match=said):
            hf.load(str(tmp_path))


@pytest.mark.parametrize(("name", "kind"), [("Llama", "LlamaForCausalLM"), ("ViT", "ViTModel")])
def test_without_an_architecture_the_usual_class_is_taken_and_said(name: str, kind: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    if name == "ViT":
        model.vit.save_pretrained(tmp_path)
    edit_json(tmp_path / "config.json", lambda config: config.pop("architectures"))
    with pytest.warns(UserWarning, match=f"names no architecture; it is read as {kind}"):
        found = hf.load(str(tmp_path)).model
    assert type(found).__name__ == kind


@pytest.mark.parametrize("name", ["tiny/model/there", "./model", "~/model", "model/", "lama"])
def test_what_looks_like_a_directory_is_not_looked_for_elsewhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hf, "library", lambda: pytest.fail("transformers was asked"))
    with pytest.raises(Refused, match=rf"there is no directory {name}"):
        hf.load(name)


def test_a_name_of_the_hub_fails_once_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="the hub cannot be asked for a model of that name"):
        hf.load("nobody/no-such-model")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    clock = time.perf_counter()
    with pytest.raises(Refused, match="the hub cannot be asked"):
        hf.load("nobody/no-such-model")
    assert time.perf_counter() - clock < 2
    with pytest.raises(Refused, match="the hub can have no model of that name"):
        hf.load("no such model")
