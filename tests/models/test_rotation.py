"""Rotated models compute what they did before, and are saved like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import eckart
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.dry_run import dry_run
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.exports.dense import write as to_dense_directory
from eckart.jobs.texts import Texts
from eckart.models.rotation import rotate
from eckart.models.sharing import share
from support.commands import prose
from support.tiny import VOCABULARY, save_tiny, tiny_gpt2, tiny_llama
from support.zoo import zoo

KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3", "Granite", "Phi3")


def tiny(kind: str, tied: bool, hidden: int = 24, dtype: torch.dtype = torch.float64) -> Any:
    """A model whose norms have gains, and biases that are not zero where there are any."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().to(dtype)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.ndim == 1:
                    p.copy_(torch.rand_like(p) + 0.3 if "norm" in name else torch.randn_like(p))
    return model


def in_float64(model: nn.Module) -> nn.Module:
    """Norms compute in float32 whatever the model's dtype; these do not."""

    def norm(module: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: module.weight * x * (x.square().mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()

    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = norm(module)  # type: ignore[method-assign]
    return model


def ids() -> Tensor:
    return torch.randint(3, VOCABULARY, (2, 15), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_stay(kind: str, tied: bool) -> None:
    model = in_float64(tiny(kind, tied))
    before = model(ids()).logits
    old = {name: p.detach().clone() for name, p in model.named_parameters()}
    twin = share(model)
    rotate(model, seed=4)
    after = model(ids()).logits
    assert (after - before).norm() <= 1e-10 * before.norm()
    for name, p in model.named_parameters():
        if p.ndim == 1 and "layernorm" in name:
            assert torch.equal(p, torch.ones_like(p))
        elif name in old and p.ndim == 2:
            assert not torch.allclose(p, old[name])
    # Others that share the old tensors do not see it.
    assert all(torch.equal(p, old[name]) for name, p in twin.named_parameters())


@pytest.mark.parametrize("hidden", [16, 40, 56])
def test_every_width(hidden: int) -> None:
    model = in_float64(tiny("Llama", True, hidden))
    before = model(ids()).logits
    rotate(model)
    assert (model(ids()).logits - before).norm() <= 1e-10 * before.norm()


def test_generation_with_a_cache_goes_on_as_before() -> None:
    model = tiny("Qwen2", True, dtype=torch.float32)
    before = model.generate(ids(), max_new_tokens=12, do_sample=False)
    rotate(model)
    assert torch.equal(model.generate(ids(), max_new_tokens=12, do_sample=False), before)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_stays_tied_through_a_small_matrix(tied: bool) -> None:
    model = tiny_llama(tied=tied)
    count = sum(p.numel() for p in model.parameters())
    hidden = model.config.hidden_size
    rotate(model)
    assert sum(p.numel() for p in model.parameters()) == count + tied * hidden**2


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["gptq", "svd", "nf4", "wanda"])
def test_compressed_then_saved_and_read_by_transformers(method: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_llama(tied=tied)
    result = eckart.compress(model, method, keep=0.6, of="bytes", calibration=ids(), rotate=True)
    assert result.recipe.rotate
    expected = model(ids()).logits
    model.save_pretrained(tmp_path / "small")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert torch.equal(again(ids()).logits, expected)
    eckart.save(model, tmp_path / "other")
    assert torch.equal(eckart.load(tmp_path / "other", tiny_llama(tied=tied))(ids()).logits, expected)


def test_no_more_than_the_rotation_is_done_at_full_size() -> None:
    model = tiny("Llama", True, dtype=torch.float32)
    before = model(ids()).logits
    eckart.compress(model, "rtn", keep=1.0, of="bytes", rotate=True, allocation="uniform")
    after = model(ids()).logits
    assert (after - before).norm() <= 1e-4 * before.norm()


@pytest.mark.parametrize("name", ["Gemma3", "Falcon", "GPT2", "OPT", "Mixtral", "BERT masked", "T5", "ViT"])
def test_models_that_are_built_otherwise_are_refused_and_unchanged(name: str) -> None:
    model, _ = zoo()[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(eckart.Refused, match=r"rotate: .* is not known"):
        rotate(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(eckart.Refused, match=r"rotate: .* is not known"):
        eckart.compress(tiny_gpt2(), "rtn", keep=0.5, of="bytes", rotate=True)


def test_what_is_not_as_expected_inside_is_refused() -> None:
    compressed = tiny_llama()
    eckart.compress(compressed, "rtn", keep=0.5, of="bytes")
    with pytest.raises(eckart.Refused, match="holds a StructuredLinear where Linear was expected: give"):
        rotate(compressed)
    added: Any = tiny_llama()
    added.model.layers[0].mlp.extra = nn.Linear(4, 4)
    with pytest.raises(eckart.Refused, match=r"not known what model.layers.0.mlp.extra.weight of Llama"):
        rotate(added)
    shifted: Any = tiny_llama()
    norm = shifted.model.layers[1].input_layernorm
    norm.forward = lambda x: x + 1
    with pytest.raises(eckart.Refused, match="LlamaRMSNorm does more than to divide by the root mean square"):
        rotate(shifted)


def test_an_embedding_that_a_head_reads_through_a_matrix_is_not_compressed_too() -> None:
    with pytest.raises(eckart.Refused, match="tied"):
        eckart.compress(tiny_llama(), "rtn", keep=0.5, of="bytes", embeddings=True, rotate=True)


@pytest.mark.parametrize("tied", [True, False])
def test_from_a_directory_to_one_and_back_to_a_dense_one(tied: bool, tmp_path: Path) -> None:
    source = str(save_tiny(tmp_path / "tiny", tiny_llama(tied=tied)))
    recipe = Recipe(method="rtn", keep=0.6, of="bytes", rotate=True)
    report = compress_directory(source, tmp_path / "small", recipe, Texts(), measure_speed=False)
    assert report["seconds"]["rotate"] >= 0
    assert "--rotate" in report["command"]
    to_dense_directory(str(tmp_path / "small"), tmp_path / "dense")
    small, dense = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids()).logits for name in ("small", "dense")
    )
    assert (small - dense).norm() <= 1e-4 * dense.norm()


@pytest.mark.parametrize("of", ["bytes", "parameters", "macs"])
def test_the_small_matrix_of_a_tied_head_is_in_the_budget(of: str, tmp_path: Path) -> None:
    source = str(save_tiny(tmp_path / "tiny", tiny_llama()))
    recipe = Recipe(method="svd" if of != "bytes" else "gptq", keep=0.75, of=of, rotate=True, samples=2, length=16)
    texts = Texts(calibration=write(tmp_path))
    predicted = dry_run(source, recipe, texts)
    report = compress_directory(source, tmp_path / "small", recipe, texts, measure_speed=False)
    size = report["size"]["macs_per_token" if of == "macs" else of]
    assert 0.5 * size["before"] < size["after"] <= 0.75 * size["before"]
    for coverage in (report["coverage"], predicted["coverage"]):
        assert "compressed already" not in coverage["sentence"]
        assert "(an embedding that the head reads too, which is rotated" in coverage["sentence"]
    assert not any("looked at" in warning for warning in report["warnings"])
    found = predicted["budget"]["size"]["parameters"]
    assert found["before"] == report["size"]["parameters"]["before"]
    if of == "parameters":
        assert found["after"] == size["after"]
    with pytest.raises(eckart.Refused) as refused:
        eckart.compress(tiny_llama(), recipe.method, keep=0.2, of=of, calibration=ids(), rotate=True)
    assert "compressed already" not in str(refused.value)


def write(directory: Path) -> str:
    (directory / "text.txt").write_text(prose(1, 60), "utf-8")
    return str(directory / "text.txt")
