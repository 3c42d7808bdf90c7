"""torch's attention taken apart: the same outputs, whatever it is called with, and together again the same tensors."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.models.attention import Attention, is_attention
from eckart.models.fused_experts import fuse, unfuse
from support.zoo import normal


def attention(**options: object) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    found = nn.MultiheadAttention(8, 2, **options).eval()  # type: ignore[arg-type]
    for p in found.parameters():
        nn.init.normal_(p, std=0.5)
    return found


OPTIONS = [
    {},
    {"batch_first": True},
    {"bias": False, "batch_first": True},
    {"kdim": 6, "vdim": 5, "batch_first": True},
    {"kdim": 6, "vdim": 5, "bias": False},
]
MASKS = {
    "none": (None, None),
    "causal": (torch.ones(4, 5).triu(1).bool(), None),
    "added": (torch.linspace(-1, 1, 20).reshape(4, 5), None),
    "of each head": (torch.linspace(-1, 1, 6 * 20).reshape(6, 4, 5), None),
    "padding": (None, torch.tensor([[False] * 4 + [True]] * 3)),
    "both": (torch.ones(4, 5).triu(1).bool(), torch.tensor([[False] * 4 + [True]] * 3)),
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("masks", MASKS)
def test_it_gives_what_torch_gives(options: dict[str, object], masks: str) -> None:
    packed = attention(**options)
    apart = Attention(packed)
    mask, padding = MASKS[masks]
    query, key, value = normal(3, 4, 8), normal(3, 5, packed.kdim), normal(3, 5, packed.vdim)
    if not packed.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    for weights, averaged in itertools.product((True, False), (True, False)):
        asked = {"key_padding_mask": padding, "attn_mask": mask, "need_weights": weights}
        expected, shown = packed(query, key, value, average_attn_weights=averaged, **asked)
        found, said = apart(query, key, value, average_attn_weights=averaged, **asked)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert (said is None) == (shown is None)
        if shown is not None:
            torch.testing.assert_close(said, shown, rtol=1e-4, atol=1e-5)


def test_one_sample_without_a_batch() -> None:
    packed = attention()
    x, mask = normal(4, 8), torch.ones(4, 4).triu(1).bool()
    for options in ({"attn_mask": mask}, {"key_padding_mask": torch.tensor([False] * 3 + [True])}):
        for each, other in zip(Attention(packed)(x, x, x, **options), packed(x, x, x, **options), strict=True):
            torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-5)


def test_what_it_does_more_stays_as_it_is() -> None:
    assert is_attention(attention())
    assert not is_attention(attention(add_bias_kv=True))
    assert not is_attention(attention(add_zero_attn=True))
    x = normal(4, 3, 8)
    with pytest.raises(eckart.Refused, match="is_causal"):
        Attention(attention())(x, x, x, is_causal=True)


class Decoder(nn.Module):
    """torch's encoder and decoder, which call attention in all of their ways."""

    def __init__(self) -> None:
        super().__init__()
        options = {"dim_feedforward": 12, "dropout": 0.0, "batch_first": True}
        self.both = nn.Transformer(8, 2, 1, 2, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        y: Tensor = self.both(x, x, tgt_mask=mask, tgt_is_causal=True)
        return y


def test_torchs_transformer_is_compressed_and_put_together_again(tmp_path: object) -> None:
    torch.manual_seed(0)
    model, x = Decoder().eval(), normal(3, 6, 8)
    fresh, state = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        before = model(x)
        assert len(unfuse(model)) == 5
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
        fuse(model)
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        assert model.state_dict().keys() == state.keys()
        result = eckart.compress(model, "kfac", keep=0.8, of="linear-parameters", calibration=[x])
        assert result.warnings == []
        assert any("multihead_attn.k_proj" in site.name for site in result.plan.sites)
        found = model(x)
        eckart.save(model, f"{tmp_path}/saved")
        assert torch.equal(eckart.load(f"{tmp_path}/saved", fresh).eval()(x), found)
