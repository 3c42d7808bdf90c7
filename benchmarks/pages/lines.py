"""The lines on the cards, family by family."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

_SMOLLM2 = {"benchmark": "compressors.methods", "model": "smollm2"}
_AT = "{keep:%} of the "
_NEWS = (
    ": perplexity {scores.news.value:perplexity}[ ± {scores.news.stderr:.2f}], KL {scores.news.distance:.3f}, "
    "{megabytes:.0f} MB, {cpu_seconds:.0f} s[, decodes {decode_ratio:.2f} times as fast]"
)
_METHODS = (
    "smollm2, {tokens} tokens of calibration ({calibrated on}), perplexity on {judged on sequences} sequences of news "
    "(dense {scores.news.value:.2f} ± {scores.news.stderr:.2f}), KL from the dense model, processor seconds of fitting "
    "and building, decoding beside the dense model where it was timed; one thread of a busy machine"
)
_ENCODER = {"benchmark": "compressors.encoders", "run": "all"}
_CONVOLUTION = {"benchmark": "compressors.convolution", "model": "resnet"}
_CLICKS = {"benchmark": "compressors.clicks", "log": "ml-100k"}
_EXPERTS = {"benchmark": "compressors.experts"}


def _compressors(where: str, conditions: str, select: dict[str, object], line: str, **rest: object) -> Lines:
    return Lines("compressors", where, conditions, select, line, **rest)  # type: ignore[arg-type]


COMPRESSORS = [
    *(
        _compressors(
            "smollm2",
            _METHODS,
            {**_SMOLLM2, "run": "all", "of": of},
            _AT + of.replace("-", " ") + _NEWS,
            about={**_SMOLLM2, "run": "all", "method": "dense"},
        )
        for of in ("linear-parameters", "bytes")
    ),
    *(
        _compressors(
            "encoder",
            "all-MiniLM-L6-v2, {sentences} sentences of calibration, Spearman's correlation on {judged on pairs} pairs "
            "of the STS benchmark (dense {scores.STS.value:.4f} ± {scores.STS.stderr:.4f}) and drift of the embeddings",
            {**_ENCODER, "of": of, "keep": shares},
            _AT + of.replace("-", " ") + ": {scores.STS.value:.4f} ± {scores.STS.stderr:.4f}, drift "
            "{scores.STS.distance:.4f}, {megabytes:.1f} MB",
            about={**_ENCODER, "method": "dense"},
        )
        for of, shares in (("linear-parameters", (0.8, 0.6)), ("bytes", (0.67, 0.62)))
    ),
    *(
        _compressors(
            "convolution",
            "a residual network on Fashion-MNIST, {images} images of calibration, accuracy in percent on "
            "{judged on images} images (dense {accuracy:.2f} ± {stderr:.2f})",
            {**_CONVOLUTION, "of": of},
            "{keep:%} {accuracy:.2f}",
            about={**_CONVOLUTION, "method": "dense"},
            together=", ",
            words=f"of the {of}: ",
        )
        for of in ("parameters", "bytes")
    ),
    _compressors(
        "clicks",
        "a DeepFM on MovieLens-100K, {calibration} impressions of calibration, change of the AUC (dense {auc:.4f} ± "
        "{stderr:.4f}) at shares of the bytes",
        {**_CLICKS, "keep": (0.33, 0.25, 0.2, 0.1)},
        "{keep:%} {change:+.4f} ± {change_stderr:.4f}",
        about={**_CLICKS, "method": "dense"},
        together=", ",
    ),
    _compressors(
        "experts",
        "a small mixture of experts, perplexity (dense {perplexity:.2f} ± {stderr:.2f}) and accuracy relative to dense "
        "at the bytes that a share of the experts takes",
        {**_EXPERTS, "method": ("sub-moe", "kfac", "lord", "gptq")},
        "{experts:%} {perplexity:.2f} ({relative_accuracy:%1})",
        about={**_EXPERTS, "method": "dense"},
        together=", ",
    ),
    _compressors(
        "quantizers",
        "{matrices} matrices of all-MiniLM-L6-v2, relative error of the outputs on unseen text",
        {"benchmark": "compressors.quantizers", "model": "all-MiniLM-L6-v2"},
        "{bits} bits {unseen:.4f}",
        together=", ",
    ),
    _compressors(
        "compensation",
        "beside smollm2 with half of its entries gone ({base}), paths of rank {rank}, "
        "{judged on sequences} sequences of news",
        {"benchmark": "compressors.compensation"},
        "{paths} {scores.news.value:.2f} ± {scores.news.stderr:.2f} (KL {scores.news.distance:.3f})",
        name="eora",
        together=", ",
        words="perplexity by paths: ",
    ),
    _compressors(
        "authors",
        "beside the authors' own code on the same matrices, error of theirs over error of ours in the method's metric",
        {"benchmark": "peers.authors"},
        "{setting}: {ratio} on {matrices} matrices",
        name="{card}",
    ),
]

ADAPTERS = [
    Lines(
        "adapters",
        "tasks",
        "all at the trainable numbers of a LoRA (sst2, 60 steps of 16 examples, rank 8; gsm8k, 40 steps of 2 examples, "
        "rank 8; turned, 150 steps of 64 examples, rank 4), the rate chosen on validation data; one thread of a busy "
        "machine",
        {"benchmark": "adapters.tasks", "task": task},
        f"{task}{{method:whose}}: {score} {{score:.3f}} ± {{spread:.3f}} over {{seeds}} seeds, forgetting "
        "{forgotten:.3f}, {step_ms:.0f} ms a step, {held_megabytes:.0f} MB held in a step, rate {rate:g}",
    )
    for task, score in (("sst2", "accuracy"), ("gsm8k", "loss"), ("turned", "accuracy"))
]

INFERENCE = [
    Lines(
        "inference",
        "memory",
        "peak of the activations of a model whose factors kfac stores at {keep:%}, tiles of {tile} tokens, float32, "
        "one thread, without the head",
        {"benchmark": "inference.flash_svd", "part": "a model"},
        "{model}, {batch} x {length}: {peak.tiled:.1f} MB in tiles, {peak.naive:.1f} without, {peak.dense:.1f} dense",
        name="flash-svd",
    )
]

LINES = [*COMPRESSORS, *ADAPTERS, *INFERENCE]
