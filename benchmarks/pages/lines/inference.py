"""The lines on the cards of inference."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

INFERENCE = [
    Lines(
        "inference",
        "memory",
        "peak of the activations of a model whose factors kfac stores at {keep:%}, tiles of {tile} tokens, float32, "
        "one thread, without the head",
        {"benchmark": "inference.flash_svd", "part": "a model"},
        "{model}, {batch} x {length}: {peak.tiled:.1f} MB in tiles, {peak.naive:.1f} without, {peak.dense:.1f} dense",
        name="flash-svd",
    ),
    *(
        Lines(
            "inference",
            name,
            "{model} in float32, {sequences} texts of {length} tokens of news (dense perplexity {dense:.2f}), "
            "calibrated on {calibrated} tokens of a mixture; the divergence is from the dense model, in nats a token",
            {"benchmark": "inference.approximate", "part": part},
            line + "perplexity {perplexity:.2f}, divergence {kl:.3f}",
            name=name,
        )
        for name, part, line in (
            ("matryoshka-kv", "low-rank cache", "{keep:%} of the cache, {arm}: "),
            ("fireq-cache", "int4 cache", "{bytes:%1} of the bytes, {arm}: "),
            ("sage-attention2", "integer attention", "{arm}: "),
            ("wina", "skipped columns", "{keep:%} of the inputs, {arm}: "),
        )
    ),
]
