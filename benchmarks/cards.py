"""Puts what the benchmarks measured on the methods' cards: writes src/eckart/methods/results.json.

    python -m benchmarks.cards --methods rows.jsonl --adapters rows.jsonl

The files are those that --json of `methods.py` and `adapters.py` wrote.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import harness

CARDS = Path(__file__).parent.parent / "src/eckart/methods/results.json"
CURRENCY = {"linear-parameters": "the linear parameters", "parameters": "the parameters", "bytes": "the bytes"}


def of_methods(rows: list[harness.Row]) -> dict[str, Any]:
    setting = rows[0]["setting"]
    if any(row["setting"] != setting for row in rows):
        raise SystemExit("the rows are of several settings: give the file of one run")
    (judge,) = setting["judges"]
    dense = next(row for row in rows if row["method"] == "dense")["scores"][judge]
    title = (
        f"{setting['model']}, {setting['tokens']} tokens of calibration ({setting['calibrated on']}), "
        f"{setting['score']} on {setting['judged on sequences']} sequences of {judge} (dense {dense['value']:.2f} ± "
        f"{dense['stderr']:.2f}), {setting['distance']} from the dense model, processor seconds of fitting and "
        "building, decoding beside the dense model; one thread of a busy machine"
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["method"] == "dense" or "refused" in row:
            continue
        score = row["scores"][judge]
        value = f"{score['value']:.2f} ± {score['stderr']:.2f}" if score["value"] < 1e4 else f"{score['value']:.1e}"
        speed = f", decodes {row['decode_ratio']:.2f} times as fast" if "decode_ratio" in row else ""
        found.setdefault(row["method"], []).append(
            f"{row['keep']:.0%} of {CURRENCY[row['of']]}: {setting['score']} {value}, {setting['distance']} "
            f"{score['distance']:.3f}, {row['size']['bytes'] / 1e6:.0f} MB, {row['cpu_seconds']:.0f} s{speed}"
        )
    return {"title": title, "rows": found}


def of_adapters(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for row in rows:
        runs = row["runs"]
        score, forgotten, step, held = (
            statistics.fmean(run[key] for run in runs) for key in ("score", "forgotten", "step", "held")
        )
        spread = statistics.stdev(run["score"] for run in runs) if len(runs) > 1 else 0.0
        what = "loss" if row["task"] == "gsm8k" else "accuracy"
        name = row["method"].removeprefix("peft:")
        whose = "" if name == row["method"] else " by PEFT's own"
        found.setdefault(name, []).append(
            f"{row['task']}{whose}: {what} {score:.3f} ± {spread:.3f} over {len(runs)} seeds, forgetting "
            f"{forgotten:.3f}, {1e3 * step:.0f} ms a step, {held / 1e6:.0f} MB held in a step, rate {row['rate']:g}"
        )
    settings = {
        row["task"]: f"{row['task']}, {row['steps']} steps of {row['batch']} examples, rank {row['rank']}"
        for row in rows
    }
    title = (
        f"all at the trainable numbers of a LoRA ({'; '.join(settings.values())}), the rate chosen on validation data; "
        "one thread of a busy machine"
    )
    return {"title": title, "rows": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True)
    options = parser.parse_args()
    methods, adapters = harness.read(options.methods), harness.read(options.adapters)
    cards = {"methods": of_methods(methods), "adapters": of_adapters(adapters)}
    CARDS.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
