"""The job on tiny models: budgets are kept, what is asked for wrongly is refused, and what fails stays dense."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart import METHODS
from eckart.compressors.contract import Family, Fitted
from eckart.errors import Refused
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.report import matrices
from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.models.sites import find_sites
from eckart.report import as_json
from eckart.statistics import Statistics
from eckart.structures import Cost, Quantized, exact_input
from support.blocks import Blocks, assert_equal, measured, tokens
from support.cases import in_turn
from support.layers import NESTED, layer
from support.tiny import tiny_gpt2, tiny_llama, tiny_tokenizer


def smallest(method: str) -> Fitted:
    """The smallest candidate of a small matrix."""
    weight, _, statistics = layer(12, 20)
    family = METHODS[method].entry(weight, statistics)
    return family.build(family.sizes[0])


RANKS = sorted(NESTED)
# Those that store codes and nothing else.
BITS = sorted(
    name for name, card in METHODS.items() if card.size == "bits" and isinstance(smallest(name).structure, Quantized)
)
OTHERS = sorted({*METHODS} - {*RANKS, *BITS})
CURRENCIES = ("linear-parameters", "parameters", "bytes", "macs")


def plain() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 32, bias=False), nn.Tanh(), nn.Linear(32, 5)
        ).eval()


def separate() -> nn.Module:
    return tiny_llama(tied=False, gqa=False)


MODELS = {"llama": tiny_llama, "separate": separate, "gpt2": tiny_gpt2, "plain": plain}


def calibration(model: nn.Module) -> list[Tensor]:
    if isinstance(model, nn.Sequential):
        return [torch.randn(64, 24, generator=torch.Generator().manual_seed(1))]
    return [tokens(4, 16), tokens(4, 16, seed=1)]


def compressed(model: nn.Module, method: str, **options: object) -> Compression:
    return eckart.compress(model, method, calibration=calibration(model), **options)


def finite(model: nn.Module) -> bool:
    with torch.no_grad():
        x = calibration(model)[0]
        output = model(x)
        return bool(torch.isfinite(getattr(output, "logits", output)).all())


@pytest.mark.parametrize(("method", "kind"), in_turn(RANKS, ["llama", "gpt2", "plain"], count=2))
def test_low_rank_methods_keep_every_budget(method: str, kind: str) -> None:
    model = MODELS[kind]()
    before = measured(model)
    for of in CURRENCIES:
        small = copy.deepcopy(model)
        result = compressed(small, method, keep=0.8, of=of)
        after = measured(small)
        assert after[of] <= 0.8 * before[of], of
        assert after[of] >= 0.6 * before[of], f"{of}: far more was cut than was asked for"
        assert not result.warnings
        assert finite(small)
        assert not small.training


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", BITS)
def test_quantizers_keep_a_budget_of_bytes(method: str, kind: str) -> None:
    model = MODELS[kind]()
    before = measured(model)["bytes"]
    outside = before - sum(4 * site.weight.numel() for site in find_sites(model))
    for share in (0.6, 0.3):
        keep = (outside + share * (before - outside)) / before
        small = copy.deepcopy(model)
        result = compressed(small, method, keep=keep, of="bytes")
        assert measured(small)["bytes"] <= keep * before
        assert not result.warnings
        assert finite(small)
        assert {site["bits"] for site in map(as_json, matrices(result)) if not site["dense"]} <= {2, 3, 4, 5, 6, 8}


FIRST, *REST = MODELS
ON_FIRST, ON_REST = [(method, FIRST) for method in OTHERS], list(zip(OTHERS, itertools.cycle(REST), strict=False))
PAIRS = ON_FIRST + ON_REST if os.environ.get("ECKART_ALL_CASES") else ON_FIRST[::2] + ON_REST[1::2]
"""Every method on the first kind of model or on another one, in turn."""


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_every_other_method_keeps_a_budget_of_bytes(method: str, kind: str) -> None:
    model = MODELS[kind]()
    before = measured(model)["bytes"]
    for allocation in (None, "uniform") if kind == FIRST else (None,):
        small = copy.deepcopy(model)
        result = compressed(small, method, keep=0.75, of="bytes", allocation=allocation)
        assert measured(small)["bytes"] <= 0.75 * before
        assert not result.warnings
        assert finite(small)
        assert not all(site["dense"] for site in map(as_json, matrices(result)))
        assert all(METHODS[site["method"]].size in site for site in map(as_json, matrices(result)) if not site["dense"])


@pytest.mark.parametrize("method", BITS)
@pytest.mark.parametrize("of", ["parameters", "linear-parameters", "macs"])
def test_quantizers_cannot_save_what_they_do_not_touch(method: str, of: str) -> None:
    model = plain()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    says = rf"keep=0.5 of {of} cannot be met with {method}: it leaves {of} as they are; count bytes, --of bytes"
    with pytest.raises(ValueError, match=says):
        compressed(model, method, keep=0.5, of=of)
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize(("method", "of"), [*(("svd", of) for of in CURRENCIES), ("kfac", "bytes")])
@pytest.mark.parametrize(("kind", "options"), [
    ("llama", {"head": True}),
    ("llama", {"embeddings": True}),
    ("separate", {"head": True}),
    ("separate", {"embeddings": True}),
    ("separate", {"embeddings": True, "head": True}),
    ("gpt2", {"embeddings": True}),
])  # fmt: skip
def test_budgets_are_kept_with_embeddings_and_head(method: str, kind: str, options: dict[str, bool], of: str) -> None:
    if of == "linear-parameters" or (of == "macs" and kind != "llama" and "embeddings" in options):
        with pytest.raises(ValueError, match=r"not counted in linear-parameters|costs no macs"):
            compressed(MODELS[kind](), method, keep=0.7, of=of, **options)
        return
    model = MODELS[kind]()
    before = measured(model)
    result = compressed(model, method, keep=0.7, of=of, **options)
    assert measured(model)[of] <= 0.7 * before[of]
    assert not result.warnings
    assert finite(model)


@pytest.mark.parametrize("method", ["auto", "eora", "kfac", "lord", "modegpt", "svd"])
def test_a_head_without_a_bias_gets_none(method: str) -> None:
    # No configuration of transformers speaks of one, so that the model could not be written as an ordinary one.
    model = compressed(separate(), method, keep=0.7, of="bytes", embeddings=True, head=True).model
    assert isinstance(model.lm_head, StructuredLinear)
    assert model.lm_head.bias is None
    inside = [module for module in model.model.modules() if isinstance(module, StructuredLinear)]
    assert any(module.bias is not None for module in inside) == (method in ("auto", "kfac", "lord", "modegpt"))


@pytest.mark.parametrize(("method", "kind"), in_turn(sorted(METHODS), ["llama", "gpt2", "plain"]))
def test_keeping_everything_changes_nothing(method: str, kind: str) -> None:
    model = MODELS[kind]()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    compressed(model, method, keep=1.0, of="bytes")
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("method", ["kfac", "svd"])
def test_keeping_everything_changes_nothing_in_a_sequential_pass_either(method: str) -> None:
    model = tiny_llama()
    expected = model(tokens(2, 9)).logits
    compressed(model, method, keep=1.0, sequential=True)
    assert torch.equal(model(tokens(2, 9)).logits, expected)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_same_seed_gives_the_same_model(method: str) -> None:
    # Matrices that are fitted together are those of attention.
    models = [tiny_llama() if METHODS[method].together else plain() for _ in range(2)]
    for model in models:
        compressed(model, method, keep=0.8, of="bytes", seed=3)
    assert_equal(models[0].state_dict(), models[1].state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "swd"}, r"unknown compressor 'swd'; did you mean 'svd'\? there are .*kfac.*svd"),
        ({"keep": 0.0}, r"keep=0.0 is not a share in \(0, 1\]"),
        ({"keep": 1.5}, "keep=1.5 is not a share"),
        ({"keep": -1}, "keep=-1 is not a share"),
        ({"keep": float("nan")}, "keep=nan is not a share"),
        ({"of": "size"}, r"of='size' is unknown; there are linear-parameters, parameters, bytes, macs"),
        ({"floor": 1.0}, "floor=1.0 is not a share"),
        ({"samples": 0}, "samples=0 and length=256"),
        ({"length": 1}, "samples=64 and length=1"),
        (
            {"allocation": "best"},
            "unknown allocation 'best'; there are exact, farms, greedy, influence, ",
        ),
        ({"include": ("fc1",)}, "pattern 'fc1' matches no matrix"),
        ({"keep": 0.001}, "keep=0.001 of bytes cannot be met with svd: the least is 0."),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict[str, object], message: str) -> None:
    model = tiny_llama()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        eckart.compress(model, **{"method": "svd", "calibration": tokens(2, 8), **options})
    assert_equal(model.state_dict(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_weight_is_named(bad: float) -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] = bad
    with pytest.raises(ValueError, match=r"model.layers.1.mlp.up_proj.weight has 1 NaN or Inf entries of 2048"):
        eckart.compress(model, "svd")
    eckart.compress(model, "svd", exclude=("model.layers.1.mlp.up_proj",))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_missing_calibration_is_refused_where_it_is_needed(method: str) -> None:
    model = plain()
    if METHODS[method].needs:
        with pytest.raises(ValueError, match=rf"{method} needs calibration data \(for .*: pass calibration="):
            eckart.compress(model, method, keep=0.9, of="bytes")
    else:
        eckart.compress(model, method, keep=0.9, of="bytes")
    with pytest.raises(ValueError, match=rf"{method} needs calibration data"):
        eckart.compress(plain(), method, sequential=True, keep=0.9, of="bytes")


@pytest.mark.parametrize("empty", [[], (), "", {}])
def test_empty_calibration_is_refused(empty: object) -> None:
    with pytest.raises(ValueError, match=r"empty|no text|0 tokens|has 0"):
        eckart.compress(tiny_llama(), "kfac", calibration=empty, tokenizer=tiny_tokenizer())


def test_unusable_calibration_is_refused() -> None:
    model = tiny_llama()
    with pytest.raises(ValueError, match="needs a tokenizer"):
        eckart.compress(model, "kfac", calibration="some text")
    with pytest.raises(ValueError, match=r"the text has \d+ tokens and one sequence needs 256"):
        eckart.compress(model, "kfac", calibration="some text", tokenizer=tiny_tokenizer())
    with pytest.raises(ValueError, match=r"token ids must be integers \(sequences, length\)"):
        eckart.compress(model, "kfac", calibration=torch.rand(2, 8))
    with pytest.raises(ValueError, match=r"token ids must be integers"):
        eckart.compress(model, "kfac", calibration=tokens(8))


def test_all_kinds_of_calibration() -> None:
    text = "the best approximation of a matrix by one of smaller rank. " * 20
    tokenizer = tiny_tokenizer()
    kinds = [text, [text, text], {"a": text, "b": text}, tokens(4, 16), [tokens(2, 16)], [{"input_ids": tokens(2, 16)}]]
    for kind in kinds:
        model = tiny_llama()
        result = eckart.compress(model, "kfac", calibration=kind, tokenizer=tokenizer, samples=4, length=16)
        assert isinstance(model.model.layers[0].mlp.up_proj, StructuredLinear)
        if isinstance(kind, str | dict | Tensor):
            assert result.calibration["tokens"] == 64
            assert len(result.calibration["fingerprint"]) == 16


def test_fewer_sequences_than_texts() -> None:
    texts = dict.fromkeys("abc", "the best approximation of a matrix by one of smaller rank. " * 20)
    model = tiny_llama()
    result = eckart.compress(model, "kfac", calibration=texts, tokenizer=tiny_tokenizer(), samples=2, length=16)
    assert result.calibration["tokens"] == 32


def failing(name: str, when: Callable[[Tensor], bool], error: Exception) -> object:
    card = METHODS[name]

    def fit(weight: Tensor, statistics: Statistics) -> Family:
        if when(weight):
            raise error
        return card.entry(weight, statistics)

    return dataclasses.replace(card, entry=fit)


@pytest.mark.parametrize("error", [Refused("a singular side"), torch.linalg.LinAlgError("no convergence")])
@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("method", ["kfac", "gptq"])
def test_a_failed_fit_stays_dense_and_is_named(
    monkeypatch: pytest.MonkeyPatch, error: Exception, sequential: bool, method: str
) -> None:
    model = tiny_llama()
    name = "model.layers.1.mlp.down_proj"
    bad = model.get_submodule(name)
    weight = bad.weight.detach().clone()
    card = failing(method, lambda w: w.shape == weight.shape and torch.equal(w, weight), error)
    monkeypatch.setitem(METHODS._cards, method, card)
    before = measured(model)["bytes"]
    result = compressed(model, method, keep=0.8, of="bytes", sequential=sequential)
    assert model.get_submodule(name) is bad
    assert torch.equal(bad.weight, weight)
    assert measured(model)["bytes"] <= 0.8 * before
    assert result.warnings == [f"{name} stays dense: fit failed: {error}"]
    (entry,) = [site for site in map(as_json, matrices(result)) if site["name"] == name]
    assert entry["dense"]
    assert entry["error"] == 0
    assert entry["reason"] == f"fit failed: {error}"
    assert isinstance(model.model.layers[0].mlp.down_proj, StructuredLinear)


@pytest.mark.parametrize("error", [TypeError("a bug"), ValueError("another"), RuntimeError("a third")])
def test_a_fault_in_a_method_is_raised(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Only what a method refuses, or LAPACK cannot do, leaves a matrix dense."""
    monkeypatch.setitem(METHODS._cards, "svd", failing("svd", lambda w: True, error))
    model = tiny_llama()
    with pytest.raises(type(error), match=str(error)):
        compressed(model, "svd")
    assert not any(isinstance(module, StructuredLinear) for module in model.modules())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_odd_matrices(method: str) -> None:
    # A zero matrix, one row, one column, dead inputs, and fewer samples than dimensions.
    model = nn.Sequential(nn.Linear(24, 40), nn.Linear(40, 1), nn.Linear(1, 16), nn.Linear(16, 20), nn.Linear(20, 20))
    model[3].weight.data.zero_()
    x = torch.randn(6, 24)
    x[:, 5] = 0
    result = eckart.compress(model, method, keep=0.9, of="bytes", calibration=[x])
    assert not result.warnings
    y = model(x)
    assert torch.isfinite(y).all()
    third = model[3]
    dense = exact_input(third.structure).to_dense() if isinstance(third, StructuredLinear) else third.weight
    assert not dense.any()
    for site in map(as_json, matrices(result)):
        assert 0 <= site["error"] < float("inf")


@pytest.mark.parametrize("method", RANKS)
def test_a_matrix_of_low_rank_is_found_to_be_so(method: str) -> None:
    model = nn.Sequential(nn.Linear(48, 40))
    model[0].weight.data = torch.randn(40, 3) @ torch.randn(3, 48)
    x = torch.randn(200, 48)
    expected = model(x)
    eckart.compress(model, method, keep=0.2, of="linear-parameters", calibration=[x])
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["svd", "lord", "kfac"])
def test_more_budget_never_costs_accuracy_in_the_metric(method: str) -> None:
    errors = []
    for keep in (0.3, 0.5, 0.7, 0.9):
        result = compressed(tiny_llama(), method, keep=keep, of="linear-parameters")
        assert result.error == pytest.approx(result.plan.error(result.choice))
        errors.append(result.error)
    assert errors == sorted(errors, reverse=True)


def test_kfac_beats_svd_in_its_own_metric_and_predicts_the_divergence() -> None:
    # On outputs of tiny changes the second-order prediction is close to what is measured.
    model = tiny_llama()
    ids = tokens(16, 32)
    small = copy.deepcopy(model)
    result = eckart.compress(small, "kfac", keep=0.9, of="linear-parameters", calibration=ids)
    log_p, log_q = (m(ids).logits.detach().double().log_softmax(-1) for m in (model, small))
    kl = float((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    assert result.error / 2 == pytest.approx(kl, rel=0.15)
    other = copy.deepcopy(model)
    eckart.compress(other, "svd", keep=0.9, of="linear-parameters", calibration=ids)
    log_r = other(ids).logits.detach().double().log_softmax(-1)
    assert kl < 0.7 * float((log_p.exp() * (log_p - log_r)).sum(-1).mean())


@pytest.mark.parametrize(("method", "options"), in_turn(sorted(METHODS), [{"head": True}, {"embeddings": True}]))
def test_tied_embeddings_stay_one_structure(method: str, options: dict[str, bool]) -> None:
    model = tiny_llama(tied=True)
    asked: dict[str, object] = {"keep": 0.75, "of": "bytes", "include": ("embed_tokens",), **options}
    if any(rounding in METHODS[method].expression for rounding in ("RoundedInput", "Float8Input", "BipolarInput")):
        with pytest.raises(eckart.Refused, match="rows that are looked up by index have none"):
            compressed(model, method, **asked)
        return
    result = compressed(model, method, **asked)
    assert not result.warnings
    embed, head = model.model.embed_tokens, model.lm_head
    assert isinstance(embed, StructuredEmbedding)
    assert isinstance(head, TiedLinear)
    assert head.structure is embed.structure
    dense = embed.structure.to_dense()
    ids = tokens(2, 7)
    torch.testing.assert_close(embed(ids), dense[ids])
    hidden = torch.randn(3, 32)
    torch.testing.assert_close(head(hidden), hidden @ dense.T, rtol=1e-4, atol=1e-4)
    assert sum(n.startswith("lm_head") for n in model.state_dict()) == 0
    assert finite(model)


def outputs_error(dense: nn.Module, small: nn.Module, batches: list[Tensor]) -> float:
    with torch.no_grad():
        pairs = [(dense.model(x).last_hidden_state, small.model(x).last_hidden_state) for x in batches]
    return sum(float((a - b).square().sum()) for a, b in pairs) / sum(float(a.square().sum()) for a, _ in pairs)


@pytest.mark.parametrize(("method", "keep"), [("lord", 0.6), ("svd", 0.6), ("kfac", 0.6), ("gptq", 0.45)])
def test_the_sequential_pass_lowers_the_error_of_the_outputs(method: str, keep: float) -> None:
    of = "bytes" if method in BITS else "linear-parameters"
    errors = []
    for seed in range(2):
        dense = tiny_llama(seed=seed)
        batches = list(tokens(48, 32, seed=seed).split(16))
        pair = [copy.deepcopy(dense) for _ in range(2)]
        costs = []
        for model, sequential in zip(pair, (False, True), strict=True):
            eckart.compress(model, method, keep=keep, of=of, calibration=batches, sequential=sequential)
            costs.append(measured(model))
        if method != "kfac":  # which adds biases
            assert costs[1][of] <= costs[0][of]
        errors.append([outputs_error(dense, model, batches) for model in pair])
    before, after = torch.tensor(errors).mean(0).tolist()
    assert after < before


def test_the_sequential_pass_keeps_the_budget() -> None:
    for method in ("kfac", "lord", "svd"):
        for kind in ("llama", "gpt2"):
            model = MODELS[kind]()
            before = measured(model)["linear-parameters"]
            compressed(model, method, keep=0.7, sequential=True)
            assert measured(model)["linear-parameters"] <= 0.7 * before


def test_the_sequential_pass_that_cannot_be_changes_nothing() -> None:
    model = plain()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ValueError, match="Sequential has no list of blocks"):
        compressed(model, "svd", keep=0.9, sequential=True)
    assert_equal(model.state_dict(), before)


def test_the_sequential_pass_needs_blocks() -> None:
    with pytest.raises(ValueError, match="Sequential has no list of blocks"):
        compressed(plain(), "svd", keep=0.9, sequential=True)


@pytest.mark.parametrize("method", ["lord", "kfac"])
def test_the_sequential_pass_on_a_plain_module(method: str) -> None:
    errors = []
    for seed in range(3):
        torch.manual_seed(seed)
        dense = Blocks(residual=False)
        x = torch.randn(500, 16)
        pair = [copy.deepcopy(dense) for _ in range(2)]
        for model, sequential in zip(pair, (False, True), strict=True):
            eckart.compress(model, method, keep=0.6, of="linear-parameters", calibration=[x], sequential=sequential)
        errors.append([float((model(x) - dense(x)).detach().square().mean()) for model in pair])
    before, after = torch.tensor(errors).mean(0).tolist()
    assert after < before


def test_the_sequential_pass_refuses_what_happens_between_blocks() -> None:
    with pytest.raises(ValueError, match=r"blocks.1 of Blocks does not take what blocks.0 returns"):
        eckart.compress(
            Blocks(residual=True),
            "svd",
            keep=0.6,
            of="linear-parameters",
            calibration=[torch.randn(9, 16)],
            sequential=True,
        )


@pytest.mark.parametrize("apart", [False, True])
def test_training_flags_are_kept(apart: bool) -> None:
    model = tiny_llama()
    model.train()
    if apart:
        model.model.layers[1].eval()
    modes = {name: m.training for name, m in model.named_modules()}
    compressed(model, "kfac", keep=0.7)
    for name, mode in modes.items():
        assert model.get_submodule(name).training == mode, name


def test_a_compressed_model_can_be_trained() -> None:
    model = tiny_llama()
    compressed(model, "kfac", keep=0.7)
    model(tokens(2, 8)).logits.square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name


@pytest.mark.parametrize("method", sorted(METHODS))
def test_short_dtypes_stay_short(method: str) -> None:
    model = plain().to(torch.float16)
    eckart.compress(model, method, keep=0.8, of="bytes", calibration=[torch.randn(32, 24, dtype=torch.float16)])
    kinds = {t.dtype for t in model.state_dict().values() if t.is_floating_point()}
    assert kinds == {torch.float16}


def test_memory_for_factors_may_be_short(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, model = tiny_llama(), tiny_llama()
    compressed(expected, "kfac", keep=0.7)
    monkeypatch.setattr("eckart.jobs.compress.plan.memory_available", lambda: 3000)
    compressed(model, "kfac", keep=0.7)
    assert_equal(model.state_dict(), expected.state_dict())


def test_reports_of_sites_agree_with_the_model() -> None:
    model = tiny_llama()
    result = compressed(model, "kfac", keep=0.6, exclude=("o_proj",))
    reports = list(map(as_json, matrices(result)))
    assert [r["name"] for r in reports] == [site.name for site in find_sites(tiny_llama(), exclude=["o_proj"])]
    for r in reports:
        module = model.get_submodule(r["name"])
        assert r["dense"] == isinstance(module, nn.Linear)
        if r["dense"]:
            assert r["parameters"] == module.weight.numel()
            continue
        assert r["bytes"] == sum(t.numel() * t.element_size() for t in module.structure.state_dict().values())
        assert r["parameters"] == module.structure.cost().parameters
        assert r["structure"] == "Interpolative"
        assert tuple(r["shape"]) == module.structure.shape
        weight = tiny_llama().get_submodule(r["name"]).weight
        assert torch.linalg.matrix_rank((module.structure.to_dense()).double(), rtol=1e-5) == r["rank"]
        assert 0 < r["error"] < 1, weight.shape
        at = r["curve"]["size"].index(f"rank {r['rank']}")
        # A curve counts the bias that a fit with a mean adds.
        assert r["curve"]["parameters"][at] - r["parameters"] in (0, r["shape"][0])
        assert r["curve"]["predicted_kl"][at] == pytest.approx(r["predicted_kl"])
        assert (r["curve"]["size"][-1], r["curve"]["predicted_kl"][-1]) == ("dense", 0)
    assert result.error / 2 == pytest.approx(sum(r["predicted_kl"] for r in reports))


def test_a_method_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from eckart.structures import Dense, low_rank

    class Ones:
        sizes = (1,)
        zero_error = 1.0

        def __init__(self, weight: Tensor) -> None:
            self.weight = weight
            out, columns = weight.shape
            self.costs = [Cost(out + columns, 4 * (out + columns), out + columns)]
            self.errors = torch.ones(1, dtype=torch.float64)

        def build(self, size: int) -> Fitted:
            out, columns = self.weight.shape
            return Fitted(low_rank(torch.ones(out, 1), torch.ones(1, columns)), None, 1.0)

    card = dataclasses.replace(METHODS["svd"], name="ones", entry=lambda w, _: Ones(w))
    monkeypatch.setitem(METHODS._cards, "ones", card)
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    eckart.compress(model, "ones", keep=0.5, of="linear-parameters")
    assert torch.equal(model(torch.ones(1, 8)), torch.full((1, 8), 8.0))
    assert Dense(torch.ones(2, 2)).cost().parameters == 4


def test_a_pattern_may_stand_alone() -> None:
    model = tiny_llama()
    result = eckart.compress(
        model, "svd", keep=0.97, of="linear-parameters", include="re:.*q_proj", exclude="model.layers.1.*"
    )
    assert [site.name for site in result.plan.sites] == ["model.layers.0.self_attn.q_proj"]


def test_one_batch_is_too_little_to_distill_on_and_nothing_is_changed() -> None:
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(eckart.Refused, match=r"distill=2 trains on one batch .* and there is 1"):
        eckart.compress(
            model, "kfac", keep=0.6, of="linear-parameters", distill=2, calibration=torch.zeros(2, 8, dtype=torch.long)
        )
    assert_equal(model.state_dict(), before)
