"""What does not go as asked is said at once: by Python's warnings too, and before what follows from it."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import nn

import eckart
from support.tiny import VOCABULARY, tiny_llama
from support.zoo import ids

ENDS = (("down_proj", torch.float16, 1e-6), ("down_proj", torch.bfloat16, 1e-38), ("up_proj", torch.float32, 1e-43))
"""Matrices, and a largest entry at the end of a dtype, where no product of two has room for its digits."""


def scaled(which: str, dtype: torch.dtype, largest: float) -> nn.Module:
    model = tiny_llama().to(dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if which in name:
                p.copy_((p.double() * (largest / p.double().abs().max())).to(dtype))
    return model


@pytest.mark.parametrize(("which", "dtype", "largest"), ENDS)
@pytest.mark.parametrize("method", ["svd", "kfac", "monarch", "svd-int8"])
def test_what_the_dtype_does_not_hold(method: str, which: str, dtype: torch.dtype, largest: float) -> None:
    model = scaled(which, dtype, largest)
    names = [name for name, module in model.named_modules() if name.endswith(which)]
    with pytest.warns(UserWarning, match=rf"{which} stays dense: .*{dtype} does not hold an approximation") as told:
        result = eckart.compress(model, method, keep=0.9, of="bytes", calibration=[ids(4, 12)])
    for name in names:
        assert type(model.get_submodule(name)) is nn.Linear
        assert any(text.startswith(f"{name} stays dense: ") for text in result.warnings)
    assert sorted(result.warnings) == sorted(str(each.message) for each in told if each.category is UserWarning)


def test_the_cause_comes_first() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    with torch.no_grad():
        model[0].weight.mul_(1e30)
    with pytest.raises(eckart.Refused, match=r"^1 stays dense: .*; so keep=0.3 of linear-parameters cannot be met"):
        eckart.compress(model, "wanda", keep=0.3, of="linear-parameters", calibration=[torch.full((4, 16), 1e5)])


@pytest.mark.parametrize("method", ["kfac", "auto"])
def test_what_no_output_depends_on(method: str) -> None:
    """The pooler of an encoder whose hidden states are read has inputs, and no gradients."""
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": VOCABULARY}
    model = transformers.BertModel(transformers.BertConfig(num_hidden_layers=1, **sizes)).eval()
    result = eckart.compress(model, method, keep=0.8, of="linear-parameters", calibration=[ids(8, 12)])
    assert type(model.pooler.dense) is nn.Linear
    assert "pooler.dense (what the model returns first does not depend on it" in result.coverage.sentence
    assert not any("fit failed" in text for text in result.warnings)
