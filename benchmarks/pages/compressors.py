"""The tables of what compressors give, family by family of models."""

from __future__ import annotations

from benchmarks.pages.tables import Heads, Table

KEPT = ("kept", "{keep:%}")
METHOD = ("method", "{method:code}")
NEWS = "{scores.news.value:perplexity} ({scores.news.distance:.3f})"
SIZES: Heads = [("{keep:%}", NEWS)]
MEAN_CPU = ("CPU s", "{mean_cpu_seconds:.0f}")
CPU = ("CPU s", "{cpu_seconds:.0f}")
MB = ("MB", "{megabytes:.0f}")
ENCODER: Heads = [
    ("method", "{method:code}[, {bits} bits]"),
    ("kept", "{keep:.2f}"),
    ("MB", "{megabytes:.1f}"),
    ("Spearman", "{scores.STS.value:.4f} ± {scores.STS.stderr:.4f}"),
    ("drift", "{scores.STS.distance:.4f}"),
]
CLICKS = {"benchmark": "compressors.clicks", "log": "ml-100k", "seeds": 3, "tuned": None}
CHANGES: Heads = [("{keep:%}", "{change:+.5f} ± {change_stderr:.5f} ({change_spread:.5f})")]
QUALITY = {"benchmark": "compressors.quality"}
METHODS = {"benchmark": "compressors.methods"}
ENCODERS = {"benchmark": "compressors.encoders"}


def _of(select: dict[str, object], left: Heads, across: Heads = (), right: Heads = ()) -> Table:
    return Table("compressors", select, left, across, right)


def _faces(net: str) -> Table:
    return _of(
        {"benchmark": "compressors.convolution", "model": net, "of": "parameters"},
        [("kept of the parameters", "{keep:%}")],
        [("{method:code}", "{kl:.4f}")],
    )


TABLES = {
    "quality": _of(
        {**QUALITY, "calibrated on": (None, "mixture")},
        [KEPT, METHOD],
        [("{judge}", "{perplexity:.2f}[ ± {stderr:.2f}][ ({rise:.3f})]")],
    ),
    "quality-novel": _of(
        {**QUALITY, "calibrated on": "a novel", "judge": "a novel"},
        [KEPT],
        [("{method:code}", "{perplexity:.2f}[ ({rise:.3f})]")],
    ),
    "quality-calibration": _of(
        {**QUALITY, "keep": (1.0, 0.8), "method": ("dense", "svd-llm", "kfac")},
        [("calibrated on", "[{calibrated on}]"), METHOD],
        [("{judge}", "{perplexity:.2f}[ ({times:.2f} \N{MULTIPLICATION SIGN})]")],
    ),
    "quantizers": _of(
        {"benchmark": "compressors.quantizers", "model": "all-MiniLM-L6-v2"},
        [("bits", "{bits}"), ("MB", "{megabytes:.3f}")],
        [("{method:code} seen", "{seen:.4f}"), ("{method:code} unseen", "{unseen:.4f}")],
    ),
    "few-bits": _of(
        {"benchmark": "compressors.few_bits"},
        [METHOD, ("bits a weight", "{bits:.3f}"), ("KL", "{kl:.4f} ± {stderr:.4f}")],
    ),
    "vectors": _of(
        {"benchmark": "compressors.vector_codebooks"},
        [
            ("codes of", "{arm}"),
            ("bits a weight", "{stored bits:.3f}"),
            ("error", "{unseen:.4f}"),
            ("by that of `gptq`", "{beside gptq.mean:.3f} ± {beside gptq.stderr:.3f}"),
            ("seconds", "{seconds:.1f}"),
        ],
    ),
    "planes": _of(
        {"benchmark": "compressors.products", "method": "bitplane-int"},
        [("planes of weights", "{planes}")],
        [("{input planes} of inputs", "{of dense:.2f} ({of int4:.2f}, {of tables:.2f})")],
    ),
    "panels": _of(
        {"benchmark": "compressors.products", "method": "flash-llm-spmm"},
        [("zeros", "{zeros:%}"), ("bytes", "{bytes_of_16_bits:.2f}")],
        [("{batch} vectors", "{float32:.2f}, {bfloat16:.2f} ({torch:.2f}, {scipy:.2f})")],
    ),
    "schemes": _of(
        {"benchmark": "compressors.schemes", "rotated": (False, True)},
        [
            METHOD,
            ("size", "[{bits:.0f} bits][{percent:.0f} % of the entries][{keep:%} of the numbers]"),
            ("bits a weight", "{bits a weight:.2f}"),
        ],
        [("{rotated:turned}", "{perplexity:.2f} ± {stderr:.2f} ({kl:.4f} ± {kl_stderr:.4f})")],
    ),
    "methods-sizes": _of(
        {**METHODS, "model": "smollm2", "run": "by size", "of": "linear-parameters"},
        [METHOD],
        SIZES,
        [MEAN_CPU],
    ),
    "methods-sizes-bytes": _of(
        {**METHODS, "model": "smollm2", "run": "by size", "of": "bytes"},
        [METHOD],
        SIZES,
        [MEAN_CPU],
    ),
    "methods": _of(
        {**METHODS, "model": "smollm2", "run": "all", "of": "linear-parameters"}, [METHOD], SIZES, [MB, CPU]
    ),
    "methods-bytes": _of({**METHODS, "model": "smollm2", "run": "all", "of": "bytes"}, [METHOD], SIZES, [MB, CPU]),
    "methods-added": _of({**METHODS, "model": "smollm2", "run": "added", "of": "bytes"}, [METHOD], SIZES, [MB, CPU]),
    "methods-groups": _of({**METHODS, "model": "smollm2", "run": "groups", "of": "bytes"}, [METHOD], SIZES, [CPU]),
    "essential": _of(
        {"benchmark": "compressors.essential"},
        [
            METHOD,
            ("knee", "{knee:%}"),
            ("middle 95 %", "{knee_low:%} to {knee_high:%}"),
            ("texts", "{texts} x {length}"),
            ("dense loss", "{dense:.3f}"),
        ],
    ),
    "configurations": _of(
        {"benchmark": "compressors.configurations"},
        [
            ("arm", "{arm}"),
            ("bits a weight", "{bits:g}"),
            ("error", "[{error:.4f}]"),
            ("bits, inputs to a scale, rank, in the mean", "[{means.bits:.2f}, {means.group:.0f}, {means.rank:.1f}]"),
        ],
    ),
    "normalised": _of(
        {"benchmark": "compressors.normalised"},
        [("model", "{model}"), ("ranks", "{keep:%}")],
        [("{normalisation}", "{distance:.4f} ± {distance_stderr:.4f} ({kept:%1})")],
        [("difference", "[{over published:+.4f} ± {over published_stderr:.4f}]")],
    ),
    "methods-gemma": _of(
        {**METHODS, "model": "Gemma 3 270M", "of": "linear-parameters"},
        [METHOD],
        SIZES,
        [MEAN_CPU],
    ),
    "compensation": _of(
        {"benchmark": "compressors.compensation"},
        [
            ("paths", "{paths}"),
            ("perplexity", "{scores.news.value:.2f} ± {scores.news.stderr:.2f}"),
            ("KL", "{scores.news.distance:.3f}"),
            ("s", "{seconds:.0f}"),
        ],
    ),
    "encoders": _of({**ENCODERS, "run": "all", "of": "linear-parameters"}, ENCODER),
    "encoders-bytes": _of({**ENCODERS, "run": "all", "of": "bytes"}, ENCODER),
    "encoders-sizes": _of(
        {**ENCODERS, "run": "by size"}, [METHOD], [("{keep:%}", "{scores.STS.value:.4f} ({scores.STS.distance:.4f})")]
    ),
    "convolution": _of(
        {"benchmark": "compressors.convolution", "model": "resnet", "of": "parameters"},
        [("kept of the parameters", "{keep:%}")],
        [("{method:code}", "{accuracy:.2f}")],
    ),
    "pruned": _of(
        {"benchmark": "compressors.pruned"},
        [METHOD],
        [("{percent} %", "{accuracy:.1f}")],
    ),
    "faces-rnet": _faces("rnet"),
    "faces-onet": _faces("onet"),
    "clicks": _of(CLICKS, [METHOD], CHANGES),
    "classifier": _of(
        {"benchmark": "compressors.classifier", "seeds": 3},
        [METHOD, ("kept", "{keep:%}")],
        right=[
            ("accuracy", "{accuracy:.4f}"),
            ("change", "{change.mean:+.4f} ± {change.stderr:.4f}"),
            ("beside `svd`", "{beside svd.mean:+.4f} ± {beside svd.stderr:.4f}"),
            ("between seeds", "{beside svd.spread:.4f}"),
            ("rebuilt", "{rebuilt:.4f}"),
        ],
    ),
    "experts": _of(
        {"benchmark": "compressors.experts"},
        [("experts left", "{experts:%}"), ("bytes", "{share:%}")],
        [("{method:code}", "{perplexity:.2f} ({relative_accuracy:%1})")],
    ),
    "upcycled": _of(
        {
            "benchmark": "compressors.upcycled",
            "method": ("drop", "drop by visits", "m-smoe", "sub-moe", "sub-moe, sums", "sub-moe, means"),
        },
        [("experts left", "{experts:%}"), ("", "{method}")],
        [("{model}", "{rise:+.4f} ± {rise, paired:.4f}"), ("{model}, accuracy", "{accuracy:%1}")],
    ),
    "narrow": _of(
        {"benchmark": "compressors.narrow", "part": "quality"},
        [KEPT, METHOD, ("shared out", "{allocation}"), ("matrices", "{taken:code}")],
        right=[("perplexity", "{perplexity:perplexity}"), ("loss over dense", "{rise:+.3f} ± {paired:.3f}")],
    ),
    "narrow-speed": _of(
        {"benchmark": "compressors.narrow", "part": "speed"},
        [KEPT, METHOD, ("matrices", "{taken:code}")],
        right=[
            ("what is smaller", "{sizes}"),
            ("prefill", "{prefill_ratio:.2f}"),
            ("decoding", "{decode_ratio:.2f}"),
            ("cache", "{cache:.2f}"),
        ],
    ),
    "third": _of(
        {"benchmark": "compressors.third", "keep": 0.333, "embeddings": False},
        [METHOD, ("bytes", "{share:.3f}")],
        [
            ("perplexity", "{perplexity:perplexity}"),
            ("divergence", "{kl:.4f} ± {kl_stderr:.4f}"),
            ("over `auto`", "{kl_behind:+.4f} ± {kl_behind_stderr:.4f}"),
            CPU,
        ],
    ),
    "third-16-bits": _of(
        {"benchmark": "compressors.third", "dtype": "bfloat16"},
        [("asked for", "{keep}"), METHOD, ("bytes", "{share:.3f}")],
        [
            ("perplexity", "{perplexity:perplexity}"),
            ("divergence", "{kl:.4f} ± {kl_stderr:.4f}"),
            ("over the first", "{kl_behind:+.4f} ± {kl_behind_stderr:.4f}"),
            CPU,
        ],
    ),
    "third-embeddings": _of(
        {"benchmark": "compressors.third", "embeddings": True},
        [("asked for", "{keep}"), METHOD, ("bytes", "{share:.3f}")],
        [
            ("perplexity", "{perplexity:perplexity}"),
            ("change", "{change:%1} ± {change_stderr:%1}"),
            ("divergence", "{kl:.4f} ± {kl_stderr:.4f}"),
            ("over `auto`", "{kl_behind:+.4f} ± {kl_behind_stderr:.4f}"),
            CPU,
            ("decoding over dense, one thread", "[{decode.1:.2f}]"),
            ("two threads", "[{decode.2:.2f}]"),
        ],
    ),
    "authors": _of(
        {"benchmark": "peers.authors"},
        [
            ("method", "{title}"),
            ("setting", "{setting}"),
            ("matrices", "{matrices}"),
            ("theirs / ours", "{ratio}"),
            ("ours worse by 1e-4 or more", "[{worse}]"),
        ],
    ),
}
