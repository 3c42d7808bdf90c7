"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eckart.cli.app import main
from support.commands import SMALL


@pytest.fixture
def run(texts: tuple[str, str], llama_directory: Path) -> Callable[..., int]:
    """Runs `eckart compress` on the tiny LLaMA; later options win over the short ones put in first."""

    def call(out: Path, *options: str, model: str | Path = llama_directory) -> int:
        given = ["--calibration", texts[0], "--eval", texts[1], "--no-speed", *SMALL]
        return main(["compress", str(model), "--out", str(out), *given, *options])

    return call
