"""Rows over seeds."""

from __future__ import annotations

from benchmarks.common.seeds import medians


def test_what_differs_in_its_seed_only_is_one_row() -> None:
    found = [
        ({"arm": "a", "seed": 0}, {"error": 1.0}),
        ({"arm": "b", "seed": 0}, {"error": 9.0}),
        ({"arm": "a", "seed": 1}, {"error": 5.0, "rare": 2.0}),
        ({"arm": "a", "seed": 2}, {"error": 3.0}),
    ]
    assert list(medians(found)) == [
        ({"arm": "a", "seeds": 3}, {"error": 3.0, "rare": 2.0}),
        ({"arm": "b", "seeds": 1}, {"error": 9.0}),
    ]
