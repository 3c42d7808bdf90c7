"""Statistics kept between runs, and passes over what memory holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eckart.models.sites import find_sites
from eckart.statistics import Need, collect, statistics_for
from eckart.statistics.cache import cache_directory
from eckart.statistics.sample import SAMPLED_PAIRS
from support.statistics import ALL, SOME, assert_same, modules_of, tokens
from support.tiny import tiny_llama


def test_memory_splits_the_work_into_passes() -> None:
    model = tiny_llama()
    modules = {site.name: site.module for site in find_sites(model)}
    batches = [tokens(2, 9), tokens(2, 9, seed=1)]
    whole, passes = statistics_for(model, modules, ALL, batches)
    assert passes == 1
    ticks: list[tuple[int, int]] = []
    memory = 8 * 3 * (64**2 + 32**2) + 3 * 4 * SAMPLED_PAIRS * (64 + 32)
    some, passes = statistics_for(model, modules, ALL, batches, memory=memory, on_progress=lambda *t: ticks.append(t))
    assert 1 < passes < len(modules)
    assert ticks == [(i + 1, 2 * passes) for i in range(2 * passes)]
    single, passes = statistics_for(model, modules, ALL, batches, memory=1)
    assert passes == len(modules)
    assert list(single) == list(some) == list(modules)
    assert_same(some, whole, rtol=1e-6)
    assert_same(single, whole, rtol=1e-6)


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


@pytest.mark.parametrize("memory", [None, 1])
def test_the_cache_saves_the_second_pass(tmp_path: Path, memory: int | None) -> None:
    model = tiny_llama()
    modules = modules_of(model, SOME)
    batches = [tokens(2, 6)]
    first, passes = statistics_for(model, modules, ALL, batches, cache=tmp_path, memory=memory)
    assert passes == len(files(tmp_path)) == (1 if memory is None else len(SOME))
    second, passes = statistics_for(model, modules, ALL, batches, cache=tmp_path, memory=memory)
    assert passes == 0
    for name, entry in first.items():
        assert second[name].tokens == entry.tokens
        for need in Need:
            # Bit for bit: an interrupted job that goes on must choose as it would have.
            assert torch.equal(getattr(entry, need.value), getattr(second[name], need.value)), (name, need)
    if memory is None:
        assert second[SOME[0]].input_mean is second[SOME[1]].input_mean
    assert_same(second, collect(model, modules, ALL, batches), rtol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "foreign", "number", "tokens", "renamed"])
def test_a_damaged_cache_file_is_made_again(tmp_path: Path, damage: str) -> None:
    from safetensors.torch import save_file

    model = tiny_llama()
    modules = modules_of(model, SOME)
    statistics_for(model, modules, ALL, [tokens(2, 6)], cache=tmp_path)
    (file,) = files(tmp_path)
    data = file.read_bytes()
    changed = {
        "cut": data[: len(data) // 2],
        "garbage": b"\xff" * 200,
        "empty": b"",
        "number": data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
        "tokens": data.replace(b'\\"tokens\\": 12', b'\\"tokens\\": 13', 1),
    }
    if damage == "foreign":
        save_file({"x": torch.ones(2)}, file)
    elif damage == "renamed":
        statistics_for(model, modules, ALL, [tokens(2, 6, seed=1)], cache=tmp_path / "other")
        (other,) = files(tmp_path / "other")
        other.replace(file)
        (tmp_path / "other").rmdir()
    else:
        assert changed[damage] != data
        file.write_bytes(changed[damage])
    found, passes = statistics_for(model, modules, ALL, [tokens(2, 6)], cache=tmp_path)
    assert passes == 1
    assert_same(found, collect(model, modules, ALL, [tokens(2, 6)]), rtol=1e-6)
    assert files(tmp_path) == [file]
    again, passes = statistics_for(model, modules, ALL, [tokens(2, 6)], cache=tmp_path)
    assert passes == 0
    assert_same(again, found, rtol=0)


def test_the_cache_goes_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ECKART_CACHE", str(tmp_path / "a"))
    assert cache_directory() == tmp_path / "a"
    monkeypatch.delenv("ECKART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_directory() == tmp_path / "b" / "eckart"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "eckart"
