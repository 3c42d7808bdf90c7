"""The lines on the cards of kernels."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

KERNELS: list[Lines] = []
