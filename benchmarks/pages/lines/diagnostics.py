"""The lines on the cards of diagnostics."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

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
        "gemm-model",
        "kinds",
        "products at {shapes} shapes by one thread; median error for the shape that is left out, by the roofline, with "
        "the regressor, and by sums; and of the regressor at a random split",
        {"benchmark": "inference.gemm_model", "part": "kinds"},
        "{kind} {roofline_median:%}, {regressed_median:%}, {sums_median:%}; {random:%}",
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
        "those over windows; perplexity on {judged on sequences} sequences of {judge} for each of 3 seeds, 2 of "
        "sparsegpt (and the difference to the even share in nats a token)",
        {
            "benchmark": "diagnostics.sparsities",
            "seeds": (2, 3),
            "method": ("wanda", "sparsegpt"),
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
        {"benchmark": "diagnostics.kecor", "part": None},
        "{arm} {needed.mean:.0f} ± {needed.stderr:.0f}, reached {reached} times ({gain.mean:+.4f} ± {gain.stderr:.4f})",
        together="; ",
    ),
]
