"""The lines on the cards of inference."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

INFERENCE = [
    Lines(
        "inference",
        "polynomial error",
        "a causal head of {size}, 1024 tokens, queries of a LoRA, relative error of the output and of its gradients",
        {"benchmark": "inference.polynomial_attention", "part": "error", "degree": 2, "bound": (0.5, 2.0, 8.0)},
        "{output:short} and {gradient:short} at scores bounded by {bound:g}",
        name="lora-fast-gradient",
        together=", ",
        words="degree 2: ",
    ),
    Lines(
        "inference",
        "polynomial time",
        "forward and backward pass of a causal head of 64 over those of PyTorch's, processor time of one thread",
        {
            "benchmark": "inference.polynomial_attention",
            "part": "time",
            "size": 64,
            "degree": 2,
            "tokens": (2048, 8192, 32768),
        },
        "{ratio:.1f} at {tokens:,} tokens",
        name="lora-fast-gradient",
        together=", ",
        words="degree 2: ",
    ),
    Lines(
        "inference",
        "polynomial models",
        "the largest |q| times the largest |k| of the attentions of trained models, degree 2 being allowed up to 0.64",
        {"benchmark": "inference.polynomial_attention", "part": "models"},
        "{model}: {bound.least:.0f} to {bound.largest:.0f}, for the least of them degree {degree.least}",
        name="lora-fast-gradient",
    ),
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
