"""The tables of what works with which class of model."""

from __future__ import annotations

from benchmarks.pages.tables import Table

_STEPS = {"benchmark": "models.support"}
_BUT_GGUF = ("awq", "compressed-tensors", "dense", "gptq", "merged", "onnx", "peft", "plain", "smaller")
"""Formats that say something else for each class that they refuse."""

TABLES = {
    "support": Table("models", _STEPS, [("", "{class}")], [("{step}", "{works}")]),
    "support-refusals": Table(
        "models", {**_STEPS, "works": "no"}, [("", "{class}"), ("", "{step}"), ("what it says", "{says}")]
    ),
    "trained": Table(
        "models",
        {"benchmark": "models.trained"},
        [
            ("", "{model}"),
            ("", "{run}"),
            ("measure", "{metric}"),
            ("dense", "[{before.mean:.3f} ± {before.stderr:.3f}]"),
            ("compressed", "{after.mean:.3f} ± {after.stderr:.3f}"),
            ("bytes before", "{bytes.before:,}"),
            ("after", "{bytes.after:,}"),
            ("dense again", "{dense again}"),
        ],
    ),
    "formats": Table("models", {"benchmark": "models.formats"}, [("", "{kind}")], [("`{format}`", "{share}")]),
    "formats-refusals": Table(
        "models",
        {"benchmark": "models.formats", "works": "no"},
        [("", "{kind}"), ("", "`{format}`"), ("what it says", "{says}")],
    ),
    "classes": Table("models", {"benchmark": "models.classes"}, [("", "{class}")], [("`{format}`", "{works}")]),
    "classes-refusals": Table(
        "models",
        {"benchmark": "models.classes", "works": "no", "format": _BUT_GGUF},
        [("", "{class}"), ("", "`{format}`"), ("what it says", "{says}")],
    ),
    "engines": Table(
        "models",
        {"benchmark": "models.engines"},
        [
            ("", "`{format}`"),
            ("run by", "{program}"),
            ("bytes", "{bytes:,}"),
            ("nats from the dense model", "{from dense:.4f}"),
            ("from eckart", "{from eckart:.1e}"),
            ("same next token", "{top:%1}"),
            ("tokens read a second", "{read a second:.0f}"),
            ("written", "[{written a second:.1f}]"),
        ],
    ),
    "larger": Table(
        "models",
        {"benchmark": "models.larger"},
        [
            ("parameters", "{size}"),
            ("", "{method}"),
            ("blocks compressed", "{blocks} of {of_blocks}"),
            ("bytes of the model", "{model_bytes:,}"),
            ("`--memory`, GB", "{allowed_gb}"),
            ("largest resident set, bytes", "{peak_bytes:,}"),
            ("processor seconds", "{cpu_seconds:.0f}"),
            ("of them to fit one block", "{cpu_seconds_a_block:.1f}"),
        ],
    ),
    "cluster": Table(
        "models",
        {"benchmark": "models.cluster"},
        [
            ("statistics of", "{statistics}"),
            ("workers", "{workers}"),
            ("processor seconds of the busiest", "{busiest:.1f}"),
            ("of all", "[{of all workers:.1f}]"),
            ("of the client", "[{of the client:.1f}]"),
            ("bytes between workers", "[{bytes:,}]"),
            ("difference", "[{apart:.0e}]"),
        ],
    ),
    "larger-on-paper": Table(
        "models",
        {"benchmark": "models.larger_on_paper"},
        [
            ("parameters", "{size}"),
            ("", "{method}"),
            ("blocks compressed", "{blocks}"),
            ("processor seconds, told", "{cpu_seconds:.0f}"),
            ("measured", "[{measured:.0f}]"),
            ("off by", "[{off:%1}]"),
            ("bytes of the model", "[{model_bytes:,}]"),
            ("written", "[{written_bytes:,.0f}]"),
        ],
    ),
    "support-coverage": Table(
        "models", {**_STEPS, "step": "kfac", "works": "yes"}, [("", "{class}"), ("what was looked at", "{says}")]
    ),
}
