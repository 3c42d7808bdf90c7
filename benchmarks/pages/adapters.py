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
}
