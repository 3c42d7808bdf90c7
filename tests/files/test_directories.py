"""Directories that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from eckart.errors import Refused
from eckart.files.directories import STATE, new_directory


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()  # as a kill would leave it
    (tmp_path / "out.partial" / "half").touch()
    with new_directory(tmp_path / "out") as partial:
        assert not list(partial.iterdir())
        (partial / "a").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_an_interrupted_run_is_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / STATE).write_text("{}")
    with pytest.raises(Refused, match="finish it with its own command and --resume"), new_directory(tmp_path / "out"):
        pytest.fail("it was thrown away")
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]


def test_two_cannot_make_the_same_directory(tmp_path: Path) -> None:
    second = new_directory(tmp_path / "out")
    with new_directory(tmp_path / "out"), pytest.raises(Refused, match=r"out is being made by process"), second:
        pytest.fail("both make it")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> None:
        with new_directory(tmp_path / "out") as partial:
            (partial / "a").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not list(tmp_path.iterdir())
