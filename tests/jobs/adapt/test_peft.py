"""What is written for PEFT does there what the adapter does: every method, every class of model, whatever the names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import eckart
from eckart.adapters.contract import ADAPTERS
from eckart.cli.app import main
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.host import host
from eckart.jobs.adapt.peft import EXACT, export_adapter
from support.adapting import IN_PLACE, MODELS, adapted, close, has_matrix, ids, logits, made, train, unquantized
from support.cases import in_turn
from support.tiny import tiny_llama
from support.zoo import outputs, zoo

pytestmark = pytest.mark.filterwarnings("ignore")

OF_RANK_2R = ["pissa", "olora", "corda", "lora-ga", "sorsa"]
THICK = {"hta", "loca", "sara", "snell", "snella", "soka"}
"""Methods whose change is no product of factors that are thinner than the matrix."""


def theirs(model: nn.Module, directory: Path) -> Any:
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), directory).eval()


def config_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    return found


def shaken(adapter: Adapter) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in adapter.trainable_parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize(("method", "kind"), in_turn(ADAPTERS, MODELS, start=1))
def test_nothing_is_lost_by_default(method: str, kind: str, tmp_path: Path) -> None:
    model = made(method, kind)
    adapter = adapted(model, method)
    train(model, adapter)
    if not (has_matrix(adapter) and unquantized(adapter)) or method in IN_PLACE:
        with pytest.raises(eckart.Refused, match=r"depends on its input|replaced"):
            eckart.save_peft(adapter, tmp_path / "p")
        return
    if method in THICK:
        with pytest.raises(eckart.Refused, match=r"the change has rank \d+.*ask for a rank"):
            eckart.save_peft(adapter, tmp_path / "p")
    errors = eckart.save_peft(adapter, tmp_path / "p", rank=32 if method in THICK else None)
    assert max(errors.values()) <= EXACT
    assert close(logits(theirs(MODELS[kind](), tmp_path / "p"), ids()), logits(model, ids()), 1e-5)
    if method in OF_RANK_2R:
        ranks = {len(t) for t in theirs(MODELS[kind](), tmp_path / "p").state_dict().values() if t.shape[0] <= 8}
        assert max(ranks) == 8
    # From the disk the same, without the model.
    eckart.save_adapter(adapter, tmp_path / "a")
    assert export_adapter(tmp_path / "a", tmp_path / "q", rank=32) == pytest.approx(errors, abs=EXACT)
    again = MODELS[kind]()
    eckart.load_adapter(again, tmp_path / "q")
    assert close(logits(again, ids()), logits(model, ids()), 1e-5)


@pytest.mark.parametrize("name", zoo())
def test_every_class_of_model_both_ways(name: str, tmp_path: Path) -> None:
    model, batch = zoo()[name]()
    plain = copy.deepcopy(model)
    exclude = {"Mamba": ["dt_proj", "out_proj"], "Whisper": ["conv1", "conv2"]}.get(name, [])
    adapter = eckart.adapt(model, "pissa", rank=2, exclude=exclude)
    if fused := host(model, adapter.places).fused:
        with pytest.raises(eckart.Refused, match="is a part of a tensor that holds several matrices"):
            eckart.save_peft(adapter, tmp_path)
        model = copy.deepcopy(plain)
        adapter = eckart.adapt(model, "pissa", rank=2, exclude=[*exclude, *fused])
    shaken(adapter)
    expected = outputs(model, batch)
    assert not close(outputs(plain, batch), expected, 1e-2)
    eckart.save_peft(adapter, tmp_path)
    again = copy.deepcopy(plain)
    eckart.load_adapter(again, tmp_path)
    # A T5 with these weights multiplies rounding.
    bound = 1e-4 if name in ("T5", "Switch") else 2e-6
    assert close(outputs(again, batch), expected, bound)
    found = theirs(plain, tmp_path)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert close(outputs(found, batch), expected, bound)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


TASKS = {
    "Llama": "CAUSAL_LM",
    "Mamba": "CAUSAL_LM",
    "T5": "SEQ_2_SEQ_LM",
    "BART": "SEQ_2_SEQ_LM",
    "BERT masked": None,
    "Whisper": None,
    "ViT": None,
    "Waves": None,
}


@pytest.mark.parametrize("name", TASKS)
def test_the_task(name: str, tmp_path: Path) -> None:
    model, _ = zoo()[name]()
    exclude = {"Mamba": ["dt_proj", "out_proj"], "Whisper": ["conv1", "conv2"]}.get(name, [])
    adapter = eckart.adapt(model, "lora", rank=1, exclude=exclude)
    eckart.save_peft(adapter, tmp_path / "p")
    eckart.save_adapter(adapter, tmp_path / "a")
    export_adapter(tmp_path / "a", tmp_path / "q")
    assert config_of(tmp_path / "p") == config_of(tmp_path / "q")
    assert config_of(tmp_path / "p")["task_type"] == TASKS[name]


@pytest.mark.parametrize("whole", [False, True])
def test_a_classifier_goes_with_its_head(whole: bool, tmp_path: Path) -> None:
    def classifier() -> BertForSequenceClassification:
        torch.manual_seed(0)
        options: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
        return BertForSequenceClassification(BertConfig(vocab_size=300, num_attention_heads=4, **options)).eval()

    with torch.random.fork_rng(devices=[]):
        model, plain = classifier(), classifier()
    adapter = eckart.adapt(model, "pissa", rank=2, exclude=[] if whole else ["classifier"])
    shaken(adapter)
    eckart.save_adapter(adapter, tmp_path / "a")
    eckart.save_peft(adapter, tmp_path / "p")
    export_adapter(tmp_path / "a", tmp_path / "q")
    for directory in (tmp_path / "p", tmp_path / "q"):
        # Factors beside the head have no place where PEFT keeps the head itself.
        assert config_of(directory)["task_type"] == (None if whole else "SEQ_CLS")
        found = theirs(plain, directory)
        assert close(logits(found, ids()), logits(model, ids()), 2e-6)
        again = copy.deepcopy(plain)
        eckart.load_adapter(again, directory)
        assert close(logits(again, ids()), logits(model, ids()), 2e-6)


@pytest.mark.parametrize(
    ("name", "end", "words"),
    [("Mamba", "out_proj", "PEFT can put nothing beside .*out_proj of a mamba"),
     ("Whisper", "conv1", "PEFT can put nothing beside .*conv1 of a whisper")],
)  # fmt: skip
def test_layers_that_peft_puts_nothing_beside(name: str, end: str, words: str, tmp_path: Path) -> None:
    model, _ = zoo()[name]()
    adapter = eckart.adapt(model, "lora", rank=1, include=[end])
    eckart.save_adapter(adapter, tmp_path / "a")
    with pytest.raises(eckart.Refused, match=words):
        eckart.save_peft(adapter, tmp_path / "p")
    with pytest.raises(eckart.Refused, match=words):
        export_adapter(tmp_path / "a", tmp_path / "p")


def test_the_kernel_that_goes_past_its_layers_is_told(tmp_path: Path) -> None:
    model, _ = zoo()["TransformerEncoder"]()
    adapter = eckart.adapt(model, "lora", rank=1, include=["linear1", "linear2"])
    with pytest.warns(UserWarning, match="nn.TransformerEncoderLayer goes past its layers"):
        eckart.save_peft(adapter, tmp_path / "p")


class Named(nn.Module):
    """Square maps at any dotted names, one behind the other."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.order = sorted(names)
        generator = torch.Generator().manual_seed(0)
        for name in self.order:
            place: nn.Module = self
            *parents, leaf = name.split(".")
            for parent in parents:
                if not hasattr(place, parent):
                    place.add_module(parent, nn.Module())
                place = getattr(place, parent)
            layer = nn.Linear(6, 6, bias=False)
            layer.weight.data = torch.randn(6, 6, generator=generator) / 2
            place.add_module(leaf, layer)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = x + self.get_submodule(name)(x)
        return x


# A leaf is never a parent too.
PATHS = st.tuples(st.lists(st.sampled_from(["a", "b", "m"]), max_size=2), st.sampled_from(["fc", "out_fc", "x"])).map(
    lambda found: ".".join([*found[0], found[1]])
)


@given(st.sets(PATHS, min_size=1, max_size=28), st.data())
@settings(max_examples=15, deadline=None)
def test_peft_attaches_to_just_the_matrices_there_are(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(names)), min_size=1, unique=True))
    ranks = {name: data.draw(st.integers(1, 3)) for name in chosen}
    plain, model = Named(list(names)), Named(list(names))
    parts = [eckart.adapt(model, "lora", rank=r, include=[f"re:^{n}$"], name=f"a{i}") for i, (n, r) in
             enumerate(ranks.items())]  # fmt: skip
    whole = parts[0]
    for part in parts[1:]:
        # One adapter of several ranks.
        for name, place in part.places.items():
            place.activate("")
            place.paths["a0"], place.trains["a0"] = place.paths[part.name], place.trains[part.name]
            whole.places[name], whole.ranks[name] = place, part.ranks[name]
    whole.activate()
    shaken(whole)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    directory = tmp_path_factory.mktemp("names") / "p"
    eckart.save_peft(whole, directory)
    found = theirs(plain, directory)
    attached = {name.removeprefix("base_model.model.") for name, m in found.named_modules() if hasattr(m, "lora_A")}
    assert attached == set(chosen)
    assert close(found(x), model(x).detach(), 1e-5)
    again = Named(list(names))
    eckart.load_adapter(again, directory)
    assert close(again(x).detach(), model(x).detach(), 1e-5)
    eckart.save_adapter(whole, directory.parent / "a")
    export_adapter(directory.parent / "a", directory.parent / "q")
    assert config_of(directory.parent / "q") == config_of(directory)


def test_the_exit_status_says_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_llama()
    adapter = adapted(model, "pissa")
    train(model, adapter)
    eckart.save_adapter(adapter, tmp_path / "a")

    def export(out: str, *options: str) -> int:
        return main(["export", str(tmp_path / "a"), "--to", "peft", "--out", str(tmp_path / out), *options])

    assert export("whole") == 0
    assert close(logits(theirs(tiny_llama(), tmp_path / "whole"), ids()), logits(model, ids()), 1e-5)
    capsys.readouterr()
    assert export("cut", "--rank", "4") == 3
    said = capsys.readouterr().err
    assert "relative error of the conversion: at most" in said
    assert "leave out --rank to lose nothing (exit status 3)" in said
    assert export("enough", "--rank", "8") == 0
    assert main(["export", "--help"]) == 0
    assert "the exit status is 3" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_a_change_that_is_no_thin_product_is_written_when_its_rank_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_llama()
    adapter = adapted(model, "soka")
    train(model, adapter)
    eckart.save_adapter(adapter, tmp_path / "a")
    command = ["export", str(tmp_path / "a"), "--to", "peft", "--out", str(tmp_path / "p")]
    assert main(command) == 2
    assert "ask for a rank" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
    assert main([*command, "--rank", "32"]) == 0
    assert close(logits(theirs(tiny_llama(), tmp_path / "p"), ids()), logits(model, ids()), 1e-5)


@pytest.mark.parametrize("method", OF_RANK_2R)
def test_an_adapter_that_changed_nothing_yet(method: str, tmp_path: Path) -> None:
    model = tiny_llama()
    errors = eckart.save_peft(adapted(model, method), tmp_path)
    assert max(errors.values()) <= EXACT
    assert close(logits(theirs(tiny_llama(), tmp_path), ids()), logits(tiny_llama(), ids()), 1e-6)
