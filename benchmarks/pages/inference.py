"""The tables of what compressed models and their layers cost when they run."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES = {
    "decoding": Table(
        "inference",
        {"benchmark": "inference.decoding", "part": "a matrix"},
        [
            ("matrix", "{matrix}"),
            ("structured", "[{structured} of {count}]"),
            ("dense µs", "{dense_us:.1f}"),
            ("compressed µs", "{compressed_us:.1f}"),
            ("time ratio", "{time_ratio:.3f}"),
            ("bytes ratio", "[{bytes_ratio:.3f}]"),
        ],
    ),
    "speed": Table(
        "inference",
        {"benchmark": "inference.decoding", "part": "a model"},
        [
            ("", "{phase}"),
            ("dense, tokens/s", "{dense:.1f}"),
            ("compressed, tokens/s", "{compressed:.1f}"),
            ("ratio", "{ratio:.2f}"),
        ],
    ),
    "overhead": Table(
        "inference",
        {"benchmark": "structures.overhead"},
        [("64 x 64, one thread", "{arm}"), ("µs a call", "{us:.2f}")],
    ),
    "flash-svd": Table(
        "inference",
        {"benchmark": "inference.flash_svd", "part": "a model"},
        [
            ("", "{model}, {batch} x {length}"),
            ("dense", "{peak.dense:.1f}"),
            ("factors", "{peak.naive:.1f}"),
            ("factors tiled", "{peak.tiled:.1f}"),
            ("against factors", "{to_naive:+%}"),
            ("against dense", "{to_dense:+%}"),
        ],
    ),
}
