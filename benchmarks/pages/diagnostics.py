"""The tables of diagnostics: beside their peers, and at work."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES = {
    "weightwatcher": Table(
        "diagnostics",
        {"benchmark": "diagnostics.weightwatcher", "part": "seconds"},
        [
            ("", "{of}"),
            ("WeightWatcher", "{theirs:.2f}"),
            ("eckart", "{ours:.2f}"),
            ("ratio", "{ratio:.1f}"),
        ],
    ),
    "intruders": Table(
        "diagnostics",
        {"benchmark": "diagnostics.intruders", "rank": 1, "rate": 0.01},
        [
            ("scaled by", "{scale:g}"),
            ("intruders", "{intruders.accuracy:.4f} ({intruders.drift:.3f})"),
            ("all of the change", "{change.accuracy:.4f} ({change.drift:.3f})"),
        ],
    ),
    "embeddings": Table(
        "diagnostics",
        {"benchmark": "diagnostics.embeddings", "part": "sentences"},
        [("pairs", "{pairs}")],
        [("{kernel}", "{share:.3f} ± {spread:.3f}"), ("{kernel}, shuffled", "{shuffled:.3f}")],
    ),
    "scendi": Table(
        "diagnostics",
        {"benchmark": "diagnostics.embeddings", "part": "scendi"},
        [
            ("pairs", "{pairs}"),
            ("kernel", "{kernel}"),
            ("theirs", "{theirs.seconds:.3f}"),
            ("eckart", "{ours.seconds:.3f}"),
            ("ratio", "{ratio:.0f}"),
            ("unexplained nats, theirs and ours", "{theirs.unexplained:.4f}, {ours.unexplained:.4f}"),
        ],
    ),
}
