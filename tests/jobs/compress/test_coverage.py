"""Coverage: every matrix is counted once, and what is left says why."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from eckart.jobs.compress.coverage import coverage
from eckart.jobs.compress.recipe import Recipe
from support.tiny import tiny_gpt2, tiny_llama


def whys(found: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["why"] for row in found["matrices"]}


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_all_linear_maps_are_taken_and_the_rest_says_why(make: Any) -> None:
    model = make()
    found = coverage(model, Recipe())
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert sum(row["parameters"] for row in found["matrices"]) == matrices
    assert found["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    taken = sum(row["parameters"] for row in found["matrices"] if row["taken"])
    assert found["parameters"]["taken"] == found["linear_parameters"]["taken"] == taken
    assert all(row["taken"] == (not row["why"]) for row in found["matrices"])
    assert "an embedding: --embeddings takes it" in whys(found).values()


def test_patterns_and_the_head() -> None:
    model = tiny_llama()
    found = coverage(model, Recipe(exclude=("re:layers.0", "k_proj"), embeddings=True, of="parameters"))
    reasons = whys(found)
    assert reasons["model.layers.*.self_attn.k_proj"] == "left out by --include or --exclude"
    assert reasons["model.embed_tokens"] == ""
    assert found["linear_parameters"]["taken"] < found["parameters"]["taken"]
    kinds = [row for row in found["matrices"] if row["name"] == "model.layers.*.self_attn.q_proj"]
    assert {row["taken"] for row in kinds} == {True, False}


def test_what_is_no_matrix() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(8, 4), nn.Bilinear(4, 4, 2))
    rows = coverage(model, Recipe())["matrices"]
    assert [(row["shape"], row["why"]) for row in rows] == [
        ((8, 4, 3, 3), "a convolution in 2 groups"),
        ((4, 8), ""),
        ((2, 4, 4), "Bilinear is no layer that is known to multiply by it"),
    ]
