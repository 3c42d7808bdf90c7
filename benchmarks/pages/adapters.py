"""The tables of adapters, and of what it costs to start and to train them."""

from __future__ import annotations

from benchmarks.pages.tables import Heads, Table


def _task(task: str, score: str) -> Table:
    columns: Heads = [
        ("adapter", "{method:code}"),
        (score, "{score:.3f} ± {spread:.3f}"),
        ("forgotten", "{forgotten:.3f}"),
        ("start", "{start:.2f}"),
        ("ms", "{step_ms:.0f}"),
        ("held", "{held_megabytes:.0f}"),
        ("trains", "{trains_megabytes:.2f}"),
        ("merged", "[{after.merged:.3f}]"),
        ("as LoRA", "[{after.as lora:.3f}]"),
        ("4 bits", "[{after.4 bits:.3f}]"),
        ("intruders", "[{after.intruders:.0f}]"),
        ("rate", "{rate:g}"),
    ]
    return Table("adapters", {"benchmark": "adapters.tasks", "task": task}, columns)


def _stream(stream: str, lost: str) -> Table:
    columns: Heads = [
        ("arm", "{arm}"),
        ("accuracy", "{accuracy.mean:.4f} ± {accuracy.spread:.4f}"),
        ("over `lora`", "[{over lora.mean:+.4f} ± {over lora.stderr:.4f}]"),
        ("transfer", "{transfer.mean:+.4f}"),
        ("learned", "{learned.mean:.4f}"),
        (lost, "{forgotten.mean:.3f} ± {forgotten.spread:.3f}"),
        ("trains", "{numbers.mean:,.0f}"),
        ("seconds", "{seconds.mean:.0f}"),
        ("setting", "{setting}"),
    ]
    return Table("adapters", {"benchmark": "adapters.sequence", "stream": stream}, columns)


def _apart(stream: str, part: str) -> Table:
    columns: Heads = [
        ("arm", "{arm}"),
        ("rate", "{rate:g}"),
        ("alone", "{alone.mean:.4f} ± {alone.spread:.4f}"),
        ("forgotten", "{forgotten.mean:.4f}"),
        ("summed", "{summed.mean:.4f} ± {summed.spread:.4f}"),
        ("averaged", "{averaged.mean:.4f} ± {averaged.spread:.4f}"),
        ("overlap", "{overlap.mean:.3f}"),
        ("trains", "{numbers.mean:,.0f}"),
    ]
    return Table("adapters", {"benchmark": "adapters.apart", "part": part, "stream": stream}, columns)


TABLES = {
    "adapters-step": Table(
        "adapters",
        {"benchmark": "adapters.step"},
        [
            ("adapter", "{method:code}"),
            ("numbers that train", "[{numbers:,}]"),
            (
                "ms",
                "{path_ms:.1f}[, regulariser {others_ms:.1f}][; {turn_ms:.1f} while places move]",
            ),
            ("keeps, MB", "[{kept_megabytes:.2f}]"),
        ],
    ),
    "adapters-terms": Table(
        "adapters",
        {"benchmark": "adapters.terms"},
        [
            ("model", "{model}"),
            ("largest rank", "{rank}"),
            ("matrices with fewer terms", "{fewer} of {matrices}"),
            ("terms kept", "{share:%}"),
            ("least", "{least}"),
        ],
    ),
    "adapters-sst2": _task("sst2", "accuracy"),
    "adapters-gsm8k": _task("gsm8k", "loss"),
    "adapters-turned": _task("turned", "accuracy"),
    "adapters-decompositions": Table(
        "adapters",
        {"benchmark": "adapters.starts", "part": "decompositions"},
        [
            ("decompositions alone", "{arm}"),
            ("seconds", "{seconds:.2f}"),
            ("excess", "{excess.median:short}, {excess.largest:short}"),
            ("sine", "{sine.median:short}"),
        ],
    ),
    "adapters-starts": Table(
        "adapters",
        {"benchmark": "adapters.starts", "part": "starts"},
        [("start alone", "{arm}"), ("PEFT 0.21.2", "{theirs:.2f}"), ("eckart", "[{ours:.2f}]")],
    ),
    "adapters-after-svd-step": Table(
        "adapters",
        {"benchmark": "adapters.welore", "part": "step"},
        [
            ("model", "{model}"),
            ("what trains", "{arm}"),
            ("numbers", "{numbers:,}"),
            ("weights, MB", "{weights_megabytes:.0f}"),
            ("gradients and moments, MB", "{training_megabytes:.0f}"),
            ("kept for the way back, MB", "{held_megabytes:.0f}"),
            ("peak beside the weights, MB", "{peak_megabytes:.0f}"),
            ("seconds", "{seconds:.2f}"),
        ],
    ),
    "adapters-after-svd-learning": Table(
        "adapters",
        {"benchmark": "adapters.welore", "part": "learning"},
        [
            ("what trains", "{arm}"),
            ("numbers", "{numbers:,}"),
            ("loss", "{loss:.4f} ± {spread:.4f}"),
            ("to `factors`", "[{over factors:+.4f} ± {over factors_stderr:.4f}]"),
            ("accuracy", "{accuracy:.4f}"),
            ("step, ms", "{step_ms:.0f}"),
        ],
    ),
    "adapters-split": _stream("split", "digits lost"),
    "adapters-moved": _stream("moved", "upright lost"),
    "adapters-brown": _stream("brown", "embeddings drift"),
    "adapters-federated": Table(
        "adapters",
        {"benchmark": "adapters.federated"},
        [("", "{setting}"), (" ", "{arm}")],
        right=[
            ("rate", "{rate:g}"),
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to `ffa, orthonormal`", "[{change:+.4f} ± {change_stderr:.4f}]"),
        ],
    ),
    "adapters-modules": Table(
        "adapters",
        {"benchmark": "adapters.modules"},
        [
            ("", "{arm}"),
            ("accuracy", "{accuracy:.4f} ± {spread:.4f}"),
            ("to `random`", "{change:+.4f} ± {change_stderr:.4f}"),
            ("numbers in paths", "{numbers:,.0f}"),
        ],
    ),
    "adapters-apart-split": _apart("split", "rates"),
    "adapters-apart-moved": _apart("moved", "rates"),
}
