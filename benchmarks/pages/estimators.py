"""The tables of estimators and solvers."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES: dict[str, Table] = {}
