"""Every adapter that PEFT can write gives the outputs that PEFT gives it, or is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, MambaConfig, MambaForCausalLM

import eckart
from eckart.jobs.adapt.peft_config import BEYOND, READ, WITHOUT_EFFECT, patterns_of, read_config
from eckart.jobs.exports import merged
from eckart.models.transformers import load_model
from support.adapting import close, ids, logits
from support.tiny import save_tiny, tiny_gpt2, tiny_llama, tiny_mixtral

pytestmark = pytest.mark.filterwarnings("ignore")

ATTENTION = ["q_proj", "v_proj"]


def write(model: nn.Module, directory: Path, save: dict[str, Any] | None = None, **options: Any) -> None:
    """An adapter as PEFT writes it, moved away from where it started."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "task_type": "CAUSAL_LM"} | options
        model = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**options))
        with torch.no_grad():
            for name, p in model.named_parameters():
                if "lora_" in name:
                    p.add_(0.05 * torch.randn(p.shape))
    model.save_pretrained(directory, **(save or {}))


def theirs(model: nn.Module, directory: Path) -> nn.Module:
    found: nn.Module = peft.PeftModel.from_pretrained(copy.deepcopy(model), directory).eval()
    return found


READABLE: dict[str, dict[str, Any]] = {
    "plain": {},
    "untrained": {"init_lora_weights": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "random": {"init_lora_weights": False},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "pissa-patterns": {"init_lora_weights": "pissa", "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 9}},
    "olora-stabilised": {"init_lora_weights": "olora", "use_rslora": True},
    "stabilised": {"use_rslora": True},
    "stabilised-patterns": {"use_rslora": True, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 31}},
    "alpha-of-an-end": {"alpha_pattern": {"q_proj": 64}},
    "alpha-of-half-a-word": {"alpha_pattern": {"proj": 64}},
    "alpha-of-an-expression": {"alpha_pattern": {r"layers\.0\..*_proj": 64}},
    "alpha-anchored": {"alpha_pattern": {r"^model.layers.0.self_attn.q_proj": 64}},
    "alpha-anywhere": {"alpha_pattern": {r".*q_proj": 64}},
    "alpha-in-agreement": {"alpha_pattern": {"self_attn.q_proj": 64, "q_proj": 64}},
    "alpha-of-either": {"alpha_pattern": {"q_proj|v_proj": 40}},
    "rank-of-an-expression": {"rank_pattern": {r"layers\.1\.self_attn\.[qv]_proj": 2}},
    "rank-anchored": {"rank_pattern": {r"^model\.layers\.1\.self_attn\.q_proj$": 3}},
    "dropout": {"lora_dropout": 0.3},
    "layers": {"layers_to_transform": [1]},
    "one-layer": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "without": {"target_modules": ["q_proj", "down_proj"], "exclude_modules": r".*0\.self_attn.*"},
    "without-names": {"exclude_modules": ["1.self_attn.q_proj"]},
    "expression": {"target_modules": r".*\.1\..*_proj"},
    "all-linear": {"target_modules": "all-linear"},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "velora": {"velora_config": {"num_groups": 4}},
    "transposed": {"fan_in_fan_out": True},
    "weights-tied": {"ensure_weight_tying": True},
    "kept-as-it-was": {"modules_to_save": ["norm"]},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dora": ({"use_dora": True}, "use_dora=True"),
    "biases": ({"bias": "all"}, "bias='all'"),
    "lora-biases": ({"bias": "lora_only"}, "bias='lora_only'"),
    "lora-bias": ({"lora_bias": True}, "lora_bias=True"),
    "pissa-niter": ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4.*path_initial_model_for_weight_conversion"),
    "lora-ga": ({"init_lora_weights": "lora_ga"}, "lora_ga.*path_initial_model_for_weight_conversion"),
    "tokens": ({"trainable_token_indices": [1, 2]}, r"trainable_token_indices=\[1, 2\]"),
    "replicated": ({"layer_replication": [(0, 2), (1, 2)]}, "layer_replication="),
    "activated": ({"alora_invocation_tokens": [3]}, r"alora_invocation_tokens=\[3\]"),
    "qalora": ({"use_qalora": True}, "use_qalora=True"),
    "blocks": ({"use_bdlora": {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["v_proj"]}}, "use_bdlora="),
    "kasa": ({"kasa_config": {}}, "kasa_config="),
    "monteclora": ({"monteclora_config": {}}, "monteclora_config="),
    "embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
}


@pytest.mark.parametrize("case", READABLE)
def test_the_outputs_are_those_of_peft(case: str, tmp_path: Path) -> None:
    model = tiny_llama()
    write(model, tmp_path, **READABLE[case])
    expected, before = logits(theirs(model, tmp_path), ids()), logits(model, ids())
    adapter = eckart.load_adapter(model, tmp_path)
    assert close(logits(model, ids()), expected, 2e-6)
    assert not close(before, expected, 1e-3)
    adapter.deactivate()
    assert torch.equal(logits(model, ids()), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", ["plain", "stabilised-patterns", "head"])
def test_in_other_dtypes(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_llama()
    write(model, tmp_path, **READABLE[case])
    model.to(dtype)
    expected = logits(theirs(model, tmp_path), ids())
    eckart.load_adapter(model, tmp_path)
    assert close(logits(model, ids()).double(), expected.double(), 1e-12 if dtype is torch.float64 else 1e-2)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_more_than_factors_is_refused_by_name(case: str, tmp_path: Path) -> None:
    options, words = REFUSED[case]
    model = tiny_llama()
    before = logits(model, ids())
    write(model, tmp_path, **options)
    with pytest.raises(eckart.Refused, match=words):
        eckart.load_adapter(model, tmp_path)
    assert torch.equal(logits(model, ids()), before)


def test_fused_experts_are_refused_by_name(tmp_path: Path) -> None:
    write(tiny_mixtral(), tmp_path, target_modules=["q_proj"], target_parameters=["mlp.experts.down_proj"])
    with pytest.raises(eckart.Refused, match="target_parameters="):
        eckart.load_adapter(tiny_mixtral(), tmp_path)


@pytest.mark.parametrize("case", ["plain", "pissa", "random", "stabilised"])
def test_transposed_matrices(case: str, tmp_path: Path) -> None:
    model = tiny_gpt2()
    write(model, tmp_path, **{**READABLE[case], "target_modules": ["c_attn", "c_proj"]})
    expected = logits(theirs(model, tmp_path), ids())
    eckart.load_adapter(model, tmp_path)
    assert close(logits(model, ids()), expected, 2e-6)


def test_olora_of_a_transposed_square(tmp_path: Path) -> None:
    model = tiny_gpt2()
    write(model, tmp_path, init_lora_weights="olora", target_modules=["attn.c_proj"])
    expected = logits(theirs(model, tmp_path), ids())
    eckart.load_adapter(model, tmp_path)
    assert close(logits(model, ids()), expected, 2e-6)


@pytest.mark.parametrize("start", ["pissa", "olora", "pissa_niter_4"])
def test_what_peft_converted_is_an_ordinary_lora(start: str, tmp_path: Path) -> None:
    model = tiny_llama()
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=ATTENTION, init_lora_weights=start)
    trained = peft.get_peft_model(copy.deepcopy(model), config)
    trained.peft_config["default"].init_lora_weights = True
    trained.save_pretrained(tmp_path / "first")
    trained.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for name, p in trained.named_parameters():
            if "lora_" in name:
                p.add_(0.05)
    trained.save_pretrained(tmp_path / "a", path_initial_model_for_weight_conversion=str(tmp_path / "first"))
    adapter = eckart.load_adapter(model, tmp_path / "a")
    assert adapter.method.name == "lora"
    assert close(logits(model, ids()), logits(trained.eval(), ids()), 1e-4)


def test_a_start_out_of_a_compressed_matrix_is_refused(tmp_path: Path) -> None:
    write(tiny_llama(), tmp_path, init_lora_weights="pissa")
    small = tiny_llama()
    eckart.compress(small, "svd", keep=0.7, of="linear-parameters")
    with pytest.raises(eckart.Refused, match=r"q_proj is not an ordinary linear layer.*path_initial_model"):
        eckart.load_adapter(small, tmp_path)


def test_a_start_out_of_w_beside_another_adapter(tmp_path: Path) -> None:
    model = tiny_llama()
    write(model, tmp_path, init_lora_weights="pissa")
    expected = logits(theirs(model, tmp_path), ids())
    eckart.adapt(model, "pissa", rank=3, name="other")
    eckart.load_adapter(model, tmp_path)
    assert close(logits(model, ids()), expected, 2e-6)


def test_every_field_of_a_configuration_is_known() -> None:
    fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
    assert fields <= READ | WITHOUT_EFFECT | BEYOND.keys()
    assert len(READ | WITHOUT_EFFECT | BEYOND.keys()) == len(READ) + len(WITHOUT_EFFECT) + len(BEYOND)


@given(st.from_regex(r"[a-z_]{3,12}", fullmatch=True), st.one_of(st.integers(1), st.text(min_size=1), st.just(True)))
@settings(max_examples=30, deadline=None)
def test_a_field_that_is_not_known_is_refused_by_name(word: str, value: object) -> None:
    if word in READ | WITHOUT_EFFECT or value == "none":
        return
    with pytest.raises(eckart.Refused, match=f"{word}="):
        read_config({"peft_type": "LORA", word: value}, Path("there"))
    read_config({"peft_type": "LORA", word: None}, Path("there"))


WORDS = st.sampled_from(
    ["q_proj", "layers", "0", "10", "self_attn", "proj", ".*", r"\d+", "[qv]", "q_proj|k_proj", "^model"]
)


@given(
    st.lists(st.lists(WORDS, min_size=1, max_size=3).map(".".join), max_size=4), st.lists(WORDS, min_size=1, max_size=4)
)
@settings(max_examples=200, deadline=None)
def test_patterns_match_as_those_of_peft(patterns: list[str], names: list[str]) -> None:
    where = "model.layers." + ".".join(names)
    assert [*patterns_of(patterns, where), where][0] == get_pattern_key(patterns, where)


def test_keys_whose_order_is_forgotten(tmp_path: Path) -> None:
    model = tiny_llama()
    options: dict[str, Any] = {"alpha_pattern": {"self_attn.q_proj": 64, "q_proj": 16}, "init_lora_weights": False}
    write(model, tmp_path / "both", **options)
    write(model, tmp_path / "one", **(options | {"alpha_pattern": {"q_proj": 64}}))
    with pytest.warns(UserWarning, match="several keys of alpha_pattern match model.layers.0.self_attn.q_proj"):
        eckart.load_adapter(model, tmp_path / "both")
    assert close(logits(model, ids()), logits(theirs(tiny_llama(), tmp_path / "one"), ids()), 2e-6)


def test_ranks_whose_order_is_forgotten(tmp_path: Path) -> None:
    """PEFT itself cannot load this one again: the file tells what its configuration does not."""
    model = tiny_llama()
    write(model, tmp_path, rank_pattern={"self_attn.q_proj": 2, "q_proj": 3})
    adapter = eckart.load_adapter(model, tmp_path)
    assert {rank for where, rank in adapter.ranks.items() if "q_proj" in where} == {2}


DAMAGE: dict[str, dict[str, Any]] = {
    "no-number": {"r": "many"},
    "rank-0": {"r": 0},
    "endless": {"lora_alpha": float("inf")},
    "no-mapping": {"rank_pattern": [1]},
    "no-expression": {"alpha_pattern": {"(": 3}},
    "no-target": {"target_modules": "("},
    "other-rank": {"r": 8},
    "other-targets": {"target_modules": ["k_proj"]},
    "other-layers": {"layers_to_transform": [0]},
    "left-out": {"exclude_modules": ["q_proj"]},
    "saved-too": {"modules_to_save": ["self_attn"]},
    "strange-start": {"init_lora_weights": "loft"},
    "loftq": {"init_lora_weights": "loftq"},
    "corda": {"init_lora_weights": "corda"},
    "type": {"peft_type": "IA3"},
    "megatron": {"megatron_config": {"a": 1}},
    "arrow": {"arrow_config": {"top_k": 1}},
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_configuration_is_refused(case: str, tmp_path: Path) -> None:
    model = tiny_llama()
    write(model, tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | DAMAGE[case]))
    before = logits(model, ids())
    with pytest.raises(eckart.Refused):
        eckart.load_adapter(model, tmp_path)
    assert torch.equal(logits(model, ids()), before)


def test_an_adapter_of_a_deeper_model_says_so(tmp_path: Path) -> None:
    write(tiny_llama(), tmp_path, layers_to_transform=[0])
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layers_to_transform": None}))
    with pytest.warns(UserWarning, match="2 more matrices of this model than it has factors for"):
        eckart.load_adapter(tiny_llama(), tmp_path)


def classifier() -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=3
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForSequenceClassification(config).eval()


@pytest.mark.parametrize("trained", [False, True])
def test_a_classifier_whose_head_is_in_the_file(trained: bool, tmp_path: Path) -> None:
    model = classifier()
    made = peft.get_peft_model(
        copy.deepcopy(model), peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    )
    if trained:
        made.base_model.model.classifier.modules_to_save["default"].bias.data += 1.0
    made.save_pretrained(tmp_path)
    if trained:
        with pytest.raises(eckart.Refused, match=r"values of its own for classifier.bias \(modules_to_save"):
            eckart.load_adapter(model, tmp_path)
        return
    eckart.load_adapter(model, tmp_path)
    assert close(logits(model, ids()), logits(made.eval(), ids()), 1e-6)


def test_layers_that_peft_puts_nothing_beside(tmp_path: Path) -> None:
    def mamba() -> nn.Module:
        return MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, state_size=4, num_hidden_layers=1)).eval()

    write(mamba(), tmp_path, target_modules=["in_proj"])
    eckart.load_adapter(mamba(), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    renamed = {key.replace("in_proj", "out_proj"): tensor for key, tensor in load_file(file).items()}
    save_file(renamed, file, {"format": "pt"})
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": ["out_proj"]}))
    with pytest.raises(eckart.Refused, match=r"PEFT can put nothing beside .*out_proj of a mamba model"):
        eckart.load_adapter(mamba(), tmp_path)


class Filters(nn.Module):
    """Convolutions of images or of sequences."""

    def __init__(self, kind: type[nn.Conv1d | nn.Conv2d], **options: Any) -> None:
        super().__init__()
        self.first = kind(2, 8, 3, **options)
        self.second = kind(8, 4, 1, dilation=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.first(x))
        return y


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
@pytest.mark.parametrize(
    ("options", "words"),
    [({"padding": 1, "stride": 2}, ""), ({"padding": "same"}, ""), ({"dilation": 2, "padding": 1}, "dilation"),
     ({"groups": 2}, "first"), ({"padding": 1, "padding_mode": "circular"}, "first")],
)  # fmt: skip
def test_convolutions(kind: type[nn.Conv1d | nn.Conv2d], options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Filters(kind, **options).eval()
    write(model, tmp_path / "a", target_modules=["first", "second"], task_type=None)
    x = torch.randn(2, 2, *[9] * (2 if kind is nn.Conv2d else 1), generator=torch.Generator().manual_seed(0))
    plain = copy.deepcopy(model)
    if words:
        with pytest.raises(eckart.Refused, match=words):
            eckart.load_adapter(model, tmp_path / "a")
        return
    expected = theirs(model, tmp_path / "a")(x)
    adapter = eckart.load_adapter(model, tmp_path / "a")
    assert close(model(x), expected, 1e-6)
    eckart.save_peft(adapter, tmp_path / "b")
    assert close(theirs(plain, tmp_path / "b")(x), expected, 1e-6)
    eckart.save_adapter(adapter, tmp_path / "c")
    eckart.load_adapter(plain, tmp_path / "c")
    assert close(plain(x), expected, 1e-6)


WRITERS: dict[str, Callable[[], nn.Module]] = {"tied": tiny_llama, "untied": lambda: tiny_llama(tied=False)}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_head(kind: str, tmp_path: Path) -> None:
    model = WRITERS[kind]()
    write(model, tmp_path / "a", target_modules=["lm_head", "q_proj"])
    expected = logits(theirs(model, tmp_path / "a"), ids())
    adapter = eckart.load_adapter(model, tmp_path / "a")
    assert close(logits(model, ids()), expected, 2e-6)
    eckart.save_peft(adapter, tmp_path / "again")
    assert close(logits(theirs(WRITERS[kind](), tmp_path / "again"), ids()), expected, 2e-6)
    eckart.save_adapter(adapter, tmp_path / "own")
    other = WRITERS[kind]()
    eckart.load_adapter(other, tmp_path / "own")
    assert close(logits(other, ids()), expected, 2e-6)
    if kind == "tied":
        with pytest.raises(eckart.Refused, match=r"lm_head shares its matrix with model\.embed_tokens"):
            adapter.merge()
        assert close(logits(model, ids()), expected, 2e-6)
        return
    adapter.merge()
    assert close(logits(model, ids()), expected, 1e-5)


def test_a_tied_head_gets_a_matrix_of_its_own_where_an_adapter_is_merged(tmp_path: Path) -> None:
    save_tiny(tmp_path / "m")
    model: Any = load_model(str(tmp_path / "m"))[0]
    write(model, tmp_path / "a", target_modules=["lm_head", "q_proj"])
    expected = logits(theirs(model, tmp_path / "a"), ids())
    assert merged.write(str(tmp_path / "a"), tmp_path / "o").endswith("; lm_head has a matrix of its own now")
    found: Any = load_model(str(tmp_path / "o"))[0]
    assert close(logits(found, ids()), expected, 1e-5)
    assert torch.equal(found.model.embed_tokens.weight, model.model.embed_tokens.weight)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_head_is_taken_where_a_pattern_names_it_alone(kind: str) -> None:
    adapter = eckart.adapt(WRITERS[kind](), "lora", rank=2, include=["lm_head"])
    assert list(adapter.places) == ["lm_head"]
    assert "lm_head" not in eckart.adapt(adapter.model, "lora", rank=2, name="second", include=["*"]).places
    if kind == "tied":
        with pytest.raises(eckart.Refused, match=r"lm_head shares its matrix with model\.embed_tokens"):
            eckart.adapt(WRITERS[kind](), "pissa", rank=2, include=["lm_head"])
