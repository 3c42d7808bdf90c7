"""Texts to train on, and few to judge by."""

from __future__ import annotations

import pytest

from support.commands import prose


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two files of text with nothing in common: to learn, and to judge by after every few steps."""
    directory = tmp_path_factory.mktemp("lessons")
    for seed, (name, lines) in enumerate((("learned.txt", 200), ("judged.txt", 30)), 1):
        (directory / name).write_text(prose(seed, lines), "utf-8")
    return str(directory / "learned.txt"), str(directory / "judged.txt")
