"""What all tests share: a cache of their own, one thread, no network, and tiny models and texts on disk."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import pytest
import torch

from support.commands import prose

torch.set_num_threads(1)

NUMBERS = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: at the end a worker would run it alone."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of statistics for each test, which is not there yet: most tests need none."""
    directory = tmp_path_factory.getbasetemp() / "caches" / str(next(NUMBERS))
    monkeypatch.setenv("ECKART_CACHE", str(directory))
    return directory


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two files of text with nothing in common: for calibration, and for evaluation."""
    directory = tmp_path_factory.mktemp("texts")
    for seed, name in enumerate(("calibration.txt", "evaluation.txt"), 1):
        (directory / name).write_text(prose(seed, 200), "utf-8")
    return str(directory / "calibration.txt"), str(directory / "evaluation.txt")


@pytest.fixture(scope="session")
def llama_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaMA with tied embeddings and its tokenizer, as transformers saves them. Not to be changed."""
    from support.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 and its tokenizer. Not to be changed."""
    from support.tiny import save_tiny, tiny_gpt2

    return save_tiny(tmp_path_factory.mktemp("gpt2"), tiny_gpt2())
