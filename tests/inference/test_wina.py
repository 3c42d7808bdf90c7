"""Columns left out: scores and thresholds written out, prompts in full, decoding as the masked products say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from eckart.errors import Refused
from eckart.inference.wina import _BINS, _OCTAVES, Histogram, column_norms, linear_layers, score_histograms, skipping
from support.adapting import close, ids
from support.tiny import tiny_gpt2, tiny_llama


def decoded(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits of all tokens, decoded one by one."""
    past, found = None, []
    for i in range(tokens.shape[1]):
        output = model(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
        past = output.past_key_values
        found.append(output.logits)
    return torch.cat(found, 1)


@pytest.mark.parametrize("norms", [True, False])
def test_a_product_leaves_out_the_columns_of_small_scores(norms: bool) -> None:
    model, tokens = tiny_llama(), ids(3, 12)
    layer = model.model.layers[0].mlp.down_proj
    weight = layer.weight.detach()
    size = weight.norm(dim=0) if norms else torch.ones(weight.shape[1])
    inputs: list[Tensor] = []
    with torch.inference_mode():
        handle = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        model(ids(8, 32))
        handle.remove()
        scores = (inputs.pop().abs() * size).flatten()
        seen: list[tuple[Tensor, Tensor]] = []
        with eckart.skipped_columns(model, ids(8, 32), 0.6, norms) as names:
            assert "model.layers.0.mlp.down_proj" in names
            assert "lm_head" not in names
            first = layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]), prepend=True)
            last = layer.register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
            model(tokens[:, :1])
            first.remove()
            last.remove()
    (x,), ((masked, y),) = inputs, seen
    threshold = scores.sort().values[int(0.4 * len(scores))]
    stays = x.abs() * size >= threshold
    # The histogram's bins are 1 % wide.
    sure = (x.abs() * size / threshold - 1).abs() > 0.03
    assert torch.equal((masked != 0)[sure], stays[sure])
    assert torch.allclose(y, F.linear(masked, weight))
    assert torch.equal(masked[masked != 0], x[masked != 0])


@pytest.mark.parametrize("keep", [1.0, 0.75, 0.3, 0.01])
def test_thresholds_are_quantiles(keep: float) -> None:
    scores = torch.rand(1000, generator=torch.Generator().manual_seed(0)) ** 3
    histogram = Histogram(torch.zeros(_OCTAVES * _BINS, dtype=torch.float64))
    for part in scores.chunk(7):
        histogram.add(part)
    threshold = histogram.threshold(keep)
    assert threshold <= float(scores.sort().values[min(int((1 - keep) * 1000), 999)])
    assert float((scores >= threshold).float().mean()) == pytest.approx(keep, abs=0.01)


def test_zeros_and_extremes_are_counted() -> None:
    histogram = Histogram(torch.zeros(_OCTAVES * _BINS, dtype=torch.float64))
    histogram.add(torch.tensor([0.0, 0.0, 1e-30, 1.0, 1e30]))
    assert histogram.counts.sum() == 5
    assert 0.9 < histogram.threshold(0.4) <= 1
    assert histogram.threshold(1.0) == 0


def test_prompts_are_computed_in_full_and_every_token_decoded_is_not() -> None:
    model, tokens = tiny_llama(), ids(2, 12)
    with torch.inference_mode():
        expected = model(tokens).logits
        with eckart.skipped_columns(model, ids(8, 32), 0.5):
            assert torch.equal(model(tokens).logits, expected)
            assert torch.equal(model.model(tokens).last_hidden_state, model.base_model(tokens).last_hidden_state)
            found = decoded(model, tokens)
        assert not close(found, expected)
        # All tokens at once, as the benchmark measures, are what decoding them gives.
        norms = column_norms(linear_layers(model))
        thresholds = {name: h.threshold(0.5) for name, h in score_histograms(model, ids(8, 32), norms).items()}
        with skipping(model, lambda name, x: x.abs() * norms[name] >= thresholds[name], prompts=True):
            assert close(model(tokens).logits, found)


def test_compressed_layers_count_the_columns_of_what_they_stand_for() -> None:
    model = tiny_llama()
    eckart.compress(model, "svd", keep=0.7, of="linear-parameters")
    layers = linear_layers(model)
    for name, norms in column_norms(layers).items():
        assert torch.allclose(norms, layers[name](torch.eye(len(norms))).norm(dim=1), atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    model = tiny_llama()
    for keep in (0, 1.5, True, "half"):
        with pytest.raises(Refused, match="keep must be"), eckart.skipped_columns(model, ids(8, 32), keep):  # type: ignore[arg-type]
            pass
    with pytest.raises(Refused, match="GPT2LMHeadModel"), eckart.skipped_columns(tiny_gpt2(), ids(8, 32)):
        pass
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[0] = torch.nan
    with pytest.raises(Refused, match="NaN or infinite"), eckart.skipped_columns(model, ids(8, 32)):
        pass
