"""More tokens for a model whose table of tokens is compressed: refused before anything is changed, over the zoo."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

import eckart
from support.tiny import tiny_llama
from support.zoo import Make, zoo


@pytest.mark.parametrize("make", zoo().values(), ids=zoo().keys())
def test_tables_that_are_compressed_get_no_rows(make: Make) -> None:
    model, _ = make()
    if not isinstance(model, PreTrainedModel) or model.get_output_embeddings() is None:
        pytest.skip("reads no tokens")
    eckart.compress(model, "svd", keep=0.8, of="parameters", embeddings=True, head=True)
    tables = model.get_input_embeddings(), model.get_output_embeddings()
    if all(type(table).__module__.startswith("torch.") for table in tables):
        pytest.skip("its tables are none that eckart takes")
    rows = tables[0].num_embeddings
    for asked in (
        {"new_num_tokens": rows + 8},
        {"new_num_tokens": rows - 8},
        {"new_num_tokens": None, "pad_to_multiple_of": 64},
    ):
        with pytest.raises(eckart.Refused, match="resize the dense model first"):
            model.resize_token_embeddings(**asked)
        assert (model.get_input_embeddings(), model.get_output_embeddings()) == tables
    assert model.resize_token_embeddings(None) is tables[0]


def test_what_is_not_compressed_is_resized() -> None:
    model = tiny_llama()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    rows = model.get_input_embeddings().num_embeddings
    assert model.resize_token_embeddings(rows + 8, mean_resizing=False).num_embeddings == rows + 8
    assert model(torch.tensor([[rows + 3]])).logits.shape[-1] == rows + 8
