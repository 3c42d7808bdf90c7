"""Evaluation: perplexity, divergence and agreement against independent formulas; speed, bytes and memory."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from eckart.jobs.evaluate.quality import divergence, evaluate, perplexity
from eckart.jobs.evaluate.speed import middle, speed, weight_bytes
from eckart.machine import peak_rss_bytes
from eckart.models.sites import model_bytes
from support.tiny import CONTEXT, VOCABULARY, save_tiny, tiny_gpt2, tiny_llama

MODELS = {
    "llama": tiny_llama,
    "llama-untied": lambda: tiny_llama(tied=False, gqa=False),
    "gpt2": tiny_gpt2,
}


def tokens(count: int = 5, length: int = 150, seed: int = 0) -> torch.Tensor:
    return torch.randint(VOCABULARY, (count, length), generator=torch.Generator().manual_seed(seed))


def probabilities(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Of each next token, in float64, one sequence at a time and by the definition of the softmax."""
    with torch.no_grad():
        logits = torch.stack([model(input_ids=row[None]).logits[0].double() for row in ids])
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", MODELS)
def test_perplexity_is_that_of_the_definition(name: str) -> None:
    model, ids = MODELS[name](), tokens()
    p = probabilities(model, ids)
    logs = [[math.log(p[n, t, ids[n, t + 1]]) for t in range(ids.shape[1] - 1)] for n in range(len(ids))]
    flat = [x for row in logs for x in row]
    result = evaluate(model, ids)
    assert result.perplexity == pytest.approx(math.exp(-sum(flat) / len(flat)), rel=1e-5)
    assert result.nll == pytest.approx(math.log(result.perplexity))
    assert (result.tokens, result.sequences) == (len(flat), len(ids))
    assert result.kl is None
    assert result.agreement is None
    means = torch.tensor([-sum(row) / len(row) for row in logs], dtype=torch.float64)
    exact = math.exp(means.mean()) * float(((means - means.mean()) ** 2).sum() / (5 - 1) / 5) ** 0.5
    assert result.stderr == pytest.approx(exact, rel=1e-3)


def test_standard_error_is_that_of_the_bootstrap() -> None:
    generator = torch.Generator().manual_seed(0)
    nll = 3 + 0.3 * torch.randn(200, generator=generator, dtype=torch.float64)
    value, stderr = perplexity(nll)
    samples = nll[torch.randint(200, (4000, 200), generator=generator)].mean(1).exp()
    assert value == pytest.approx(float(nll.mean().exp()))
    assert stderr == pytest.approx(float(samples.std()), rel=0.1)


def test_one_sequence_has_no_standard_error() -> None:
    assert perplexity(torch.tensor([math.log(7.0)])) == (pytest.approx(7.0), None)
    assert evaluate(tiny_llama(), tokens(1)).stderr is None
    with pytest.raises(ValueError, match=r"got shape \(0,\)"):
        perplexity(torch.empty(0))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_does_not_differ_from_itself(name: str) -> None:
    result = evaluate(MODELS[name](), tokens(), MODELS[name](), micro_batch=2)
    assert result.kl == 0
    assert result.agreement == 1


def test_divergence_and_agreement_are_those_of_the_definition() -> None:
    model, reference, ids = tiny_llama(seed=1), tiny_llama(seed=2), tokens()
    p, q = probabilities(reference, ids)[:, :-1], probabilities(model, ids)[:, :-1]
    kl = float((p * (p / q).log()).sum(-1).mean())
    agreement = float((p.argmax(-1) == q.argmax(-1)).double().mean())
    result = evaluate(model, ids, reference)
    assert kl > 0.01
    assert result.kl == pytest.approx(kl, rel=1e-4)
    assert result.agreement == pytest.approx(agreement)
    assert result.perplexity == pytest.approx(evaluate(model, ids).perplexity)
    given_as_function = evaluate(model, ids, lambda rows: probabilities(reference, rows).log())
    assert given_as_function.kl == pytest.approx(kl, rel=1e-4)
    assert given_as_function.agreement == pytest.approx(agreement)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(2, 30), zeros=st.integers(0, 1), seed=st.integers(0, 1000))
def test_divergence_is_positive_and_zero_only_for_equals(size: int, zeros: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(4, size, generator=generator, dtype=torch.float64)
    p[:, :zeros] = 0
    p, q = p / p.sum(-1, keepdim=True), torch.rand(4, size, generator=generator, dtype=torch.float64).softmax(-1)
    expected = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)
    torch.testing.assert_close(divergence(p.log(), q.log()), expected)
    assert (divergence(p.log(), q.log()) > 0).all()
    assert (divergence(p.log(), p.log()) == 0).all()


@settings(max_examples=8, deadline=None)
@given(micro_batch=st.integers(1, 9), length=st.sampled_from([2, 3, 128, 129, 130, 257]))
def test_micro_batches_do_not_matter(micro_batch: int, length: int) -> None:
    model, reference, ids = tiny_llama(), tiny_llama(seed=1), tokens(5, length)
    whole, result = (evaluate(model, ids, reference, micro_batch=size) for size in (5, micro_batch))
    assert result.tokens == whole.tokens == 5 * (length - 1)
    for name in ("perplexity", "stderr", "nll", "kl"):
        assert getattr(result, name) == pytest.approx(getattr(whole, name), rel=1e-4), name
    assert result.agreement == pytest.approx(whole.agreement, abs=2 / whole.tokens)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    evaluate(tiny_llama(), tokens(5, 8), micro_batch=2, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_dropout_is_off_and_modes_come_back() -> None:
    model = tiny_gpt2()
    expected = evaluate(model, tokens(2, 40)).perplexity
    model.train()
    model.transformer.h[0].eval()
    modes = [part.training for part in model.modules()]
    assert evaluate(model, tokens(2, 40)).perplexity == expected
    assert [part.training for part in model.modules()] == modes
    model.transformer.wte.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN"):
        evaluate(model, tokens(2, 40))
    assert [part.training for part in model.modules()] == modes


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_logits_are_named(bad: float) -> None:
    sound, broken = tiny_llama(tied=False), tiny_llama(tied=False)
    broken.lm_head.weight.data[17] = bad
    with pytest.raises(ValueError, match="the model gives NaN or infinite logits"):
        evaluate(broken, tokens(2, 20))
    with pytest.raises(ValueError, match="the reference gives NaN or infinite logits"):
        evaluate(sound, tokens(2, 20), broken)


def test_what_cannot_be_evaluated_is_refused() -> None:
    model = tiny_llama()
    for malformed in (tokens()[0], tokens().int(), tokens()[:0], tokens()[:, :1], tokens().float()):
        with pytest.raises(ValueError, match="needs token sequences"):
            evaluate(model, malformed)
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens do not fit the model's context of {CONTEXT}"):
        evaluate(model, tokens(1, CONTEXT + 1))
    with pytest.raises(ValueError, match=f"to {VOCABULARY} but the model's vocabulary is {VOCABULARY}"):
        evaluate(model, torch.full((1, 4), VOCABULARY))
    with pytest.raises(ValueError, match="tokens run from -1"):
        evaluate(model, torch.full((1, 4), -1))
    with pytest.raises(ValueError, match="micro_batch must be at least 1, got 0"):
        evaluate(model, tokens(), micro_batch=0)
    with pytest.raises(ValueError, match="same vocabulary"):
        evaluate(model, tokens(1, 6), lambda ids: torch.zeros(*ids.shape, VOCABULARY + 1))
    with pytest.raises(TypeError, match="Linear is not a transformers language model"):
        evaluate(torch.nn.Linear(2, 2), tokens())


def test_low_precision_is_judged_in_single_precision() -> None:
    model = tiny_llama().to(torch.bfloat16)
    result = evaluate(model, tokens(2, 20))
    p = probabilities(model, tokens(2, 20))[:, :-1].gather(-1, tokens(2, 20)[:, 1:, None])
    assert result.perplexity == pytest.approx(float((-p.log().mean()).exp()), rel=1e-5)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_speed_takes_turns(make: object) -> None:
    before, after = make(), make(seed=1)
    calls: list[tuple[str, int]] = []
    for name, model in (("before", before), ("after", after)):
        model.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: calls.append((name, kwargs["input_ids"].shape[1])), with_kwargs=True
        )
    result = speed({"before": before, "after": after}, prefill_tokens=16, decode_tokens=3, repeats=4)
    rounds = [name for name, length in calls if length == 16]
    assert rounds == ["before", "after", *["before", "after", "after", "before"] * 2]
    assert sum(length == 1 for _, length in calls) == 2 * 2 + 2 * 4 * 3
    for kind in ("prefill", "decode"):
        assert set(result[f"{kind}_tokens_per_second"]) == {"before", "after"}
        assert all(value > 0 for value in result[f"{kind}_tokens_per_second"].values())
        assert result[f"{kind}_ratio"] > 0
    assert result["threads"] == torch.get_num_threads()
    assert result["dtype"] == "float32"


def test_speed_of_one_model_has_no_ratio() -> None:
    result = speed(tiny_llama().to(torch.bfloat16), prefill_tokens=4, decode_tokens=1, repeats=1)
    assert set(result) == {"prefill_tokens_per_second", "decode_tokens_per_second", "threads", "dtype"}
    assert set(result["decode_tokens_per_second"]) == {"model"}
    assert result["dtype"] == "bfloat16"
    both = speed({"a": tiny_llama(), "b": tiny_llama().bfloat16()}, prefill_tokens=4, decode_tokens=1, repeats=1)
    assert both["dtype"] == "a float32, b bfloat16"


def test_speed_refuses_what_it_cannot_time() -> None:
    with pytest.raises(ValueError, match="no models"):
        speed({})
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        speed(tiny_llama(), repeats=0)
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens do not fit"):
        speed(tiny_llama(), prefill_tokens=CONTEXT, decode_tokens=1)


def test_a_cached_decode_is_the_models_own() -> None:
    """Greedy steps with the cache, as `speed` takes them, give what `generate` gives."""
    model, fed = tiny_llama(), []
    model.register_forward_pre_hook(lambda _, args, kwargs: fed.append(kwargs["input_ids"]), with_kwargs=True)
    speed(model, prefill_tokens=12, decode_tokens=6, repeats=1, seed=5)
    prompt, *steps = fed[3:]
    fed.clear()
    generated = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False)
    assert torch.cat(steps, 1).tolist()[0][: generated.shape[1] - 12] == generated[0, 12:].tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("repeats", [1, 2, 5])
def test_speeds_and_their_ratio_are_of_one_round(seed: int, repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the clock drifts: what is printed as before and after has the ratio that is printed."""
    generator = random.Random(seed)
    clock = itertools.accumulate(generator.lognormvariate(0, 1) for _ in itertools.count())
    monkeypatch.setattr("eckart.jobs.evaluate.speed._now", lambda device: next(clock))
    found = speed({"a": tiny_llama(), "b": tiny_llama()}, prefill_tokens=4, decode_tokens=1, repeats=repeats)
    for phase in ("prefill", "decode"):
        rates = found[f"{phase}_tokens_per_second"]
        assert found[f"{phase}_ratio"] == pytest.approx(rates["b"] / rates["a"])


def test_the_round_in_the_middle() -> None:
    times = {"before": [1.0, 10.0, 2.0], "after": [0.9, 5.0, 3.0]}
    assert middle(times) == 0
    assert middle({"model": [3.0, 1.0, 2.0]}) == 2


def test_weight_bytes_are_those_of_the_tensors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no \*.safetensors"):
        weight_bytes(tmp_path)
    save_tiny(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        weights = sum(file.get_tensor(name).nbytes for name in file.keys())  # noqa: SIM118
    assert weight_bytes(tmp_path) == weights == model_bytes(tiny_llama())
    (tmp_path / "more.safetensors").write_bytes(b"x" * 11)
    with pytest.raises(ValueError, match="is no safetensors file"):
        weight_bytes(tmp_path)


def test_peak_memory_holds_what_was_allocated() -> None:
    before = peak_rss_bytes()
    if before is None:
        pytest.skip("this system does not count resident memory")
    block = torch.ones(2**24)
    after = peak_rss_bytes()
    assert after is not None
    assert after >= max(before, block.nbytes)
    status = Path("/proc/self/status")
    if status.exists():
        kernel = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        assert after == pytest.approx(1024 * int(kernel.split()[1]), rel=0.1)
