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
_CLICKS = {"benchmark": "compressors.clicks", "log": "ml-100k", "seeds": 3, "tuned": None}
_EXPERTS = {"benchmark": "compressors.experts"}
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
        {"benchmark": "compressors.few_bits", "method": ("rtn", "nf4", "gptq", "codebook", "codebook-gptq")},
        "{bits:.2f} bits {kl:.3f} ± {stderr:.3f}",
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
ADAPTERS += [
    Lines(
        "adapters",
        "step",
        "beside one layer of {out} x {in}, {tokens} tokens, rank {rank}, float32, one thread of a busy machine, "
        "milliseconds of the processor (the frozen layer {path_ms:.1f})",
        {"benchmark": "adapters.step", "method": ("lora", "soka", "householder-projector", "hta")},
        "the path's forward and backward pass {path_ms:.1f}, {kept_megabytes:.2f} MB kept in between",
        about={"benchmark": "adapters.step", "method": "the frozen layer"},
    ),
    Lines(
        "adapters",
        "after svd",
        "all-MiniLM-L6-v2 cut to half of its ranks, a step of AdamW on {tokens} tokens, float32, one thread; beside, "
        "what training all matrices and everything takes",
        {
            "benchmark": "adapters.welore",
            "part": "step",
            "model": "all-MiniLM-L6-v2",
            "arm": ("factors", "both", "everything"),
        },
        "{arm}: {numbers:,} numbers, {seconds:.2f} s, peak {peak_megabytes:.0f} MB beside {weights_megabytes:.0f} MB",
        name="welore",
        together="; ",
    ),
    Lines(
        "adapters",
        "terms",
        "what the rank rule keeps of all linear matrices but the head",
        {"benchmark": "adapters.terms"},
        "{model}: of {rank} terms {share:%}, fewer in {fewer} of {matrices} matrices; 90 % of the whole would take "
        "{of_the_whole:.0f}",
    ),
    Lines(
        "adapters",
        "sequence",
        "five tasks one after the other (split, moved: clothes by a perceptron), accuracy over all of them after the "
        "last, three seeds; beside, a LoRA of rank 8 that is merged after each",
        {"benchmark": "adapters.sequence", "method": ("lora", "osf", "osf-next")},
        "{stream}, {arm}: {accuracy.mean:.4f} ± {accuracy.spread:.4f}[, over lora {over lora.mean:+.4f} ± "
        "{over lora.stderr:.4f}], since learned {transfer.mean:+.4f}, of what was known before "
        "{forgotten.mean:.3f} lost",
    ),
    Lines(
        "adapters",
        "apart",
        "tasks of the same streams learned apart from each other at the trainable numbers of a LoRA of rank 8, three "
        "seeds; then all adapters added up",
        {"benchmark": "adapters.apart", "part": "chosen", "arm": ("lora", "flylora")},
        "{stream}: alone {alone.mean:.4f} ± {alone.spread:.4f}[, over lora {over lora.alone.mean:+.4f} ± "
        "{over lora.alone.stderr:.4f}], forgotten {forgotten.mean:.4f}[, less than lora at equal learning "
        "{equal.mean:+.4f} ± {equal.stderr:.4f}], summed {summed.mean:.4f}, averaged {averaged.mean:.4f}",
        name="{arm:card}",
    ),
]

ADAPTERS += [
    Lines(
        "adapters",
        "federated",
        "clothes turned by a right angle, by a perceptron that knows them upright; six clients of unlike classes, 15 "
        "rounds of 5 local steps, rank {rank}, {seeds} seeds; the difference is to an orthonormal A that stays",
        {"benchmark": "adapters.federated", "arm": ("fedsvd, drawn", "fedsvd, orthonormal")},
        "{setting}, {arm}: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f}",
    ),
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

PARAMETRIZATIONS = [
    Lines(
        "parametrizations",
        "clothes",
        "a perceptron 784-512-512-10 on Fashion-MNIST, {passes} passes, {more} more behind a projection, {seeds} "
        "seeds; the difference from the dense net is paired; low rank is on the page of measurements",
        {"benchmark": "parametrizations.monarch", "part": "pictures", "arm": "monarch"},
        "{start}, {keep:%} kept: accuracy {accuracy:.4f} ± {spread:.4f}, {change:+.4f} ± {change_stderr:.4f} to dense",
        name="monarch",
    ),
    Lines(
        "parametrizations",
        "text",
        "a Llama of 3 layers of width 128 on articles of Wikipedia, {steps} steps of 1024 tokens, {more} more behind a "
        "projection, {seeds} seeds; loss on held-out articles, the difference from the dense net is paired",
        {"benchmark": "parametrizations.monarch", "part": "text", "arm": "monarch"},
        "{start}, {keep:%} kept: loss {loss:.3f} ± {spread:.3f}, {change:+.3f} ± {change_stderr:.3f} to dense",
        name="monarch",
    ),
    Lines(
        "parametrizations",
        "super-resolution",
        "pictures of scikit-image, of twice the sides, by an EDSR of 24 channels; {steps} steps, {seeds} seeds, "
        "{pictures} pictures to judge; the convolutions of the blocks keep {keep:%}",
        {"benchmark": "parametrizations.super_resolution"},
        "{arm}: {psnr:.3f} ± {spread:.3f} dB, {change:+.3f} ± {change_stderr:.3f} to iss-p",
        name="iss-p",
    ),
    Lines(
        "parametrizations",
        "clothes, pruned",
        "a perceptron 784-128-64-10 on Fashion-MNIST, {passes} passes, {seeds} seeds; runs of zeros along rows, and "
        "differences paired by seed, to magnitude pruning to as many weights of every matrix",
        {"benchmark": "parametrizations.runs_of_zeros", "part": "all", "method": "turbo-vbi"},
        "{arm}: {zeros:%} zeros in runs of {run:.1f}, {longer:.1f} times as long, accuracy {accuracy:.4f} ± "
        "{spread:.4f}, {change:+.4f} ± {change_stderr:.4f}",
        name="turbo-vbi",
    ),
    Lines(
        "parametrizations",
        "waves",
        "the next frame of a wave on 32 x 32 points by four convolutions of 5 x 5, width {width}; error over that of "
        "the last frame, {seeds} seeds",
        {"benchmark": "parametrizations.waves"},
        "{arm}: {parameters:,} numbers, {steps} steps of {step_ratio:.2f} the dense time, error {error:.4f} ± "
        "{spread:.4f}, {change:+.4f} ± {change_stderr:.4f} to apriori-conv",
        name="apriori-conv",
    ),
]

_WEIGHTWATCHER = {"benchmark": "diagnostics.weightwatcher"}
_EMBEDDINGS = {"benchmark": "diagnostics.embeddings"}


def _diagnostics(name: str, where: str, conditions: str, select: dict[str, object], line: str, **rest: str) -> Lines:
    return Lines("diagnostics", where, conditions, select, line, name=name, **rest)


_BESIDE = "beside WeightWatcher 0.7.7 on the matrices of smollm2 and all-MiniLM-L6-v2, CPU seconds of one thread"

DIAGNOSTICS = [
    *(
        _diagnostics(
            name,
            "weightwatcher",
            _BESIDE,
            {**_WEIGHTWATCHER, "part": "seconds", "kind": kind},
            "{of}: {ours:.2f} s, WeightWatcher {theirs:.2f} s",
        )
        for name, kind in (("spectrum", "columns"), ("power-law", "fits"))
    ),
    *(
        _diagnostics(
            name,
            "columns",
            "beside WeightWatcher 0.7.7 on {matrices} matrices of all-MiniLM-L6-v2, largest relative difference",
            {**_WEIGHTWATCHER, "part": "columns", "model": "minilm", "column": columns},
            "{column} {largest relative difference:power}",
            together=", ",
        )
        for name, columns in (
            ("spectrum", ("stable_rank", "matrix_rank", "spectral_norm", "log_norm", "entropy")),
            ("power-law", ("alpha", "xmin", "D", "sigma", "alpha_weighted", "log_alpha_norm")),
        )
    ),
    _diagnostics(
        "farms",
        "noise",
        "Gaussian noise, exponent of the tail over windows and without them (Hill), means over {draws} draws",
        {"benchmark": "diagnostics.noise", "part": "shape"},
        "{rows} x {columns}: {farms.mean:.2f} ± {farms.spread:.2f}, Hill {hill.mean:.2f} ± {hill.spread:.2f}",
    ),
    _diagnostics(
        "farms",
        "pruning",
        "smollm2 without a share of its weights, which its blocks lose evenly, by exponents of whole matrices or by "
        "those over windows; perplexity on {judged on sequences} sequences of {judge} for each of 3 seeds (and the "
        "difference to the even share in nats a token)",
        {
            "benchmark": "diagnostics.sparsities",
            "seeds": 3,
            "method": "wanda",
            "allocation": ("uniform", "alpha", "farms"),
        },
        "{sparsity:%} by {method:code}, {allocation} {perplexity:.0f} ({change:+.3f} ± {change_stderr:.3f})",
        together="; ",
    ),
    _diagnostics(
        "marchenko-pastur",
        "planted",
        "directions planted in {rows} x {columns} of noise, means over {draws} draws; below half of the edge none can "
        "be told from noise",
        {"benchmark": "diagnostics.noise", "part": "planted"},
        "{planted} at {strength:g} of the edge, found {spikes.mean:.2f} ± {spikes.spread:.2f}",
        together="; ",
    ),
    _diagnostics(
        "matrix-nuclear-norm",
        "layers",
        "rank correlation over the layers of {model} on {sequences} sequences of {text}",
        {**_WEIGHTWATCHER, "part": "agreement"},
        "with {with} {rank correlation:.3f}",
        together=", ",
    ),
    _diagnostics(
        "matrix-nuclear-norm",
        "seconds",
        "states whose spectrum decays, processor time of others by that of this one, in the paper 8 to 24",
        {**_WEIGHTWATCHER, "part": "nuclear norm"},
        "{tokens} x {width}: its few lines in float32 {few_lines by ours:.1f}, the entropy here "
        "{matrix_entropy by ours:.1f}, as published {published_entropy by ours:.0f}",
        together="; ",
    ),
    _diagnostics(
        "matrix-entropy",
        "layers",
        "rank correlation over the layers of {model} on {sequences} sequences of {text}",
        {**_WEIGHTWATCHER, "part": "agreement", "with": "matrix_entropy"},
        "with matrix_nuclear_norm {rank correlation:.3f}",
    ),
    _diagnostics(
        "intruder-dimensions",
        "sst2",
        "MiniLM after {steps} steps of {batch} sentences by a LoRA of rank {rank} at a rate of {rate:g}, {count} of "
        "360 directions new: accuracy (drift of other sentences) as they, or all of the change, are scaled",
        {"benchmark": "diagnostics.intruders", "rank": 1, "rate": 0.01},
        "by {scale:g} {intruders.accuracy:.4f} ({intruders.drift:.3f}), or {change.accuracy:.4f} ({change.drift:.3f})",
        together="; ",
    ),
    _diagnostics(
        "schur-entropy",
        "pairs",
        "{count} pairs of sentences of STS-B embedded by MiniLM, share unexplained (and in a random order)",
        {**_EMBEDDINGS, "part": "sentences", "kernel": "cosine"},
        "{pairs} {share:.3f} ± {spread:.3f} ({shuffled:.3f})",
        together=", ",
    ),
    _diagnostics(
        "schur-entropy",
        "authors",
        "beside the authors' scendi-score, float64, nats unexplained and CPU seconds",
        {**_EMBEDDINGS, "part": "scendi", "kernel": ("gaussian, float64 both", "cosine")},
        "{kernel}, {pairs} pairs: {ours.unexplained:.4f} and theirs {theirs.unexplained:.4f}, {ours.seconds:.2f} s and "
        "{theirs.seconds:.2f} s",
    ),
    _diagnostics(
        "concentration",
        "tails",
        "means over {seeds} seeds; sub-Gaussian norm of the distance to the mean by that of Gaussian points (and by "
        "that of an eighth of the points), and test errors beside those of Gaussian classes",
        {"benchmark": "diagnostics.concentration"},
        "{data}, {points} points in {directions.mean:.0f} directions: {tail_norm.mean:.2f} ({tail_growth.mean:.2f}), "
        "concentrates: {verdict}[; ridge {error_ridge.mean:%1} beside {error_ridge_gaussian.mean:%1}, logistic loss "
        "{error_logistic.mean:%1} beside {error_logistic_gaussian.mean:%1}]",
    ),
    _diagnostics(
        "batch-hessian",
        "curvature",
        "a perceptron of {parameters} parameters and {pictures} pictures of Fashion-MNIST after {learned} steps, "
        "largest eigenvalue of the Hessians of {draws} batches, by the noise along its eigenvector, and by noise that "
        "is alike in all entries",
        {"benchmark": "diagnostics.batch_hessian", "part": "curvature"},
        "batch {batch}: {mean:.2f} ± {spread:.2f}, {leading:.2f}, {alike:.2f}",
        together="; ",
    ),
    _diagnostics(
        "batch-hessian",
        "slopes",
        "the same net, exponent with which the largest rate grows with the batch: without a rise of the loss of all "
        "pictures in 30 steps (descends), without one above that of chance (stable), and 2 by the eigenvalue",
        {"benchmark": "diagnostics.batch_hessian", "part": "slopes"},
        "batches of {from} to {to}: SGD {SGD descends:.2f} and {SGD stable:.2f}, Adam {Adam descends:.2f} and "
        "{Adam stable:.2f}, predicted {predicted:.2f}",
        together="; ",
    ),
    _diagnostics(
        "kecor",
        "labels",
        "{data}, a pool of {pool} pictures, {first} random labels and {picks} more a round, {seeds} seeds: labels "
        "until a perceptron has nine tenths of its accuracy with all ({full:.3f}), and mean accuracy over the rounds "
        "beside random choice",
        {"benchmark": "diagnostics.kecor"},
        "{arm} {needed.mean:.0f} ± {needed.stderr:.0f}, reached {reached} times ({gain.mean:+.4f} ± {gain.stderr:.4f})",
        together="; ",
    ),
]

LINES = [*COMPRESSORS, *ADAPTERS, *DIAGNOSTICS, *INFERENCE, *PARAMETRIZATIONS]
