"""The tables of estimators and solvers."""

from __future__ import annotations

from benchmarks.pages.tables import Table


def _planted(name: str) -> dict[str, str]:
    return {"benchmark": "estimators.planted", "part": name}


TABLES: dict[str, Table] = {
    "ratings": Table(
        "estimators",
        {"benchmark": "estimators.ratings", "part": "folds"},
        [
            ("", "{arm}"),
            ("root mean square", "{rmse:.4f}"),
            ("standard deviation over folds", "{spread:.4f}"),
            ("mean absolute", "{mae:.4f}"),
            ("seconds", "{seconds:.2f}"),
            ("Surprise's seconds by these", "{times:.1f}"),
        ],
    ),
    "ratings-sweeps": Table(
        "estimators",
        {"benchmark": "estimators.ratings", "part": "sweeps"},
        [
            ("regressions by", "{solver}"),
            ("k = 10", "{k10:.3f} s"),
            ("20", "{k20:.3f} s"),
            ("40", "{k40:.3f} s"),
            ("80", "{k80:.3f} s"),
            ("160", "{k160:.3f} s"),
            ("exponent of k", "{slope:.2f}"),
        ],
    ),
    "film": Table(
        "estimators",
        {"benchmark": "estimators.film"},
        [
            ("", "{arm}"),
            ("dB, whole", "{clean_psnr:.1f}"),
            ("under squares", "{clean_under:.1f}"),
            ("seconds", "{clean_seconds:.1f}"),
            ("dB, tampered", "{tampered_psnr:.1f}"),
            ("under squares", "{tampered_under:.1f}"),
            ("seconds", "{tampered_seconds:.1f}"),
        ],
    ),
    "sensing": Table(
        "estimators",
        _planted("sensing"),
        [
            ("condition", "{kappa:.1f}"),
            ("columns", "{rank}"),
            ("", "{arm}"),
            ("steps to 1e-6", "{steps}"),
            ("residual after 100", "{after 100:short}"),
            ("after 1000, or at the end", "{after 1000:short}"),
        ],
    ),
    "gains": Table(
        "estimators",
        _planted("gains"),
        [
            ("rho", "{rho:.2f}"),
            ("noise", "{noise}"),
            ("", "{arm}"),
            ("gains", "{gains:short}"),
            ("signal", "{signal:short}"),
            ("steps", "{steps:.0f}"),
            ("seconds", "{seconds:.4f}"),
            ("seeds", "{seeds}"),
        ],
    ),
    "gain-phases": Table(
        "estimators",
        _planted("phases"),
        [("", "{arm}")],
        [("{ratio:.2f}", "{found:%}")],
    ),
    "kronecker-sbl": Table(
        "estimators",
        _planted("kronecker"),
        [
            ("dictionary", "{dictionary}"),
            ("noise", "{noise}"),
            ("", "{arm}"),
            ("squared error", "{nmse:short}"),
            ("steps", "[{steps:.0f}]"),
            ("seconds", "{seconds:.2f}"),
        ],
    ),
    "kronecker-large": Table(
        "estimators",
        _planted("large"),
        [
            ("dictionary", "{dictionary}"),
            ("seconds", "{seconds:.4f}"),
            ("as published", "[{published:.2f}]"),
            ("ratio", "[{ratio:.0f}]"),
            ("difference", "[{difference:short}]"),
            ("squared error", "[{nmse:short}]"),
            ("steps", "[{steps:.0f}]"),
        ],
    ),
    "paths": Table(
        "estimators",
        _planted("paths"),
        [
            ("dB", "{snr}"),
            ("", "{arm}"),
            ("all found", "{detected:%}"),
            ("error by the bound", "[{rmse:.2f}]"),
            ("seconds", "{seconds:.3f}"),
        ],
    ),
    "spectra": Table(
        "estimators",
        _planted("spectra"),
        [("signals", "{signals}"), ("dB", "{snr}")],
        [("{arm}", "{angle:.1f}")],
    ),
    "transfer": Table(
        "estimators",
        _planted("transfer"),
        [("source", "{source}"), ("noise", "{noise}"), ("dB", "{snr}")],
        [("{arm}", "{angle:.1f}")],
    ),
    "ranks": Table(
        "estimators",
        {"benchmark": "estimators.ranks", "part": "ranks"},
        [
            ("noise", "{noise}"),
            ("signal by the largest of noise", "{size:.1f}"),
            ("", "{arm}"),
            ("found, of draws", "{exact:%}"),
            ("mean", "{mean:.1f}"),
        ],
    ),
    "columns": Table(
        "estimators",
        {"benchmark": "estimators.ranks", "part": "columns"},
        [
            ("columns, and rows", "{k}"),
            ("", "{arm}"),
            ("median", "{median:.2f}"),
            ("95 % of draws below", "{q95:.2f}"),
        ],
    ),
    "unmixing": Table(
        "estimators",
        {"benchmark": "estimators.spectra", "part": "unmixing"},
        [("", "{arm}")],
        [
            ("angle, {spoilt:%} of the bands spoilt", "{angle:.2f}°"),
            ("abundances, {spoilt:%}", "{rmse:.4f}"),
        ],
    ),
    "denoising": Table(
        "estimators",
        {"benchmark": "estimators.spectra", "part": "denoising"},
        [("image", "{image}"), ("noise", "{sigma}/255")],
        [("{arm}", "{psnr:.1f}")],
        [("rank", "{rank:.0f}")],
    ),
    "private-errors": Table(
        "estimators",
        {"benchmark": "estimators.private", "part": "errors"},
        [("epsilon", "{epsilon}"), ("", "{arm}")],
        [("{rows:,} rows", "{error:.3f}")],
    ),
    "private-slopes": Table(
        "estimators",
        {"benchmark": "estimators.private", "part": "slopes"},
        [
            ("rows", "{rows:,}"),
            ("", "{arm}"),
            ("epsilon", "{epsilons}"),
            ("exponent of the error", "{slope:.2f}"),
            ("of the noise", "{noise:.2f}"),
            ("error at the end", "{error:.3f}"),
        ],
    ),
    "parts-speed": Table(
        "estimators",
        {"benchmark": "estimators.parts", "part": "speed"},
        [
            ("table", "{data}"),
            ("shape", "{shape}"),
            ("parts", "{parts}"),
            ("", "{arm}"),
            ("seconds", "[{seconds:.2f}]"),
            ("times", "[{times:.1f}]"),
            ("error after 500 steps", "{end:.5f}"),
        ],
    ),
    "parts-missing": Table(
        "estimators",
        {"benchmark": "estimators.parts", "part": "missing"},
        [("table", "{data}"), ("missing", "{missing:%}")],
        [("{arm}", "{error:.3f}")],
    ),
    "objects": Table(
        "estimators",
        {"benchmark": "estimators.objects"},
        [
            ("", "{arm}"),
            ("intersection over union", "{overlap:.3f}"),
            ("of the squares found", "{squares:%}"),
            ("seconds", "{seconds:.1f}"),
        ],
    ),
    "fermentation": Table(
        "estimators",
        {"benchmark": "estimators.fermentation"},
        [
            ("", "{arm}"),
            ("sound bands", "{sound}"),
            ("sugar", "{glucose:.3f}"),
            ("alcohol", "{ethanol:.3f}"),
            ("seconds", "{seconds:.1f}"),
        ],
    ),
    "private-audit": Table(
        "estimators",
        {"benchmark": "estimators.private", "part": "audit"},
        [("epsilon", "{epsilon}"), ("delta", "{delta}"), ("at least, seen", "{at least:.2f}")],
    ),
    "pyriemann": Table(
        "estimators",
        {"benchmark": "estimators.trials", "part": "pyriemann"},
        [
            ("covariances by", "{estimator}"),
            ("largest difference", "{covariances:short}"),
            ("of the mean", "{mean:short}"),
        ],
    ),
    "trials": Table(
        "estimators",
        {"benchmark": "estimators.trials", "part": "accuracy"},
        [
            ("task", "{task}"),
            ("test trials", "{trials}"),
            ("order", "{order}"),
            ("lag", "{lag}"),
            ("accuracy", "{chosen:.3f}"),
            ("without delays", "{plain:.3f}"),
            ("standard error", "{standard error:.3f}"),
        ],
    ),
    "codes": Table(
        "estimators",
        {"benchmark": "estimators.coding", "part": "codes"},
        [
            ("", "{arm}"),
            ("dB, 5 % active", "{5%:.1f}"),
            ("8 %", "{8%:.1f}"),
        ],
    ),
    "dictionary-streams": Table(
        "estimators",
        {"benchmark": "estimators.coding", "part": "stream"},
        [("batches of 32", "{batches:,}"), ("stream", "{stream:short}"), ("whole table", "{whole table:short}")],
    ),
    "dictionary-terms": Table(
        "estimators",
        {"benchmark": "estimators.coding", "part": "terms"},
        [("", "{arm}"), ("PSNR, dB", "{psnr:.2f}"), ("seconds", "{seconds:.1f}")],
    ),
    "forests": Table(
        "estimators",
        {"benchmark": "estimators.forests", "part": "kappa"},
        [("data", "{data}"), ("", "{arm}"), ("kappa", "{kappa:.4f}"), ("seconds", "{seconds:.2f}")],
    ),
    "tall": Table(
        "estimators",
        {"benchmark": "estimators.tall", "part": "exact"},
        [("", "{arm}"), ("seconds", "{cpu_seconds:.2f}"), ("error of the 20 largest", "{error:.0e}")],
    ),
    "larger-than-memory": Table(
        "estimators",
        {"benchmark": "estimators.tall", "part": "larger"},
        [
            ("", "{task}"),
            ("rows", "{rows:,}"),
            ("the array, MB", "{megabytes:.0f}"),
            ("peak, MB", "{peak_megabytes:.0f}"),
            ("seconds", "{cpu_seconds:.1f}"),
        ],
    ),
    "tensor-sweeps": Table(
        "estimators",
        {"benchmark": "estimators.tensors", "part": "sweeps"},
        [
            ("tensor", "{shape}"),
            ("five sweeps, s", "{seconds:.2f}"),
            ("tensorly's, s", "{tensorly:.2f}"),
            ("times", "{times:.1f}"),
            ("apart", "{apart:short}"),
        ],
    ),
    "tensor-bases": Table(
        "estimators",
        {"benchmark": "estimators.tensors", "part": "bases"},
        [
            ("tensor", "{shape}"),
            ("rank", "{rank}"),
            ("noise", "{noise}"),
            ("seconds", "{seconds:.3f}"),
            ("error", "{error:.7f}"),
            ("one iteration, s", "{once:.3f}"),
            ("its error", "{rough:.7f}"),
            ("tensorly's, s", "{tensorly:.3f}"),
            ("its error", "{theirs:.7f}"),
        ],
    ),
    "tensor-missing": Table(
        "estimators",
        {"benchmark": "estimators.tensors", "part": "missing"},
        [
            ("missing", "{share:%}"),
            ("", "{arm}"),
            ("error where missing", "{error:.4f}"),
            ("sweeps", "{sweeps:.0f}"),
            ("seconds", "{seconds:.2f}"),
        ],
    ),
    "tensor-functions": Table(
        "estimators",
        {"benchmark": "estimators.tensors", "part": "functional"},
        [
            ("", "{arm}"),
            ("root mean square", "{rmse:.4f}"),
            ("nats a half-hour", "[{nll:.3f}]"),
            ("within 95 %", "[{coverage:.3f}]"),
            ("seconds", "{seconds:.1f}"),
        ],
    ),
    "covariances": Table(
        "estimators",
        {"benchmark": "estimators.learned", "part": "covariances"},
        [
            ("task", "{task}"),
            ("shrinkage", "{shrinkage}"),
            ("condition", "{condition:short}"),
            ("vectors", "{arm}"),
            ("accuracy", "{accuracy:.3f}"),
            ("seconds", "{seconds:.2f}"),
        ],
    ),
    "covariance-splits": Table(
        "estimators",
        {"benchmark": "estimators.learned", "part": "splits"},
        [
            ("task", "{task}"),
            ("shrinkage", "{shrinkage}"),
            ("", "{arm}"),
            ("accuracy", "{accuracy:.3f}"),
            ("by affine invariant", "[{by affine:+.3f} ± {error:.3f}]"),
        ],
    ),
    "clusters": Table(
        "estimators",
        {"benchmark": "estimators.learned", "part": "clusters"},
        [
            ("pictures", "{data}"),
            ("", "{arm}"),
            ("accuracy", "{accuracy:.3f}"),
            ("by spectral", "[{by spectral:+.3f} ± {error:.3f}]"),
            ("by its start", "[{by its start:+.3f} ± {error of that:.3f}]"),
            ("mutual information", "{nmi:.3f}"),
            ("seconds", "{seconds:.1f}"),
        ],
    ),
    "values": Table(
        "estimators",
        {"benchmark": "estimators.learned", "part": "values"},
        [
            ("", "{arm}"),
            ("values kept", "{kept:%}"),
            ("area under the curve", "{auc:.4f}"),
            ("by all", "[{by all:+.4f} ± {error:.4f}]"),
            ("gates by as many frequent ones", "[{gates by this:+.4f} ± {error of that:.4f}]"),
            ("nats", "{loss:.4f}"),
            ("seconds", "{seconds:.1f}"),
        ],
    ),
}
