"""The tables of optimizers."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES = {
    "optim-pictures": Table(
        "optim",
        {"benchmark": "optim.training", "part": "pictures", "stage": ("equal steps", "equal seconds")},
        [("", "{arm}"), ("rate", "{rate:g}")],
        [
            ("{stage}", "{score:.4f} ± {spread:.4f}"),
            ("{stage}, to AdamW", "{change:+.4f} ± {change_stderr:.4f}"),
            ("{stage}, steps", "{steps}"),
        ],
    ),
    "optim-bytes": Table(
        "optim",
        {"benchmark": "optim.steps", "part": "bytes"},
        [("", "{arm}")],
        [("{rows} x {columns}, rank {rank}", "{state:.2f}[ + {shared:.2f}]")],
    ),
}
