"""The tables of optimizers."""

from __future__ import annotations

from benchmarks.pages.tables import Table

_TEXT = [
    ("{stage}", "{score:.3f} ± {spread:.3f}"),
    ("{stage}, to AdamW", "{change:+.3f} ± {change_stderr:.3f}"),
    ("{stage}, steps", "{steps}"),
]

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
    "optim-text": Table(
        "optim",
        {"benchmark": "optim.training", "part": "text", "stage": ("equal steps", "equal seconds"), "budget": 100},
        [("", "{arm}"), ("rate", "{rate:g}")],
        _TEXT,
    ),
    "optim-larger-text": Table(
        "optim",
        {"benchmark": "optim.training", "part": "larger text", "stage": "equal steps"},
        [
            ("", "{arm}"),
            ("rate", "{rate:g}"),
            ("bytes of state", "{state_bytes:.1f}"),
            ("loss", "{score:.3f} ± {spread:.3f}"),
            ("to AdamW, paired", "{change:+.3f} ± {change_stderr:.3f}"),
            ("processor seconds", "{cpu_seconds:.0f}"),
        ],
    ),
    "optim-larger-seconds": Table(
        "optim",
        {"benchmark": "optim.training", "part": "larger text", "stage": "equal seconds"},
        [
            ("", "{arm}"),
            ("steps", "{steps}"),
            ("loss", "{score:.3f} ± {spread:.3f}"),
            ("to AdamW, paired", "{change:+.3f} ± {change_stderr:.3f}"),
        ],
    ),
    "optim-larger-steps": Table(
        "optim",
        {"benchmark": "optim.training", "part": "larger text", "stage": "seconds"},
        [("", "{arm}"), ("a step, ms", "{mean_ms:.0f}"), ("over AdamW's", "{ratio:.2f}")],
    ),
    "optim-width": Table(
        "optim",
        {"benchmark": "optim.width"},
        [("", "{rule}"), ("width", "{width}")],
        [
            ("rate {rate:g}, wrong", "{wrong:.4f} ± {spread:.4f}"),
            ("rate {rate:g}, singular value", "{gain_ratio:.2f}"),
        ],
    ),
    "optim-bilevel": Table(
        "optim",
        {"benchmark": "optim.bilevel"},
        [("", "{budget}"), ("blocks a step", "{picked}"), ("steps", "{steps:,}")],
        [
            ("{arm}: gap", "[{gap:%1}]"),
            ("{arm}: least to largest", "{least gap:%1} to {largest gap:%1}[, {diverged} of {seeds} without end]"),
            ("{arm}: rate", "{rate:g}"),
        ],
    ),
    "optim-times": Table(
        "optim",
        {"benchmark": "optim.steps", "part": "times"},
        [("", "{arm}")],
        [
            ("{rows} x {columns}, mean", "{mean_ms:.2f}"),
            ("{rows} x {columns}, median", "{median_ms:.2f}"),
            ("{rows} x {columns}, longest", "{longest_ms:.1f}"),
        ],
    ),
    "optim-bytes": Table(
        "optim",
        {"benchmark": "optim.steps", "part": "bytes"},
        [("", "{arm}")],
        [("{rows} x {columns}, rank {rank}", "{state:.2f}[ + {shared:.2f}][, the weight {weight}]")],
    ),
}
