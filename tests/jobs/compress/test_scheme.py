"""A size that every matrix gets, in the word of its method, and options of methods."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import eckart
from eckart.compressors.contract import SIZES
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.dry_run import dry_run
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.texts import Texts
from eckart.models.modules import StructuredLinear
from eckart.structures import Quantized

DATA = [torch.randn(128, 64, generator=torch.Generator().manual_seed(0))]
SAID = {"rank": 8, "bits": 4, "percent": 40, "kept": 2, "terms": 1, "blocks": 4}
SAYABLE = [name for name, card in eckart.METHODS.items() if card.size in SAID]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32))


def short(texts: tuple[str, str]) -> Texts:
    return Texts(*texts, eval_samples=3, eval_length=32)


@pytest.mark.parametrize("method", SAYABLE)
def test_every_matrix_gets_the_size_that_was_said(method: str) -> None:
    word = eckart.METHODS[method].size
    model = net()
    size = 6 if method == "flexq" else SAID[word]  # the one that it has
    said: dict[str, Any] = {word: size}
    result = eckart.compress(model, method, calibration=DATA, **said)
    assert set(result.choice.values()) <= {size, None}
    assert size in result.choice.values()
    left = [name for name, size in result.choice.items() if size is None]
    assert not left or f"{len(left)} of 2 stay dense" in "".join(result.warnings)


def test_groups_and_symmetric_grids_are_what_is_stored() -> None:
    for method in ("rtn", "gptq"):
        model = net()
        eckart.compress(model, method, calibration=DATA, bits=3, group=32, symmetric=True)
        for layer in (model[0], model[2]):
            structure = layer.structure
            assert isinstance(structure, Quantized)
            assert (structure.bits, structure.group, structure.zeros) == (3, 32, None)
    direct = eckart.fit(net()[0].weight, "rtn", bits=3, group=32, symmetric=True)
    model = net()
    eckart.compress(model, "rtn", bits=3, group=32, symmetric=True)
    assert torch.equal(direct.to_dense(), model[0].structure.to_dense())


def test_options_go_with_a_share_too() -> None:
    coarse, fine = (net(), net())
    for model, group in ((coarse, 64), (fine, 16)):
        eckart.compress(model, "rtn", keep=0.3, of="bytes", group=group)
        assert {m.structure.group for m in model.modules() if isinstance(m, StructuredLinear)} == {group}


@pytest.mark.parametrize(
    ("method", "said", "word"),
    [
        ("svd", {"bits": 4}, "'svd' is not asked for by bits=4 but by rank="),
        ("kfac-int8", {"bits": 8}, "by rank="),
        ("rtn", {"rank": 4}, "by bits="),
        ("auto", {"bits": 4}, "takes no bits="),
        ("rtn", {"bits": 4, "keep": 0.5}, "keep=0.5"),
        ("rtn", {"bits": 4, "of": "macs"}, "of='macs'"),
        ("rtn", {"bits": 4, "allocation": "exact"}, "allocation='exact'"),
        ("rtn", {"bits": 4, "floor": 0.2}, "floor=0.2"),
        ("sub-moe", {"rank": 4, "experts": 2}, "two sizes"),
        ("rtn", {"bits": 7}, "it has 2, 3, 4, 5, 6, 8"),
        ("rtn", {"bits": 0}, "bits=0"),
        ("rtn", {"bits": 4.0}, "bits=4.0"),
        ("rtn", {"bits": True}, "bits=True"),
        ("rtn", {"bits": 4, "group": 0}, "group=0"),
        ("svd", {"rank": 8, "group": 64}, "'svd' takes no group=64"),
        ("nf4", {"bits": 4, "symmetric": True}, "its options are group; gptq, rtn take it"),
        ("svd", {"rank": 60}, "for no matrix: it has 1, 2, 3, 4, 5, 6, ..., 30, 31"),
    ],
)
def test_what_cannot_be_is_refused_by_name(method: str, said: dict[str, Any], word: str) -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(eckart.Refused, match=re.escape(word)):
        eckart.compress(model, method, calibration=DATA, **said)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["rtn", "gptq", "nf4"])
def test_no_group_is_refused(method: str) -> None:
    moment = eckart.Statistics(input_second_moment=torch.eye(8))
    with pytest.raises(eckart.Refused, match="group must be an integer of at least 1, got 0"):
        eckart.fit(torch.eye(8), method, bits=4, group=0, statistics=moment)


def test_an_unknown_argument_is_none() -> None:
    with pytest.raises(TypeError, match="kep"):
        eckart.compress(net(), "rtn", kep=1)


def test_every_word_of_sizes_can_be_said_but_a_position() -> None:
    assert {word for word in SIZES if hasattr(Recipe, word)} == set(SIZES) - {"candidate"}


def test_a_loss_and_a_size_are_two_requests(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(eckart.Refused, match=r"max_loss=0.1 searches for sizes, and bits=4"):
        compress_directory(str(llama_directory), tmp_path / "out", Recipe("rtn", bits=4), short(texts), max_loss=0.1)
    with pytest.raises(eckart.Refused, match="max_loss"):
        dry_run(str(llama_directory), Recipe("rtn", bits=4), short(texts), max_loss=0.1)


def test_a_dry_run_of_a_size_comes_true(llama_directory: Path, texts: tuple[str, str], tmp_path: Path) -> None:
    asked = Recipe("rtn", bits=4, group=32, symmetric=True, embeddings=True)
    found = dry_run(str(llama_directory), asked, short(texts))
    assert found["requested"] == {"counts": "bits", "each": 4, "group": 32, "symmetric": True}
    assert found["allocation"] is None
    assert {tuple(row["sizes"]) for row in found["budget"]["matrices"]} == {(4,)}
    report = compress_directory(str(llama_directory), tmp_path / "out", asked, short(texts), measure_speed=False)
    assert 0 <= report["size"]["bytes"]["after"] - found["budget"]["size"]["bytes"]["after"] < 20_000


def test_a_word_of_sizes_that_is_an_option_of_the_method() -> None:
    model = net()
    eckart.compress(model, "lq-lora", bits=4, rank=2, calibration=DATA)
    parts = [m.structure.operands()[1] for m in model.modules() if isinstance(m, StructuredLinear)]
    assert {part.operands()[0].shape[1] for part in parts} == {2}
