"""The lines on the cards of compressors."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

_SMOLLM2 = {"benchmark": "compressors.methods", "model": "smollm2"}

_AT = "{keep:%} of the "

_NEWS = (
    ": perplexity {scores.news.value:perplexity}[ ± {scores.news.stderr:.2f}], KL {scores.news.distance:.3f}, "
    "{megabytes:.0f} MB, {cpu_seconds:.0f} s"
)

_METHODS = (
    "smollm2, {tokens} tokens of calibration ({calibrated on}), perplexity on {judged on sequences} sequences of news "
    "(dense {scores.news.value:.2f} ± {scores.news.stderr:.2f}), KL from the dense model, processor seconds of fitting "
    "and building; one thread of a busy machine"
)

_ENCODER = {"benchmark": "compressors.encoders", "run": "all"}

_CONVOLUTION = {"benchmark": "compressors.convolution", "model": "resnet"}

_CLICKS = {"benchmark": "compressors.clicks", "log": "ml-100k", "seeds": 3, "tuned": None}

_EXPERTS = {"benchmark": "compressors.experts"}

_FEW_BITS = ("rtn", "nf4", "gptq", "codebook", "codebook-gptq", "vector-codebook")

_SCHEMES = {"benchmark": "compressors.schemes"}


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
            "smollm2",
            _METHODS,
            {**_SMOLLM2, "run": "added", "of": of, "method": ("svd-int8", "kfac-int8", "lq-lora", "cospadi")},
            _AT + of.replace("-", " ") + _NEWS,
            about={**_SMOLLM2, "run": "added", "method": "dense"},
        )
        for of in ("linear-parameters", "bytes")
    ),
    _compressors(
        "smollm2",
        _METHODS,
        {**_SMOLLM2, "run": "groups", "of": "bytes", "method": ("group-sparse", "gqsa", "dsnot", "wanda")},
        _AT + "bytes" + _NEWS,
        about={**_SMOLLM2, "run": "groups", "method": "dense"},
    ),
    _compressors(
        "configurations",
        "{matrices} matrices of layer {layer} of smollm2, its channels permuted, bfloat16, bits a weight with scales "
        "and factors shared out exactly; error weighted by the Fisher information, over that of zeros",
        {"benchmark": "compressors.configurations", "arm": "chosen"},
        "{bits:g} bits {error:.4f}, ranks {means.rank:.1f} in the mean",
        together=", ",
    ),
    _compressors(
        "normalised",
        "at equal numbers, singular values normalised over the largest, as here, and as published; distance from the "
        "dense model text by text: drift of the embeddings of sentences for the encoder, divergence for smollm2",
        {"benchmark": "compressors.normalised", "normalisation": "over the largest"},
        "{model}, {kept:%1} of the numbers {distance:.4f} ± {distance_stderr:.4f}, to the published "
        "{over published:+.4f} ± {over published_stderr:.4f}",
        together="; ",
    ),
    _compressors(
        "knee",
        "{model}, {texts} texts of {length} tokens ({judge}), the largest share of weights cut off at once up to which "
        "the loss stays within 1 %, and the middle 95 % of a bootstrap over the texts",
        {"benchmark": "compressors.essential"},
        "{knee:%} ({knee_low:%} to {knee_high:%})",
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
    *(
        _compressors(
            f"pruned, {net}",
            "{model} on Fashion-MNIST, seed 0, every matrix pruned alike, accuracy in percent on 10,000 images (dense "
            "{accuracy:.2f} ± {stderr:.2f})",
            {"benchmark": "compressors.pruned", "method": "mfac", "model": net, "seed": 0},
            "{percent} % {accuracy:.2f}",
            about={"benchmark": "compressors.pruned", "method": "dense", "model": net, "seed": 0},
            together=", ",
            words="of the weights: ",
        )
        for net in ("three layers",)
    ),
    _compressors(
        "clicks",
        "a DeepFM on MovieLens-100K, three seeds, {calibration} impressions of calibration, change of the AUC (dense "
        "{auc:.4f} ± {stderr:.4f}) at shares of the bytes with its paired error",
        {**_CLICKS, "keep": (0.33, 0.25, 0.2, 0.1)},
        "{keep:%} {change:+.4f} ± {change_stderr:.4f}",
        about={**_CLICKS, "method": "dense"},
        together=", ",
    ),
    _compressors(
        "classifier",
        "all-MiniLM-L6-v2 fine-tuned in full on {trained on} sentences of SST-2, 3 seeds, accuracy on {sentences} "
        "others (dense {accuracy:.4f}) and the difference to SVD at that share of the numbers with its paired error",
        {"benchmark": "compressors.classifier", "seeds": 3, "method": ("svd", "fwsvd", "asvd", "kfac")},
        "{keep:%} {accuracy:.4f}[ ({beside svd.mean:+.4f} ± {beside svd.stderr:.4f})]",
        about={"benchmark": "compressors.classifier", "seeds": 3, "method": "dense"},
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
        "{bits} bits ({megabytes:.1f} MB) {unseen:.4f}",
        together=", ",
    ),
    _compressors(
        "few bits",
        "smollm2 in bfloat16, its channels permuted so that its weights lie on no grid, KL from the dense model on "
        "{sequences} sequences of news, at bits of the stored tensors a weight",
        {"benchmark": "compressors.few_bits", "method": _FEW_BITS},
        "{bits:.2f} bits {kl:.3f} ± {stderr:.3f}",
        together=", ",
    ),
    _compressors(
        "vector codes",
        "{matrices} matrices of all-MiniLM-L6-v2 in bfloat16, relative error of the outputs on unseen text, and beside "
        "that of gptq at as many bits",
        {"benchmark": "compressors.vector_codebooks", "method": "vector-codebook"},
        "{arm}, {stored bits:.2f} bits {unseen:.4f} ({beside gptq.mean:.2f} ± {beside gptq.stderr:.2f})",
        together=", ",
    ),
    _compressors(
        "crossquant",
        "inputs of the matrices of smollm2, {sequences} sequences of {length} tokens of news",
        {"benchmark": "compressors.crossquant"},
        "as published {changed:%} of the rounded inputs of one half change once the other half follows, by "
        "{change over error:.2f} times the squared error of rounding; zero are {zero by token:%1} with a scale a "
        "token, {zero as published:%1} as published, {zero frozen:%1} with the magnitudes of other texts",
    ),
    *(
        _compressors(
            "schemes",
            "smollm2 with its channels in another order, one size for every matrix, {samples} sequences of {length} "
            "tokens of {calibrated on}, judged on {judged on sequences} of {judge} (dense {perplexity:.2f} ± "
            "{stderr:.2f}), bits a weight with scales in float32",
            {**_SCHEMES, "rotated": rotated},
            words + "{bits a weight:.2f} bits a weight: perplexity {perplexity:.2f} ± {stderr:.2f}, KL {kl:.4f} ± "
            "{kl_stderr:.4f}, {cpu_seconds:.0f} s",
            about={**_SCHEMES, "method": "dense"},
        )
        for rotated, words in ((False, ""), (True, "residual stream rotated, "))
    ),
    _compressors(
        "planes",
        "one token, {rows} x {columns} in groups of 128, one thread with AVX-512 beside other work, least times of the "
        "processor; beside the dense product in float32, integers of 4 bits times inputs of 8, and the same planes by "
        "tables of sums of inputs",
        {"benchmark": "compressors.products", "method": "bitplane-int"},
        "{planes} x {input planes}: {of dense:.2f} of dense, {of int4:.2f} of integers, {of tables:.2f} of tables",
        together="; ",
        words="planes of weights x of inputs, ",
    ),
    _compressors(
        "panels",
        "{rows} x {columns} with zeros anywhere, time over the dense product in float32, values in 32 and in 16 bits, "
        "one thread beside other work, least times of the processor; bytes over those of a dense matrix of 16 bits",
        {"benchmark": "compressors.products", "method": "flash-llm-spmm"},
        "{zeros:%} zeros, {batch} vectors: {float32:.2f} and {bfloat16:.2f}, PyTorch's rows {torch:.2f}, SciPy's "
        "{scipy:.2f}; bytes {bytes_of_16_bits:.2f}",
    ),
    _compressors(
        "narrow",
        "smollm2, {samples} sequences of {length} tokens of the mixture, {judged on sequences} of news (dense "
        "{dense:.2f}), loss over that of the dense model, paired by sequence",
        {"benchmark": "compressors.narrow", "part": "quality"},
        "{keep:%} of the linear parameters, {allocation}, {taken:code}: perplexity {perplexity:perplexity}, "
        "{rise:+.3f} ± {paired:.3f}",
        together="; ",
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
