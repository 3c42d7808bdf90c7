"""The tables of diagnostics: beside their peers, and at work."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES = {
    "weightwatcher": Table(
        "diagnostics",
        {"benchmark": "diagnostics.weightwatcher", "part": "seconds"},
        [
            ("", "{of}"),
            ("WeightWatcher", "{theirs:.2f}"),
            ("eckart", "{ours:.2f}"),
            ("ratio", "{ratio:.1f}"),
        ],
    ),
    "noise-shapes": Table(
        "diagnostics",
        {"benchmark": "diagnostics.noise", "part": "shape"},
        [
            ("noise", "{rows} x {columns}"),
            ("Hill's exponent", "{hill.mean:.3f} ± {hill.spread:.3f}"),
            ("over windows (FARMS)", "{farms.mean:.3f} ± {farms.spread:.3f}"),
        ],
    ),
    "noise-planted": Table(
        "diagnostics",
        {"benchmark": "diagnostics.noise", "part": "planted"},
        [
            ("strength by the edge", "{strength:g}"),
            ("planted", "{planted}"),
            ("found", "{spikes.mean:.2f} ± {spikes.spread:.2f}"),
            ("size of the noise", "{sigma.mean:.3f} ± {sigma.spread:.3f}"),
        ],
    ),
    "weightwatcher-columns": Table(
        "diagnostics",
        {"benchmark": "diagnostics.weightwatcher", "part": "columns"},
        [
            ("column", "`{column}`"),
            ("largest relative difference", "[{largest relative difference:power}][{differ} differ]"),
        ],
    ),
    "nuclear-norm": Table(
        "diagnostics",
        {"benchmark": "diagnostics.weightwatcher", "part": "nuclear norm"},
        [
            ("tokens x width", "{tokens} x {width}"),
            ("matrix nuclear norm", "{matrix_nuclear_norm:.2f}"),
            ("the few lines, float32", "{few_lines:.2f} ({few_lines by ours:.1f})"),
            ("matrix entropy", "{matrix_entropy:.2f} ({matrix_entropy by ours:.1f})"),
            ("as published", "{published_entropy:.2f} ({published_entropy by ours:.0f})"),
            ("nuclear norm", "{nuclear_norm:.2f} ({nuclear_norm by ours:.0f})"),
        ],
    ),
    "sparsities": Table(
        "diagnostics",
        {"benchmark": "diagnostics.sparsities", "seeds": (2, 3), "method": ("magnitude", "wanda", "sparsegpt")},
        [("method", "{method:code}"), ("cut off", "{sparsity:%}")],
        [("{allocation}", "{perplexity:perplexity}[ ({change:+.3f} ± {change_stderr:.3f})]")],
    ),
    "intruders": Table(
        "diagnostics",
        {"benchmark": "diagnostics.intruders", "rank": 1, "rate": 0.01},
        [
            ("scaled by", "{scale:g}"),
            ("intruders", "{intruders.accuracy:.4f} ({intruders.drift:.3f})"),
            ("all of the change", "{change.accuracy:.4f} ({change.drift:.3f})"),
        ],
    ),
    "embeddings": Table(
        "diagnostics",
        {"benchmark": "diagnostics.embeddings", "part": "sentences"},
        [("pairs", "{pairs}")],
        [("{kernel}", "{share:.3f} ± {spread:.3f}"), ("{kernel}, shuffled", "{shuffled:.3f}")],
    ),
    "scendi": Table(
        "diagnostics",
        {"benchmark": "diagnostics.embeddings", "part": "scendi"},
        [
            ("pairs", "{pairs}"),
            ("kernel", "{kernel}"),
            ("theirs", "{theirs.seconds:.3f}"),
            ("eckart", "{ours.seconds:.3f}"),
            ("ratio", "{ratio:.0f}"),
            ("unexplained nats, theirs and ours", "{theirs.unexplained:.4f}, {ours.unexplained:.4f}"),
        ],
    ),
    "concentration": Table(
        "diagnostics",
        {"benchmark": "diagnostics.concentration"},
        [
            ("data", "{data}"),
            ("points", "{points}"),
            ("directions", "{directions.mean:.0f} of {dimensions}"),
            ("tail of the distance", "{tail_norm.mean:.2f} ± {tail_norm.spread:.2f}"),
            ("largest tail", "{tail_largest.mean:.2f} ± {tail_largest.spread:.2f}"),
            ("growth", "{tail_growth.mean:.2f} ± {tail_growth.spread:.2f}"),
            ("concentrates", "{verdict}"),
            ("error of ridge, and Gaussian", "{error_ridge.mean:%1}, {error_ridge_gaussian.mean:%1}"),
            ("of logistic loss, and Gaussian", "{error_logistic.mean:%1}, {error_logistic_gaussian.mean:%1}"),
        ],
    ),
    "batch-curvature": Table(
        "diagnostics",
        {"benchmark": "diagnostics.batch_hessian", "part": "curvature"},
        [
            ("batch", "{batch}"),
            ("largest eigenvalue", "{mean:.2f} ± {spread:.2f}"),
            ("by the noise along its eigenvector", "{leading:.2f}"),
            ("by noise that is alike in all entries", "{alike:.2f}"),
        ],
    ),
    "batch-rates": Table(
        "diagnostics",
        {"benchmark": "diagnostics.batch_hessian", "part": "rates"},
        [("batch", "{batch}")],
        [("{optimizer} {bound}", "{rate:.3g}")],
    ),
    "gemm-kinds": Table(
        "diagnostics",
        {"benchmark": "inference.gemm_model", "part": "kinds"},
        [
            ("structure", "{kind}"),
            ("products", "{products}"),
            ("Gflop/s", "{gflops:.0f}"),
            ("GB/s", "{gbytes:.1f}"),
            ("overhead, us", "{overhead_us:.0f}"),
            ("error of the roofline", "{roofline_median:%} (at most {roofline_worst:%})"),
            ("with the regressor", "{regressed_median:%} (at most {regressed_worst:%})"),
            ("of a random split", "{random:%}"),
            ("of sums", "{sums_median:%} (at most {sums_worst:%})"),
        ],
    ),
    "gemm-ranks": Table(
        "diagnostics",
        {"benchmark": "inference.gemm_model", "part": "ranks"},
        [
            ("two factors of", "{matrix}"),
            ("vectors", "{tokens}"),
            *((f"8 k + {i}", f"{{plus_{i}:.2f}}") for i in (1, 2, 4, 7, 8)),
        ],
    ),
    "kecor-speed": Table(
        "diagnostics",
        {"benchmark": "diagnostics.kecor", "part": "speed"},
        [
            ("", "{arm}"),
            ("processor seconds", "[{seconds:.1f}]"),
            ("nats that they add", "{nats:.1f}"),
        ],
    ),
    "kecor": Table(
        "diagnostics",
        {"benchmark": "diagnostics.kecor", "part": None},
        [
            ("chosen by", "{arm}"),
            ("labels needed", "{needed.mean:.0f} ± {needed.stderr:.0f}"),
            ("reached", "{reached} of {seeds}"),
            ("mean accuracy over the rounds", "{accuracy:.4f}"),
            ("beside random", "{gain.mean:+.4f} ± {gain.stderr:.4f}"),
        ],
    ),
}
