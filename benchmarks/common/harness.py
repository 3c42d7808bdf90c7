"""What the benchmarks share: a model, its judges, and methods x budgets x currencies in one table.

A program makes a `Bench` and calls `main`. Its rows, one a method and a budget, are those of `rows.py`: those that the
file of --json holds already are not computed again, and --markdown prints its tables without computing anything.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from benchmarks.common.rows import MEASURED, Row, Rows, add_option
from eckart import METHODS
from eckart.budget.currencies import CURRENCIES
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.jobs.compress.trials import Tried, trials
from eckart.jobs.evaluate.speed import speed
from eckart.models.sharing import share
from eckart.models.sites import Site
from eckart.progress import silent
from eckart.statistics import Need, Statistics

BUDGET = ("method", "of", "keep")
"""What tells the rows of one setting apart."""


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
        benchmark: the module under `benchmarks` that it is of.
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

    benchmark: str
    setting: Mapping[str, Any]
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
    made.add_argument("--run", help="what the run is called in its rows, where a page tells it from others")
    add_option(made)
    made.add_argument("--markdown", action="store_true", help="print the tables of --json, and compute nothing")
    return made


def main(options: argparse.Namespace, benchmark: str, bench: Callable[[], Bench]) -> None:
    """Computes the rows that are missing and prints the table of all."""
    rows = Rows(benchmark, options.json)
    if options.markdown:
        if options.json is None:
            raise SystemExit("--markdown prints what a file holds: name it with --json FILE")
        print(markdown([row for row in rows if row.source == MEASURED]))
        return
    unknown = sorted(set(options.of.split(",")) - set(CURRENCIES))
    if unknown:
        raise SystemExit(f"--of {options.of}: unknown {', '.join(unknown)}; there are {', '.join(CURRENCIES)}")
    budgets = [(of, float(keep)) for of in options.of.split(",") for keep in options.keep.split(",")]
    made = bench()
    setting = dict(made.setting) | ({"run": options.run} if options.run else {})
    print(markdown(compute(replace(made, setting=setting), options.methods.split(","), budgets, rows, options.decode)))


def compute(
    bench: Bench, names: Sequence[str], budgets: Sequence[tuple[str, float]], rows: Rows, decode: bool
) -> list[Row]:
    """The rows of all methods at all budgets (currency, share), and of the dense model first.

    `cpu_seconds` are those of fitting, which all budgets of a method share, and of this row's choice, with what it
    measures and its trials, and building; those of statistics and judges are not in it.
    """
    listed: list[Row] = []

    def what(*budget: object) -> dict[str, Any]:
        return {**bench.setting, **dict(zip(BUDGET, budget, strict=True))}

    def done(*budget: object) -> Row | None:
        row = rows.get(what(*budget))
        whole = row is not None and ("refused" in row.found or row.found["scores"].keys() >= bench.judges.keys())
        timed = row is not None and (not decode or budget[0] == "dense" or {"refused", "decode_ratio"} & set(row.found))
        return row if whole and timed else None

    def show(row: Row) -> None:
        listed.append(row)
        print(_line(row), flush=True)

    def judged(model: nn.Module) -> dict[str, Any]:
        size = make_plan(model, [], METHODS.find("svd"), {}).totals
        return {
            "score": bench.score,
            "distance": bench.distance,
            "ascending": bench.ascending,
            "scores": {name: vars(judge(model)) for name, judge in bench.judges.items()},
            "size": size,
            "megabytes": size["bytes"] / 1e6,
        }

    dense = "dense", "", 1.0
    show(done(*dense) or rows.add(what(*dense), judged(bench.model)))
    missing = [name for name in names if any(done(name, *budget) is None for budget in budgets)]
    needs = sorted({n for name in missing for n in METHODS.find(name).needs}, key=lambda need: need.value)
    statistics = bench.statistics(needs) if missing else {}
    for name in names:
        plan, fitted = None, 0.0
        for of, keep in budgets:
            if known := done(name, of, keep):
                show(known)
                continue
            clock = time.process_time()
            if plan is None:
                card = METHODS.find(name)
                plan = make_plan(bench.model, bench.sites, card, statistics)
                plan.fit(errors=card.allocation != "uniform")
                fitted = time.process_time() - clock
                clock = time.process_time()
            try:
                choice, tried = chosen(plan, bench.model, bench.trial, of, keep)
            except ValueError as error:
                show(rows.add(what(name, of, keep), {"refused": str(error)}))
                continue
            small = share(bench.model)
            apply(small, plan, choice)
            found: dict[str, Any] = {"trials": tried, "cpu_seconds": fitted + time.process_time() - clock}
            if decode:
                rates = speed({"dense": bench.model, "small": small}, prefill_tokens=128, decode_tokens=32)
                found["decode_ratio"] = rates["decode_ratio"]
            show(rows.add(what(name, of, keep), judged(small) | found))
    return listed


def chosen(
    plan: Plan, model: nn.Module, trial: Tensor | None, of: str, keep: float
) -> tuple[dict[str, int | None], list[Tried]]:
    """The choice of a plan at a budget, by trials on held-back token ids where there are some and it is of `auto`."""
    if plan.method.name != "auto" or trial is None:
        return plan.choose(keep, of), []
    # The trials at a budget start from the errors as they were measured, whatever was tried before.
    plan.scale({name: 1 / factor for name, factor in plan.factors.items()})

    def choose(
        only: str | None = None, *, even: bool = False, uniform: bool = False, guess: bool = False
    ) -> dict[str, int | None]:
        pick = plan.solve if guess else plan.choose
        return pick(keep, of, "uniform" if uniform else None, only=only, even=even)

    return trials(plan, model, trial, choose, apply, silent)


def front(rows: Sequence[Mapping[str, Any]], judge: str) -> list[bool]:
    """Which `found` are on the Pareto front: no smaller model scores as well, or worse by their error at most."""

    def dominated(found: Mapping[str, Any]) -> bool:
        score, sign = found["scores"][judge], -1 if found["ascending"] else 1
        bytes_, value = found["size"]["bytes"], sign * score["value"]
        others = [(r["size"]["bytes"], sign * r["scores"][judge]["value"]) for r in rows if "refused" not in r]
        return any((b < bytes_ and v <= value + score["stderr"]) or (b == bytes_ and v < value) for b, v in others)

    return ["refused" not in found and not dominated(found) for found in rows]


def markdown(rows: Sequence[Row]) -> str:
    """A table for each setting: the smallest models for their score, within its standard error, are marked `*`."""
    settings: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        setting = {name: value for name, value in row.what.items() if name not in BUDGET}
        settings[", ".join(f"{name} {value}" for name, value in setting.items())].append(row)
    return "\n\n".join(f"{title}\n\n{_table(mine)}" for title, mine in settings.items())


def _table(rows: Sequence[Row]) -> str:
    found = [row.found for row in rows]
    first = next(f for f in found if "refused" not in f)
    judges, decode = sorted(first["scores"]), any("decode_ratio" in f for f in found)
    head = [*BUDGET[:2], "kept"]
    for judge in judges:
        head += [f"{first['score']} on {judge}", first["distance"]]
    head += ["MB", "M parameters", "M macs", "CPU s", *(["decode"] if decode else [])]
    marks = {judge: front(found, judge) for judge in judges}
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for i, row in enumerate(rows):
        cells = _cells(row.found, {judge: marks[judge][i] for judge in judges}, decode)
        what = row.what
        lines.append(f"| `{what['method']}` | {what['of']} | {what['keep']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(found: Mapping[str, Any], marks: Mapping[str, bool], decode: bool) -> list[str]:
    if "refused" in found:
        return [found["refused"].replace("|", "/")] + [""] * (2 * len(marks) + 3 + decode)
    cells = []
    for judge, marked in marks.items():
        score = found["scores"][judge]
        cells += [_score(score) + " *" * marked, f"{score['distance']:.4f}"]
    cells += [f"{found['size'][name] / 1e6:.1f}" for name in ("bytes", "parameters", "macs")]
    cells.append(f"{found['cpu_seconds']:.1f}" if "cpu_seconds" in found else "")
    if decode:
        cells.append(f"{found['decode_ratio']:.2f}x" if "decode_ratio" in found else "")
    return cells


def _score(score: Mapping[str, float]) -> str:
    value, stderr = score["value"], score["stderr"]
    digits = ".4f" if abs(value) < 1 else ".2f" if abs(value) < 1e5 else ".1e"
    return f"{value:{digits}} ± {stderr:{digits}}"


def _line(row: Row) -> str:
    """A row as it is finished."""
    what, found = row.what, row.found
    first = f"{what['method']:>16} {what['of']:>17} {what['keep']:.2f}  "
    if "refused" in found:
        return f"{first}{found['refused'][:110]}"
    scores = "  ".join(f"{name} {_score(s)} ({s['distance']:.4f})" for name, s in found["scores"].items())
    tried = [
        f"\n{'':>24}trial of {trial['method']}: {trial['kl']:.3f}, predicted {trial['predicted_kl']:.3f}"
        for trial in found.get("trials", [])
    ]
    return f"{first}{found['megabytes']:7.1f} MB  {scores}  {found.get('cpu_seconds', 0):.0f} s{''.join(tried)}"
