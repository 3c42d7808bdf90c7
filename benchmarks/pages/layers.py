"""The tables of layers and losses."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES = {
    "cross-entropy": Table(
        "layers",
        {"benchmark": "layers.cross_entropy"},
        [("tokens x d", "{tokens:,} x {width}"), ("dtype", "{dtype}"), ("logits", "{arm}")],
        [("megabytes", "{megabytes:,.0f}"), ("processor seconds", "{cpu_seconds:.2f}"), ("loss", "{loss:.5f}")],
    ),
}
