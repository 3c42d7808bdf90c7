"""Adapters of heads that are tied to embeddings: what is merged loads into the same model, or is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import eckart
from eckart.files.json import write_json
from eckart.jobs.adapt.files import TRAINING
from eckart.jobs.exports import merged
from eckart.models.sharing import sharing
from eckart.models.transformers import load
from support.tiny import tiny_tokenizer
from support.zoo import zoo


def tied_head(model: Any) -> bool:
    head = model.get_output_embeddings() if isinstance(model, transformers.PreTrainedModel) else None
    return head is not None and model.main_input_name == "input_ids" and bool(sharing(model, head))


TIED = [name for name, make in zoo().items() if tied_head(make()[0])]


@pytest.mark.parametrize("name", TIED)
def test_a_tied_head_of_any_class(name: str, tmp_path: Path) -> None:
    zoo()[name]()[0].save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    model = load(str(tmp_path / "model")).model.eval()
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    adapter = eckart.adapt(model, "lora", rank=1, include=(head,))
    with torch.no_grad():
        for number in adapter.trainable_parameters():
            number.add_(0.1)
    inputs = {"decoder_input_ids": model.dummy_inputs["input_ids"]} if model.config.is_encoder_decoder else {}
    inputs |= model.dummy_inputs
    expected = model(**inputs).logits
    eckart.save_adapter(adapter, tmp_path / "adapter")
    write_json({"model": str(tmp_path / "model")}, tmp_path / "adapter" / TRAINING)
    given = str(tmp_path / "adapter"), tmp_path / "out"
    if name == "Switch":  # which scales what it hands to a tied head
        with pytest.raises(eckart.Refused, match="computes otherwise"):
            merged.write(*given)
        return
    assert "has a matrix of its own now" in merged.write(*given)
    found = load(str(tmp_path / "out")).model.eval()(**inputs).logits
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_there_are_such_classes() -> None:
    assert {"BERT masked", "BART", "T5", "Switch", "GPT2"} <= {*TIED}
