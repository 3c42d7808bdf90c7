"""The tables of what works with which class of model."""

from __future__ import annotations

from benchmarks.pages.tables import Table

_STEPS = {"benchmark": "models.support"}

TABLES = {
    "support": Table("models", _STEPS, [("", "{class}")], [("{step}", "{works}")]),
    "support-refusals": Table(
        "models", {**_STEPS, "works": "no"}, [("", "{class}"), ("", "{step}"), ("what it says", "{says}")]
    ),
    "support-coverage": Table(
        "models", {**_STEPS, "step": "kfac", "works": "yes"}, [("", "{class}"), ("what was looked at", "{says}")]
    ),
}
