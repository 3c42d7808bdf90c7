"""What a run did, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from eckart.report.numbers import shown_bytes, shown_change, shown_count, shown_number


def summary_table(report: Mapping[str, Any]) -> Table:
    """What a compression did: before and after, a row for each thing that was measured."""
    title = Text(f"{report['model']}, method {report['method']}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right", no_wrap=True)

    def row(
        name: str,
        before: float,
        after: float,
        show: Callable[[float], str],
        errors: tuple[str, str] = ("", ""),
    ) -> None:
        cells = (name, show(before) + errors[0], show(after) + errors[1], shown_change(before, after))
        table.add_row(*(Text(cell) for cell in cells))

    for name, pair in report["size"].items():
        row(name.replace("_", " "), pair["before"], pair["after"], shown_bytes if name == "bytes" else shown_count)
    if quality := report.get("quality"):
        before, after = quality["before"], quality["after"]
        row(quality["metric"], before["mean"], after["mean"], shown_number, (_plus_minus(before), _plus_minus(after)))
    speed = report.get("speed") or {}
    for phase in ("prefill", "decode"):
        if pair := speed.get(f"{phase}_tokens_per_second"):
            row(f"{phase} tokens/s", pair["before"], pair["after"], shown_number)
    return table


def training_table(report: Mapping[str, Any]) -> Table:
    """What a `training.json` says of the model before and after."""
    title = Text(
        f"{report['model']}, {report['method']} of rank {report['rank']}, {shown_count(report['parameters'])} trained"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    if validation := report["validation"]:
        best = min(validation, key=lambda each: float(each["loss"]))
        table.add_row(
            "validation loss",
            shown_number(validation[0]["loss"]),
            f"{shown_number(best['loss'])} (step {best['step']})",
        )
    if forgetting := report["forgetting"]:
        cells = [shown_number(forgetting[when]["perplexity"]) for when in ("before", "after")]
        table.add_row(f"perplexity of {forgetting['text']}", *cells)
    return table


def learning_table(report: Mapping[str, Any]) -> Table:
    """What a `train.json` says of the model before and after."""
    how = " ".join(filter(None, (report["optimizer"], report["parametrization"])))
    title = Text(f"{report['model']}, {how}, {shown_count(report['parameters'])} trained")
    table = Table(title=title, title_justify="left")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=True)
    if validation := report["validation"]:
        kept = next(each for each in reversed(validation) if each["step"] == report["best_step"])
        after = f"{shown_number(kept['loss'])} (step {kept['step']})"
        table.add_row("validation loss", shown_number(validation[0]["loss"]), after)
    table.add_row("loss of a step", shown_number(report["loss"][0]), shown_number(report["loss"][-1]))
    table.add_row("state of the optimizer", "", shown_bytes(report["optimizer_bytes"]))
    return table


def fit_table(report: Mapping[str, Any]) -> Table:
    """What a `fit.json` says of a table, and its largest predictions."""
    size = report["table"]
    title = Text(f"{report['data']}, {size['rows']} x {size['columns']}, {report['method']}")
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    if size["observed"] < 1:
        table.add_row("observed", f"{size['observed']:.1%}")
    if report["singular_values"]:
        table.add_row("rank", str(len(report["singular_values"])))
    if report["error"] is not None:
        table.add_row("left over of the norm", f"{report['error']:.2%}")
    if held := report["held_out"]:
        table.add_row("error of entries held back", shown_number(held["rmse"]))
        table.add_row("by means of columns", shown_number(held["column_means"]))
    if course := report["course"]:
        table.add_row("iterations", f"{course['iterations']}{'' if course['converged'] else ', not converged'}")
    for each in report["predictions"][:5]:
        table.add_row(f"{each['row']}, {each['column']}", shown_number(each["value"]))
    return table


def compensation_table(report: Mapping[str, Any]) -> Table:
    """What a `compensation.json` says of the dense, the compressed and the compensated model, a row for each thing."""
    title = Text(f"{report['model']}, rank {report['rank']}, metric {report['metric']}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    states = ("dense", "before", "after")
    for heading in states:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, show in (("parameters", shown_count), ("bytes", shown_bytes)):
        table.add_row(name, *(show(report["size"][state][name]) for state in states))
    if quality := report["quality"]:
        for name in ("perplexity", "kl"):
            values = [quality[state].get(name) for state in states]
            table.add_row(name, *("" if value is None else shown_number(value) for value in values))
    return table


def _plus_minus(value: Mapping[str, float | None]) -> str:
    stderr = value.get("stderr")
    return "" if stderr is None else f" ± {stderr:.2g}"
