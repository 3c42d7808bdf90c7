"""What the benchmarks share: a model, its judges, and methods x budgets x currencies in one table.

A program makes a `Bench` and calls `main`. Rows are one JSON line each; those that the file of --json holds already are
not computed again, and --markdown prints its tables without computing anything.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eckart import METHODS
from eckart.budget.currencies import CURRENCIES
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.trials import trials
from eckart.jobs.evaluate.speed import speed
from eckart.models.sharing import share
from eckart.models.sites import Site
from eckart.progress import silent
from eckart.statistics import Need, Statistics

Row = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """What a judge says of a model.

    Attributes:
        value: the score.
        stderr: its standard error.
        distance: from the dense model, such as the KL divergence; 0 for itself.
    """

    value: float
    stderr: float
    distance: float


@dataclass(frozen=True)
class Bench:
    """A model and how it is judged.

    Attributes:
        setting: what its rows depend on besides method and budget: model, calibration, seed, ...; in JSON.
        model: dense; not changed.
        sites: the matrices that are compressed.
        judges: by name, a function from a model to its score.
        score: what the scores are, such as "perplexity".
        distance: what the distances are, such as "KL".
        statistics: collects what is needed, once, when the first row has to be computed.
        ascending: whether a larger score is the better one.
        trial: held-back token ids for the trials of `auto`; None for none.
    """

    setting: Row
    model: nn.Module
    sites: Sequence[Site]
    judges: Mapping[str, Callable[[nn.Module], Score]]
    score: str
    distance: str
    statistics: Callable[[Sequence[Need]], Mapping[str, Statistics]]
    ascending: bool = False
    trial: Tensor | None = None


def parser(text: str, *, of: str, keep: str = "0.9,0.8,0.7,0.6,0.5") -> argparse.ArgumentParser:
    """The options that all programs have, under the program's docstring."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--methods", default=",".join(sorted(METHODS)), help="names, with commas")
    made.add_argument("--of", default=of, help=f"currencies, with commas: {', '.join(CURRENCIES)}")
    made.add_argument("--keep", default=keep, help="shares that are kept, with commas")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--decode", action="store_true", help="time decoding too, of a language model")
    made.add_argument("--json", type=Path, help="file of finished rows, added to")
    made.add_argument("--markdown", action="store_true", help="print the tables of --json, and compute nothing")
    return made


def main(options: argparse.Namespace, bench: Callable[[], Bench]) -> None:
    """Computes the rows that are missing and prints the table of all."""
    if options.markdown:
        if options.json is None:
            raise SystemExit("--markdown prints what a file holds: name it with --json FILE")
        print(markdown(read(options.json)))
        return
    unknown = sorted(set(options.of.split(",")) - set(CURRENCIES))
    if unknown:
        raise SystemExit(f"--of {options.of}: unknown {', '.join(unknown)}; there are {', '.join(CURRENCIES)}")
    budgets = [(of, float(keep)) for of in options.of.split(",") for keep in options.keep.split(",")]
    print(markdown(compute(bench(), options.methods.split(","), budgets, options.json, options.decode)))


def read(file: Path | None) -> list[Row]:
    """The rows of a file; a last line that an interrupted run left unfinished is cut off."""
    if file is None or not file.exists():
        return []
    text = file.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, "utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def compute(
    bench: Bench, names: Sequence[str], budgets: Sequence[tuple[str, float]], file: Path | None, decode: bool
) -> list[Row]:
    """The rows of all methods at all budgets (currency, share), and of the dense model first.

    `cpu_seconds` are those of fitting, which all budgets of a method share, and of this row's choice, with what it
    measures and its trials, and building; those of statistics and judges are not in it.
    """
    setting = {**bench.setting, "score": bench.score, "distance": bench.distance, "ascending": bench.ascending}
    setting |= {"judges": sorted(bench.judges), "decode": decode}
    done = {(r["method"], r["of"], r["keep"]): r for r in read(file) if r["setting"] == setting}
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(_line(row), flush=True)
        if file is not None and (row["method"], row["of"], row["keep"]) not in done:
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")

    def judged(model: nn.Module, **about: Any) -> Row:
        scores = {name: vars(judge(model)) for name, judge in bench.judges.items()}
        size = make_plan(model, [], METHODS.find("svd"), {}).totals
        return {"setting": setting, **about, "size": size, "scores": scores}

    add(done.get(("dense", "", 1.0)) or judged(bench.model, method="dense", of="", keep=1.0))
    missing = [name for name in names if any((name, *budget) not in done for budget in budgets)]
    needs = sorted({n for name in missing for n in METHODS.find(name).needs}, key=lambda need: need.value)
    statistics = bench.statistics(needs) if missing else {}
    for name in names:
        plan, fitted = None, 0.0
        for of, keep in budgets:
            if (name, of, keep) in done:
                add(done[name, of, keep])
                continue
            clock = time.process_time()
            if plan is None:
                card = METHODS.find(name)
                plan = make_plan(bench.model, bench.sites, card, statistics)
                plan.fit(errors=card.allocation != "uniform")
                fitted = time.process_time() - clock
                clock = time.process_time()
            about: Row = {"method": name, "of": of, "keep": keep}
            try:
                choice, about["trials"] = _choose(plan, bench, of, keep)
            except ValueError as error:
                add({"setting": setting, **about, "refused": str(error)})
                continue
            small = share(bench.model)
            apply(small, plan, choice)
            about["cpu_seconds"] = fitted + time.process_time() - clock
            if decode:
                rates = speed({"dense": bench.model, "small": small}, prefill_tokens=128, decode_tokens=32)
                about["decode_ratio"] = rates["decode_ratio"]
            add(judged(small, **about))
    return rows


def _choose(plan: Plan, bench: Bench, of: str, keep: float) -> tuple[dict[str, int | None], list[Row]]:
    if plan.method.name != "auto" or bench.trial is None:
        return plan.choose(keep, of), []
    # The trials at a budget start from the errors as they were measured, whatever was tried before.
    plan.scale({name: 1 / factor for name, factor in plan.factors.items()})
    return trials(plan, bench.model, bench.trial, lambda only: plan.choose(keep, of, only=only), apply, silent)


def front(rows: Sequence[Row], judge: str) -> list[bool]:
    """Which rows are on the Pareto front: no smaller model scores as well, or worse by their standard error at most."""

    def dominated(row: Row) -> bool:
        score, sign = row["scores"][judge], -1 if row["setting"]["ascending"] else 1
        bytes_, value = row["size"]["bytes"], sign * score["value"]
        others = [(r["size"]["bytes"], sign * r["scores"][judge]["value"]) for r in rows if "refused" not in r]
        return any((b < bytes_ and v <= value + score["stderr"]) or (b == bytes_ and v < value) for b, v in others)

    return ["refused" not in row and not dominated(row) for row in rows]


def markdown(rows: Sequence[Row]) -> str:
    """A table for each setting: the smallest models for their score, within its standard error, are marked `*`."""
    tables = []
    settings = list({json.dumps(row["setting"], sort_keys=True): row["setting"] for row in rows}.values())
    for setting in settings:
        mine = [row for row in rows if row["setting"] == setting]
        judges = setting["judges"]
        head = ["method", "of", "kept"]
        for judge in judges:
            head += [f"{setting['score']} on {judge}", setting["distance"]]
        head += ["MB", "M parameters", "M macs", "CPU s", *(["decode"] if setting["decode"] else [])]
        marks = {judge: front(mine, judge) for judge in judges}
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for i, row in enumerate(mine):
            first = f"| `{row['method']}` | {row['of']} | {row['keep']:.2f} | "
            lines.append(first + " | ".join(_cells(row, {j: marks[j][i] for j in judges})) + " |")
        hidden = ("judges", "decode", "score", "distance", "ascending")
        title = ", ".join(f"{name} {value}" for name, value in setting.items() if name not in hidden)
        tables.append("\n".join([title, "", *lines]))
    return "\n\n".join(tables)


def _cells(row: Row, marks: Mapping[str, bool]) -> list[str]:
    setting = row["setting"]
    if "refused" in row:
        return [row["refused"].replace("|", "/")] + [""] * (2 * len(marks) + 3 + setting["decode"])
    cells = []
    for judge, marked in marks.items():
        score = row["scores"][judge]
        cells += [_score(score) + " *" * marked, f"{score['distance']:.4f}"]
    cells += [f"{row['size'][name] / 1e6:.1f}" for name in ("bytes", "parameters", "macs")]
    cells.append(f"{row['cpu_seconds']:.1f}" if "cpu_seconds" in row else "")
    if setting["decode"]:
        cells.append(f"{row['decode_ratio']:.2f}x" if "decode_ratio" in row else "")
    return cells


def _score(score: Row) -> str:
    value, stderr = score["value"], score["stderr"]
    digits = ".4f" if abs(value) < 1 else ".2f" if abs(value) < 1e5 else ".1e"
    return f"{value:{digits}} ± {stderr:{digits}}"


def _line(row: Row) -> str:
    """A row as it is finished."""
    first = f"{row['method']:>16} {row['of']:>17} {row['keep']:.2f}  "
    if "refused" in row:
        return f"{first}{row['refused'][:110]}"
    scores = "  ".join(f"{name} {_score(s)} ({s['distance']:.4f})" for name, s in row["scores"].items())
    tried = [
        f"\n{'':>24}trial of {trial['method']}: {trial['kl']:.3f}, predicted {trial['predicted_kl']:.3f}"
        for trial in row.get("trials", [])
    ]
    return f"{first}{row['size']['bytes'] / 1e6:7.1f} MB  {scores}  {row.get('cpu_seconds', 0):.0f} s{''.join(tried)}"
