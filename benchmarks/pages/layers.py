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
    "attention-speed": Table(
        "layers",
        {"benchmark": "layers.attention", "part": "speed"},
        [("", "{arm}")],
        [("{tokens:,} tokens", "{milliseconds:.1f} ms")],
    ),
    "attention-accuracy": Table(
        "layers",
        {"benchmark": "layers.attention", "part": "accuracy"},
        [("", "{arm}"), ("accuracy", "{accuracy:%1}"), ("between seeds", "{apart:%1}")],
    ),
    "random-features": Table(
        "layers",
        {"benchmark": "layers.attention", "part": "features"},
        [("", "{arm}")],
        [("{numbers:,} numbers", "{error:.3f}, {accuracy:%1}")],
    ),
    "feature-adapters": Table(
        "layers",
        {"benchmark": "layers.feature_adapters", "part": "adapters"},
        [("pictures", "{change}"), ("", "{arm}"), ("numbers that train", "{numbers:,}"), ("accuracy", "{accuracy:%1}")],
    ),
    "random-cosines": Table(
        "layers",
        {"benchmark": "layers.attention", "part": "cosines"},
        [
            ("length of x and w", "{length}"),
            ("published, expected", "{expected:.3f}"),
            ("published, found", "{error:.3f}"),
            ("saying the mean", "{spread:.4f}"),
            ("64 features by least squares", "{fitted:.4f}"),
        ],
    ),
}
