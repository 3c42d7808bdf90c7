"""Models of which one block is in memory at a time: the same result as that of the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.jobs.compress.blockwise.run import check_blockwise, opened_files, run_blockwise
from eckart.jobs.compress.compression import Compression
from eckart.jobs.compress.recipe import Recipe
from eckart.jobs.compress.run import run
from eckart.models.checkpoint import read_tensors, state, weight_files
from eckart.progress import Laps, silent
from support.zoo import zoo
from tests.support.elsewhere import DEVICE, elsewhere

METHODS: dict[str, dict[str, Any]] = {
    "rtn": {"bits": 4},
    "wanda": {"percent": 50},
    "gptq": {"bits": 3},
    "svd": {"keep": 0.7, "of": "linear-parameters"},
    "kfac": {"keep": 0.7, "of": "linear-parameters"},
}
CPU = torch.device("cpu")
CLASSES = ("Qwen2", "Gemma3", "Phi3", "Falcon", "GPT2", "OPT")


def blockwise(
    name: str, recipe: Recipe, directory: Path, limit: int = 10_000, device: torch.device = CPU
) -> tuple[dict[str, Tensor], Compression]:
    """The tensors that are written of a model that is read block by block, and what is said of it."""
    model, batch = zoo()[name]()
    model.save_pretrained(directory / "dense")  # type: ignore[operator]
    read: nn.Module = type(model).from_pretrained(directory / "dense").eval()  # type: ignore[attr-defined]
    for part in ("finished", "out"):
        (directory / part).mkdir(exist_ok=True, parents=True)
    files = opened_files(read, recipe, weight_files(directory / "dense"), device)
    found, shards = run_blockwise(
        read,
        files,
        recipe,
        [batch, batch],
        {},
        directory / "finished",
        limit=limit,
        scheduler=None,
        lap=Laps(),
        progress=silent,
    )
    shards.place(directory / "out")
    return read_tensors(directory / "out"), found


def whole(name: str, recipe: Recipe) -> tuple[dict[str, Tensor], Compression]:
    model, batch = zoo()[name]()
    found = run(model, recipe, [batch, batch], {})
    return state(model), found


def same(name: str, recipe: Recipe, directory: Path) -> None:
    got, of_blocks = blockwise(name, recipe, directory)
    wanted, at_once = whole(name, recipe)
    assert got.keys() == wanted.keys()
    for key in wanted:
        assert torch.equal(got[key], wanted[key]), key
    assert of_blocks.choice == at_once.choice
    assert of_blocks.errors == pytest.approx(at_once.errors, rel=1e-6)
    assert of_blocks.coverage == at_once.coverage


@pytest.mark.parametrize(
    ("name", "method"),
    [("Llama", method) for method in METHODS]
    + [(name, method) for name in CLASSES for method in ("gptq", "kfac")]
    + [("GPT2", "wanda"), ("Gemma3", "svd"), ("Falcon", "rtn")],
)
def test_is_to_the_bit_what_the_whole_model_becomes(name: str, method: str, tmp_path: Path) -> None:
    same(name, Recipe(method=method, **METHODS[method]), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "gptq", "bits": 4, "head": True, "embeddings": True},
        {"method": "kfac", "keep": 0.6, "of": "bytes", "head": True, "embeddings": True},
        {"method": "fwsvd", "rank": 4, "include": ("re:1.mlp", "re:head"), "head": True},
        {"method": "wanda", "keep": 0.6, "of": "bytes", "allocation": "greedy"},
        {"method": "modegpt", "keep": 0.7, "of": "bytes"},
        {"method": "kfac", "keep": 0.7, "head": True, "mixed_precision": True},
    ],
    ids=lambda options: str(options["method"]),
)
def test_matrices_outside_of_blocks_and_groups_of_matrices(options: dict[str, Any], tmp_path: Path) -> None:
    same("Qwen2", Recipe(**options), tmp_path)  # whose head is tied to its embedding


def test_a_head_and_an_embedding_of_their_own(tmp_path: Path) -> None:
    same("Llama", Recipe(method="kfac", keep=0.6, embeddings=True, head=True), tmp_path)


def test_one_pass_for_each_matrix_where_statistics_are_large(tmp_path: Path) -> None:
    """With room for the statistics of one matrix, blocks are run several times and nothing changes."""
    recipe = Recipe(method="kfac", rank=4)
    few, _ = blockwise("Llama", recipe, tmp_path, limit=1)
    (tmp_path / "again").mkdir()
    many, _ = blockwise("Llama", recipe, tmp_path / "again", limit=10**9)
    assert all(torch.equal(few[name], many[name]) for name in many)


def test_only_one_block_is_there_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eckart.models.block_files import BlockFiles

    there: list[int] = []
    load = BlockFiles.loaded

    def counted(files: BlockFiles, model: nn.Module, block: int) -> Any:
        context = load(files, model, block)
        real = [n for n, p in model.named_parameters() if ".layers." in n and not p.is_meta]
        there.append(len(real))
        return context

    monkeypatch.setattr(BlockFiles, "loaded", counted)
    for recipe in (Recipe(method="kfac", keep=0.7), Recipe(method="gptq", bits=4)):
        (tmp_path / recipe.method).mkdir()
        blockwise("Llama", recipe, tmp_path / recipe.method)
    assert len(there) > 8
    assert not any(there)


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("Llama", "gptq", {}),
        ("Llama", "kfac", {}),
        ("Qwen2", "wanda", {}),
    ],
)
def test_blocks_on_another_device_become_what_they_do_on_the_cpu(
    name: str, method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe(method=method, **METHODS[method], **options)
    with elsewhere():
        (there, of_there), (here, of_here) = (
            blockwise(name, recipe, tmp_path / device.type, device=device) for device in (DEVICE, CPU)
        )
    assert of_there.choice == of_here.choice
    assert of_there.errors == pytest.approx(of_here.errors, rel=1e-3)
    assert there.keys() == here.keys()
    assert {tensor.device for tensor in there.values()} == {CPU}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("T5", "the decoder of T5ForConditionalGeneration reads more than"),
        ("Mixtral", "is not stored under that name and in that form"),
        ("ResNet", "cannot be worked on block by block"),
        ("CLIP", "reaches the output of CLIPModel past the hidden states"),
    ],
)
def test_what_cannot_be_walked_through_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=words):
        blockwise(name, Recipe(method="kfac"), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "auto"},
        {"sequential": True},
        {"heal": 3},
        {"distill": 3},
        {"rotate": True},
        {"of": "decode-time"},
        {"allocation": "farms"},
        {"allocation": "influence"},
    ],
    ids=str,
)
def test_requests_about_the_whole_model_are_refused_by_name(options: dict[str, Any]) -> None:
    recipe = Recipe(**{"method": "kfac", **options})
    (word,) = options
    with pytest.raises(Refused, match=f"{word}=.* works on the whole model at once"):
        check_blockwise(recipe, None)


def test_a_loss_is_refused_by_name() -> None:
    with pytest.raises(Refused, match=r"max_loss=0\.1"):
        check_blockwise(Recipe(method="kfac"), 0.1)
    check_blockwise(Recipe(method="kfac"), None)


def test_layers_that_share_a_basis_are_not_read_one_by_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="fits matrices of several blocks together"):
        blockwise("Llama", Recipe(method="basis-sharing"), tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import support.zoo as animals

    made, batch = zoo()["Llama"]()
    with torch.no_grad():
        made.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")  # type: ignore[union-attr,index]
    monkeypatch.setattr(animals, "_ZOO", {"Llama": lambda: (made, batch)})
    with pytest.raises(Refused, match=r"model.layers.1.mlp.up_proj.weight has 1 NaN"):
        blockwise("Llama", Recipe(method="rtn", bits=4), tmp_path)
