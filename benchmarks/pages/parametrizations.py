"""The tables of structures that train in the places of matrices."""

from __future__ import annotations

from benchmarks.pages.tables import Table

_MONARCH = {"benchmark": "parametrizations.monarch"}
_STARTS = [("", "{start}"), (" ", "{arm}"), ("matrices kept", "{keep:%}")]
_COST = [("numbers", "{parameters:,}"), ("processor seconds", "{cpu_seconds:.0f}")]

TABLES = {
    "monarch-pictures": Table(
        "parametrizations",
        {**_MONARCH, "part": "pictures"},
        [
            *_STARTS,
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to dense, paired", "{change:+.4f} ± {change_stderr:.4f}"),
            *_COST,
        ],
    ),
    "monarch-text": Table(
        "parametrizations",
        {**_MONARCH, "part": "text"},
        [
            *_STARTS,
            ("loss", "{loss:.3f} ± {spread:.3f}"),
            ("to dense, paired", "{change:+.3f} ± {change_stderr:.3f}"),
            *_COST,
        ],
    ),
    "monarch-products": Table(
        "parametrizations",
        {**_MONARCH, "part": "a product", "training": False},
        [("matrix", "{n} x {n}"), ("kept", "{keep:%}")],
        [("batch {batch}", "{ratio:.2f}")],
    ),
    "monarch-gradients": Table(
        "parametrizations",
        {**_MONARCH, "part": "a product", "training": True},
        [("matrix", "{n} x {n}"), ("kept", "{keep:%}")],
        [("batch {batch}", "{ratio:.2f}")],
    ),
    "arms": Table(
        "parametrizations",
        {"benchmark": "parametrizations.arms", "part": "clothes"},
        [
            ("", "{arm}"),
            ("seeds", "{seeds}"),
            ("bytes", "{bytes:%1}"),
            ("multiply-adds", "{macs:%1}"),
            ("numbers that train", "{trained:,}"),
            ("rate", "{rate}"),
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to dense, paired", "{change:+.4f} ± {change_stderr:.4f}"),
            ("processor seconds", "{cpu_seconds:.1f}"),
        ],
    ),
    "arms-seconds": Table(
        "parametrizations",
        {"benchmark": "parametrizations.arms", "part": "clothes, equal seconds"},
        [
            ("", "{arm}"),
            ("steps", "{taken}"),
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to dense, paired", "{change:+.4f} ± {change_stderr:.4f}"),
        ],
    ),
    "arms-text": Table(
        "parametrizations",
        {"benchmark": "parametrizations.arms", "part": ("text", "text, equal seconds")},
        [("", "{arm}"), ("bytes", "{bytes:%1}"), ("rate", "{rate}")],
        [
            ("{part}: steps", "{taken}"),
            ("{part}: loss", "{loss:.3f} ± {spread:.3f}"),
            ("{part}: to dense, paired", "{change:+.3f} ± {change_stderr:.3f}"),
        ],
    ),
    "two-of-four": Table(
        "parametrizations",
        {"benchmark": "parametrizations.two_of_four", "part": "clothes"},
        [
            ("", "{arm}"),
            ("rate", "{rate}"),
            ("pull", "[{pull}]"),
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to dense, paired", "{change:+.4f} ± {change_stderr:.4f}"),
        ],
    ),
    "two-of-four-text": Table(
        "parametrizations",
        {"benchmark": "parametrizations.two_of_four", "part": "text"},
        [
            ("", "{arm}"),
            ("rate", "{rate}"),
            ("pull", "[{pull}]"),
            ("held-out loss", "{loss:.3f} ± {spread:.3f}"),
            ("to dense, paired", "{change:+.3f} ± {change_stderr:.3f}"),
        ],
    ),
    "uncertainty": Table(
        "parametrizations",
        {"benchmark": "parametrizations.uncertainty"},
        [("", "{arm}"), ("by", "{by}")],
        right=[
            ("accuracy", "{accuracy:.4f} ± {accuracy_spread:.4f}"),
            ("-ln p", "{loss:.4f} ± {loss_spread:.4f}"),
            ("calibration error", "{ece:.4f} ± {ece_spread:.4f}"),
            ("processor seconds", "{cpu_seconds:.0f}"),
        ],
    ),
    "tasks": Table(
        "parametrizations",
        {"benchmark": "parametrizations.tasks"},
        [("tasks", "{kind}"), ("kept by each", "{keep:%}"), ("", "{arm}")],
        right=[
            ("accuracy in the end", "{acc:.4f} ± {acc_spread:.4f}"),
            ("once learned", "{learned:.4f} ± {learned_spread:.4f}"),
            ("backward transfer", "{bwt:+.4f} ± {bwt_stderr:.4f}"),
        ],
    ),
    "training-memory": Table(
        "parametrizations",
        {"benchmark": "parametrizations.memory"},
        [
            ("", "{arm}"),
            ("MB of weights", "{weights_mb:.1f}"),
            ("of the optimizer", "{state_mb:.1f}"),
            ("peak", "{peak_mb:.0f}"),
        ],
    ),
    "waves": Table(
        "parametrizations",
        {"benchmark": "parametrizations.waves"},
        [
            ("", "{arm}"),
            ("numbers", "{parameters:,}"),
            ("steps", "{steps}"),
            ("time of a step", "{step_ratio:.2f}"),
            ("error", "{error:.4f} ± {spread:.4f}"),
            ("to `apriori-conv`, paired", "{change:+.4f} ± {change_stderr:.4f}"),
        ],
    ),
    "runs-of-zeros": Table(
        "parametrizations",
        {"benchmark": "parametrizations.runs_of_zeros", "part": "all"},
        [
            ("", "{method:code}"),
            (" ", "{arm}"),
            ("zeros", "{zeros:%1}"),
            ("in runs of", "{run:.1f}"),
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("paired", "{change:+.4f} ± {change_stderr:.4f}"),
            ("processor seconds", "{cpu_seconds:.0f}"),
        ],
    ),
    "monarch-sentences": Table(
        "parametrizations",
        {"benchmark": "parametrizations.projected"},
        [("kept", "{keep:%}"), ("", "{arm}")],
        right=[
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to `dense`", "[{change:+.4f} ± {change_stderr:.4f}]"),
            ("rate", "{rate:g}"),
            ("ms a step", "{step_ms:.0f}"),
        ],
    ),
    "pruning": Table(
        "parametrizations",
        {"benchmark": "parametrizations.pruning"},
        [("kept", "{keep:%}"), ("", "{arm}")],
        right=[
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to `pst`", "[{change:+.4f} ± {change_stderr:.4f}]"),
            ("numbers that train", "{numbers:,}"),
            ("ms a step", "{step_ms:.0f}"),
        ],
    ),
    "super-resolution": Table(
        "parametrizations",
        {"benchmark": "parametrizations.super_resolution"},
        [
            ("", "{arm}"),
            ("PSNR in dB", "{psnr:.3f} ± {spread:.3f}"),
            ("to `iss-p`, paired", "{change:+.3f} ± {change_stderr:.3f}"),
        ],
    ),
}
