"""The tables of kernels and what is built on them."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES: dict[str, Table] = {}
