"""The lines on the cards of estimators and solvers."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

ESTIMATORS: list[Lines] = []
