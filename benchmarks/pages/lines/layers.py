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
    Lines(
        "layers",
        "attention",
        "forward and backward pass of a layer of width {width}, one thread of a CPU",
        {"benchmark": "layers.attention", "part": "speed", "tokens": 4096},
        "{tokens:,} tokens, {arm}: {milliseconds:.0f} ms",
        together="; ",
    ),
    Lines(
        "layers",
        "accuracy",
        "Fashion-MNIST as {tokens} tokens, one block trained on {train:,} pictures",
        {"benchmark": "layers.attention", "part": "accuracy"},
        "{arm}: {accuracy:%1}",
        together="; ",
    ),
    Lines(
        "layers",
        "features",
        "in the place of a trained layer {layer}: relative error and accuracy on Fashion-MNIST",
        {"benchmark": "layers.attention", "part": "features", "numbers": (65536, 200704)},
        "{arm}, {numbers:,} numbers: {error:.3f}, {accuracy:%1}",
        together="; ",
    ),
]
