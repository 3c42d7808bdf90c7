"""The tables of what compressed models and their layers cost when they run."""

from __future__ import annotations

from benchmarks.pages.tables import Table


def _shares(part: str, what: str) -> Table:
    """An arm a line; perplexity and divergence at each share that is kept."""
    return Table(
        "inference",
        {"benchmark": "inference.approximate", "part": part},
        [("", "{arm}")],
        across=[(f"{{keep:%}} of {what}", "{perplexity:.2f} ({kl:.3f})")],
    )


def _arms(part: str, *more: tuple[str, str]) -> Table:
    return Table(
        "inference",
        {"benchmark": "inference.approximate", "part": part},
        [
            ("", "{arm}"),
            *more,
            ("perplexity", "{perplexity:.2f}"),
            ("change of the loss", "{change:+.4f} ± {change_stderr:.4f}"),
            ("divergence", "{kl:.4f}"),
        ],
    )


def _products(rows: int, instructions: str = "AVX512") -> Table:
    """An arm a line; the ratio to the dense product at each batch and number of threads."""
    return Table(
        "inference",
        {"benchmark": "inference.products", "rows": rows, "instructions": instructions},
        [("", "{arm}"), ("bytes", "{bytes_ratio:.2f}")],
        [("batch {batch}[, {threads} threads]", "{ratio:.2f}")],
    )


TABLES = {
    "low-rank-cache": _shares("low-rank cache", "the cache"),
    "trained-cache": _shares("trained cache", "the cache"),
    "polynomial-error": Table(
        "inference",
        {"benchmark": "inference.polynomial_attention", "part": "error"},
        [("degree", "{degree}"), ("features", "{features:,}"), ("within a tenth up to", "{allowed:.2f}")],
        across=[("up to {bound:g}", "{output:short}; {gradient:short}")],
    ),
    "polynomial-time": Table(
        "inference",
        {"benchmark": "inference.polynomial_attention", "part": "time"},
        [("size of the head, degree", "{size}, {degree}"), ("features", "{features:,}")],
        across=[("{tokens:,} tokens", "{ratio:.1f}")],
    ),
    "polynomial-models": Table(
        "inference",
        {"benchmark": "inference.polynomial_attention", "part": "models"},
        [
            ("", "{model}"),
            ("attentions", "{attentions}"),
            ("bound of the scores, least", "{bound.least:.1f}"),
            ("median", "{bound.median:.1f}"),
            ("largest", "{bound.largest:.1f}"),
            ("largest score, least", "{score.least:.1f}"),
            ("median ", "{score.median:.1f}"),
            ("degree for the least", "{degree.least}"),
            ("features of that, power of ten", "{log10_features:.0f}"),
        ],
    ),
    "int4-cache": _arms("int4 cache", ("bytes of the cache", "{bytes:%1}")),
    "integer-attention": _arms("integer attention"),
    "skipped-columns": _shares("skipped columns", "the inputs"),
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
    "products-4096": _products(4096),
    "products-1536": _products(1536),
    "products-avx2": _products(4096, "AVX2"),
    "products-amx": _products(4096, "AVX512, AMX"),
    "whole-models": Table(
        "inference",
        {"benchmark": "inference.whole_models"},
        [("", "{arm}"), ("bytes", "{bytes_ratio:.2f}")],
        [
            ("decoding, threads: {threads}", "{decode_ratio:.2f}"),
            ("reading, threads: {threads}", "{prefill_ratio:.2f}"),
        ],
        [("perplexity", "{perplexity:.2f}"), ("divergence", "{kl:.3f}"), ("peak, MB", "{peak_mb:.0f}")],
    ),
    "same-tokens": Table(
        "inference",
        {"benchmark": "inference.same_tokens"},
        [
            ("", "{arm}"),
            ("structure", "{structures}"),
            ("the same tokens, of 200", "{same}"),
            ("then the two likeliest logits are apart by", "[{gap:.1e}]"),
            ("and logits differ by at most", "[{difference:.1e}]"),
        ],
    ),
    "overhead": Table(
        "inference",
        {"benchmark": "structures.overhead"},
        [("64 x 64, one thread", "{arm}"), ("µs a call", "{us:.2f}")],
    ),
    "half-passes": Table(
        "inference",
        {"benchmark": "inference.half_passes"},
        [
            ("", "{dtype}, {pass}"),
            ("instructions", "{instructions}"),
            ("PyTorch", "{plain:.1f}"),
            ("eckart", "{wide:.1f}"),
            ("ratio", "{ratio:.2f}"),
        ],
    ),
    "mixed-passes": Table(
        "inference",
        {"benchmark": "inference.mixed_passes"},
        [
            ("", "{arm}"),
            ("seconds, inputs", "{seconds.inputs:.1f}"),
            ("seconds, gradients too", "{seconds.inputs and gradients:.1f}"),
            ("E[x xᵀ], median", "{change.input.median:.1e}"),
            ("at most", "{change.input.largest:.1e}"),
            ("E[g gᵀ], median", "{change.gradient.median:.1e}"),
            ("and at most", "{change.gradient.largest:.1e}"),
            ("error of the plan, more by", "{error:%1}"),
        ],
    ),
    "flash-svd": Table(
        "inference",
        {"benchmark": "inference.flash_svd", "part": "a model"},
        [("", "{model}, {batch} x {length}")],
        across=[
            ("dense", "{peak.dense:.1f}"),
            ("factors", "{peak.naive:.1f}"),
            ("factors tiled", "{peak.tiled:.1f}"),
            ("against factors", "{to_naive:+%}"),
            ("against dense", "{to_dense:+%}"),
            ("ms, dense", "{ms.dense:.0f}"),
            ("ms, factors", "{ms.naive:.0f}"),
            ("ms, factors tiled", "{ms.tiled:.0f}"),
        ],
    ),
    "flash-svd-rank": Table(
        "inference",
        {"benchmark": "inference.flash_svd", "part": "over the rank"},
        [("", "{out} x {columns}, rank {rank}")],
        across=[
            ("held, whole", "{held.whole:.2f}"),
            ("held, blocks of 64", "{held.64:.2f}"),
            ("touched, whole", "{touched.whole:.1f}"),
            ("touched, blocks of 64", "{touched.64:.1f}"),
            ("ms, whole", "{ms.whole:.2f}"),
            ("ms, blocks of 64", "{ms.64:.2f}"),
        ],
    ),
}
