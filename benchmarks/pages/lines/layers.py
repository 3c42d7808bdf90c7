"""The lines on the cards of layers and losses."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

LAYERS = [
    Lines(
        "layers",
        "loss",
        "{tokens:,} tokens over {classes:,} classes, one thread of a CPU: memory and processor seconds of a step",
        {"benchmark": "layers.cross_entropy"},
        "d {width}, {dtype}, {arm}: {megabytes:,.0f} MB, {cpu_seconds:.2f} s",
        name="cut-cross-entropy",
    ),
]
