"""A cache of fewer coordinates: bases and losses by their definition, and attention as over the keys they stand for."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedModel,
    StaticCache,
)

import eckart
from eckart.errors import Refused
from eckart.inference._cache_bases import Basis, CacheBases, Moments, cache_bases, pca_basis, weighted_basis
from eckart.inference._cache_training import train_bases
from eckart.inference._coded_cache import cache_bytes
from eckart.inference.matryoshka_kv import LowRankCode, cache_ranks
from support.adapting import close, ids
from support.tiny import CONTEXT, HIDDEN, VOCABULARY, tiny_llama
from tests.support.elsewhere import DEVICE, elsewhere

HEADS, SIZE = 3, 8


def gemma3() -> PreTrainedModel:
    config = Gemma3TextConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=CONTEXT,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Gemma3ForCausalLM(config).eval()


def measured(scale: float = 1.0) -> tuple[Moments, Tensor, Tensor]:
    """Moments, and the keys and gradients (heads, tokens, d) they are of; few tokens have most of the gradient."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(2, HEADS, SIZE, SIZE, generator=generator, dtype=torch.float64)
    x, gradient = torch.randn(2, HEADS, 80, SIZE, generator=generator, dtype=torch.float64) @ mix
    x = (x + 3) * scale
    gradient[:, ::8] *= 20
    gradient /= scale
    moments = Moments()
    for some in (slice(0, 30), slice(30, 80)):
        moments.add(x[:, some], gradient[:, some])
    return moments, x, gradient


def independent(x: Tensor, g: Tensor, weighted: bool) -> tuple[Tensor, Tensor]:
    """Mean and leading directions of one head's x (tokens, d), tokens counted by their gradient or alike."""
    w = g.square().sum(1, keepdim=True) if weighted else torch.ones(len(x), 1, dtype=x.dtype)
    mean = (w * x).sum(0) / w.sum()
    return mean, torch.linalg.svd(w.sqrt() * (x - mean), full_matrices=False)[2].T


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("fit", [weighted_basis, pca_basis])
def test_bases_and_losses_by_their_definition(fit: object, scale: float) -> None:
    """tr(E[g g^T] S) / 2, S the weighted moment of what xhat = mean + U_r U_r^T (x - mean) leaves out."""
    moments, x, g = measured(scale)
    basis: Basis = fit(moments)  # type: ignore[operator]
    for h in range(HEADS):
        mean, expected = independent(x[h], g[h], fit is weighted_basis)
        u = basis.vectors[h]
        assert torch.allclose(basis.mean[h], mean)
        assert torch.allclose((expected.T @ u).abs(), torch.eye(SIZE, dtype=torch.float64), atol=1e-6)
        w = g[h].square().sum(1, keepdim=True)
        for r in range(SIZE + 1):
            rest = (x[h] - mean) - (x[h] - mean) @ u[:, :r] @ u[:, :r].T
            loss = torch.trace(g[h].T @ g[h] / len(rest) @ (rest.T @ (w * rest) / w.sum())) / 2
            assert float(basis.losses[h, r]) == pytest.approx(float(loss), rel=1e-6, abs=1e-9)


def test_tokens_that_matter_are_kept_better() -> None:
    moments, x, g = measured()
    ours, theirs = weighted_basis(moments), pca_basis(moments)
    for h in range(HEADS):
        for r in range(1, SIZE):

            def change(basis: Basis, h: int = h, r: int = r) -> float:
                u = basis.vectors[h, :, :r]
                rest = x[h] - basis.mean[h]
                rest = rest - rest @ u @ u.T
                return float((g[h].square().sum(1, keepdim=True) * rest.square()).sum())

            assert change(ours) <= change(theirs) * (1 + 1e-9)


def test_keys_without_gradient_cost_nothing_and_count_alike() -> None:
    moments, x, _ = measured()
    still = Moments()
    still.add(x, torch.zeros_like(x))
    for fit in (weighted_basis, pca_basis):
        assert not fit(still).losses.any()
        assert torch.allclose(fit(still).mean, pca_basis(moments).mean)
        assert torch.allclose(fit(still).vectors, pca_basis(moments).vectors, atol=1e-6)


@pytest.mark.parametrize("ranks", [([3, 3, 3], [3, 3, 3]), ([1, 8, 5], [8, 2, 5]), ([2, 2, 7], [4, 4, 1])])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_that_over_the_rounded_keys_and_values(ranks: tuple[list[int], list[int]], causal: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(heads: int) -> Tensor:
        return torch.randn(2, heads, 9, SIZE, generator=generator, dtype=torch.float64)

    query, keys, values = draw(2 * HEADS), draw(HEADS), draw(HEADS)
    bases = weighted_basis(measured()[0]), pca_basis(measured()[0])
    mask = None if causal else torch.rand(2, 1, 9, 9, generator=generator) > 0.3
    rounded = []
    for x, basis, kept in zip((keys, values), bases, ranks, strict=True):
        whole = x.clone()
        for h, r in enumerate(kept):
            inner = basis.vectors[h, :, :r] @ basis.vectors[h, :, :r].T
            whole[:, h] = basis.mean[h] + (x[:, h] - basis.mean[h]) @ inner
        rounded.append(whole.repeat_interleave(2, 1))
    expected = F.scaled_dot_product_attention(query, *rounded, attn_mask=mask, is_causal=causal, scale=0.3)
    code = LowRankCode(*bases, *ranks, like=query)
    held = code.encode(keys, values)
    assert [t.shape for t in held] == [(2, 1, 9, sum(kept)) for kept in ranks]
    assert torch.allclose(code.attend(query, *held, mask, 0.3, causal), expected)


@pytest.mark.parametrize("keep", [0.9, 0.6, 0.25])
def test_the_cache_has_fewer_bytes(keep: float) -> None:
    model, prompt = tiny_llama(), ids(2, 30)
    bases = cache_bases(model, ids(8, 32))
    with torch.inference_mode():
        dense = cache_bytes(model(prompt, use_cache=True).past_key_values)
        with eckart.low_rank_cache(model, bases, keep):
            small = cache_bytes(model(prompt, use_cache=True).past_key_values)
    assert (keep - 0.05) * dense < small <= keep * dense
    ranks = cache_ranks(bases, keep)
    assert small == 4 * 2 * 30 * sum(sum(k) + sum(v) for k, v in ranks.values())
    assert min(min(k + v) for k, v in ranks.values()) >= 1


@pytest.mark.parametrize("make", [tiny_llama, gemma3])
def test_pieces_give_what_the_whole_gives(make: type) -> None:
    """With and without a cache, in pieces, and with padding to the left."""
    model, tokens = make(), ids(2, 40)
    with eckart.low_rank_cache(model, ids(8, 32), 0.5), torch.inference_mode():
        whole = model(tokens, use_cache=False).logits
        start = model(tokens[:, :21], use_cache=True)
        middle = model(tokens[:, 21:39], past_key_values=start.past_key_values, use_cache=True)
        end = model(tokens[:, 39:], past_key_values=copy.deepcopy(middle.past_key_values), use_cache=True)
        assert close(torch.cat([start.logits, middle.logits, end.logits], 1), whole)
        padded = torch.cat([tokens.new_zeros(2, 5), tokens], 1)
        mask = (torch.arange(45) >= 5).long().expand(2, -1)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        found = model(padded, attention_mask=mask, position_ids=positions, use_cache=True).logits
        assert close(found[:, 5:], whole)


def test_beams_and_bfloat16() -> None:
    model, prompt = tiny_llama(), ids(2, 9)
    options = {"max_new_tokens": 6, "do_sample": False, "num_beams": 3}
    expected = model.generate(prompt, **options)
    with eckart.low_rank_cache(model, ids(8, 32), 1.0):
        assert torch.equal(model.generate(prompt, **options), expected)
    half = tiny_llama().bfloat16()
    with eckart.low_rank_cache(half, ids(8, 32), 0.5):
        output = half(prompt, use_cache=True)
    assert output.logits.dtype == torch.bfloat16
    assert output.past_key_values.layers[0].keys.dtype == torch.bfloat16


def test_bases_are_saved_and_loaded(tmp_path: Path) -> None:
    bases = cache_bases(tiny_llama(), ids(8, 32), "pca")
    bases.save(tmp_path / "bases.safetensors")
    again = CacheBases.load(tmp_path / "bases.safetensors")
    for ours, theirs in ((bases.keys, again.keys), (bases.values, again.values)):
        assert list(ours) == sorted(theirs)
        for name, basis in ours.items():
            assert all(torch.equal(vars(basis)[field], vars(theirs[name])[field]) for field in vars(basis))
    data = bytearray((tmp_path / "bases.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "bases.safetensors").write_bytes(bytes(data))
    with pytest.raises(Refused):
        CacheBases.load(tmp_path / "bases.safetensors")
    eckart.save(tiny_llama(), tmp_path / "model")
    with pytest.raises(Refused, match="no bases"):
        CacheBases.load(next((tmp_path / "model").glob("*.safetensors")))


def test_a_cache_stays_in_its_context() -> None:
    model, prompt = tiny_llama(), ids(2, 9)
    bases = cache_bases(model, ids(8, 32))
    outside = model(prompt, use_cache=True).past_key_values
    with eckart.low_rank_cache(model, bases, 0.5):
        with pytest.raises(Refused, match="filled outside"):
            model(prompt, past_key_values=outside)
        inside = model(prompt, use_cache=True).past_key_values
        with pytest.raises(Refused, match="StaticLayer"):
            model(prompt, past_key_values=StaticCache(config=model.config, max_cache_len=32))
        with pytest.raises(Refused, match="attention; call"), eckart.low_rank_cache(model, bases):
            pass
    with pytest.raises(Refused, match="which was left"):
        model(prompt, past_key_values=inside)
    with eckart.low_rank_cache(model, bases, 0.5), pytest.raises(Refused, match="filled outside"):
        model(prompt, past_key_values=inside)


def test_what_cannot_be_is_refused() -> None:
    model = tiny_llama()
    bases = cache_bases(model, ids(8, 32))
    for keep in (0, 1.5, True, "half", float("nan")):
        with pytest.raises(Refused, match="keep must be"), eckart.low_rank_cache(model, bases, keep):  # type: ignore[arg-type]
            pass
    with pytest.raises(Refused, match="budget"), eckart.low_rank_cache(model, bases, 1e-3):
        pass
    with pytest.raises(Refused, match="the model has"), eckart.low_rank_cache(gemma3().eval(), CacheBases({}, {})):
        pass
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = BertModel(BertConfig(vocab_size=VOCABULARY, **sizes)).eval()
    basis = Basis(*(torch.zeros(2, *shape) for shape in ((8,), (8, 8), (9,))))
    of_encoder = CacheBases(*[{"encoder.layer.0.attention.self": basis}] * 2)
    with pytest.raises(Refused, match="keeps no keys"), eckart.low_rank_cache(encoder, of_encoder):
        pass
    with pytest.raises(Refused, match="no tokens"), eckart.low_rank_cache(model, ids(0, 8)):
        pass
    with pytest.raises(Refused, match="metric='x'"):
        cache_bases(model, ids(8, 32), "x")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[0] = torch.nan
    with pytest.raises(Refused, match="NaN"):
        cache_bases(model, ids(8, 32))


def test_training_serves_small_sizes_better_and_stays_exact() -> None:
    model, tokens = tiny_llama(), ids(8, 32)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    start = cache_bases(model, tokens, "pca")
    trained = train_bases(model, start, tokens, steps=30, rate=1e-2)
    with torch.inference_mode():
        dense = model(tokens).logits.log_softmax(-1)

        def divergence(bases: CacheBases, keep: float) -> float:
            with eckart.low_rank_cache(model, bases, keep):
                found = model(tokens).logits.log_softmax(-1)
            return float((dense.exp() * (dense - found)).sum(-1).mean())

        assert abs(divergence(trained, 1.0)) < 1e-5
        assert divergence(trained, 0.25) < 0.97 * divergence(start, 0.25)
    for name, basis in trained.keys.items():
        assert torch.allclose(basis.vectors @ basis.vectors.mT, torch.eye(8, dtype=torch.float64), atol=1e-9)
        assert not torch.allclose(basis.vectors, start.keys[name].vectors, atol=1e-2)
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in state.items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_bases_on_another_device_are_those_on_the_cpu_and_are_trained_there() -> None:
    found = []
    with elsewhere():
        for device in (torch.device("cpu"), DEVICE):
            model = tiny_llama(tied=False).to(device)
            found.append(cache_bases(model, ids(8, 32)))
        trained = train_bases(model, found[1], ids(8, 32), steps=3, rate=1e-2)
    for here, there in zip(found[0].keys.values(), found[1].keys.values(), strict=True):
        torch.testing.assert_close(there.losses, here.losses, rtol=1e-3, atol=1e-6)
    for basis in trained.keys.values():
        assert torch.allclose(basis.vectors @ basis.vectors.mT, torch.eye(8, dtype=torch.float64), atol=1e-5)
