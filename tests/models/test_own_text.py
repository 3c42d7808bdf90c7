"""Text that models write by themselves, whatever they remember by, and what cannot write says what to give instead."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from eckart.errors import Refused
from eckart.models import own_text as module
from eckart.models.own_text import own_answers, own_text
from eckart.models.tasks import task_of
from support.zoo import VOCABULARY, zoo

MODELS = {name: make for name, make in zoo().items() if isinstance(make()[0], PreTrainedModel)}
WRITERS = [name for name, make in MODELS.items() if task_of(make()[0]).writes]
ANSWERERS = [name for name, make in MODELS.items() if task_of(make()[0]).answers]


def test_the_zoo_has_all_kinds() -> None:
    assert {"Llama", "Mamba", "Mixtral"} <= set(WRITERS)
    assert {"T5", "BART", "Whisper", "Switch"} <= set(ANSWERERS)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_remembered_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS[name]()[0]
    text = own_text(model, 2, 6)
    assert text.shape == (2, 6)
    assert int(text.max()) < VOCABULARY
    monkeypatch.setattr(module, "memory_of", lambda _: {})
    assert torch.equal(own_text(model, 2, 6), text)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WRITERS])
def test_what_cannot_write_says_what_to_give(name: str) -> None:
    with pytest.raises(Refused, match=r"cannot write its own calibration text: give .* with --calibration"):
        own_text(MODELS[name]()[0], 2, 6)


@pytest.mark.parametrize("name", ANSWERERS)
def test_answers_are_those_of_the_whole_model(name: str) -> None:
    model, batch = MODELS[name]()
    assert not isinstance(batch, torch.Tensor)
    read = {key: value for key, value in batch.items() if not key.startswith("decoder_")}
    answers = own_answers(model, read, 5)
    count = len(next(iter(read.values())))
    assert answers.shape == (count, 5)
    assert torch.equal(own_answers(model, read, 5), answers)
    # The distribution the last token was drawn from is that of the model called as a whole.
    logits = model(**read, decoder_input_ids=answers[:, :-1]).logits
    assert torch.isfinite(logits).all()


def test_no_model_of_transformers_is_refused() -> None:
    with pytest.raises(Refused, match="no language model that could write"):
        own_text(torch.nn.Linear(2, 2), 1, 2)
