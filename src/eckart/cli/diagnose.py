"""`eckart diagnose`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.cli.diagnosis_tables import diagnosis_tables
from eckart.cli.options import Memory, Options, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show, warnings_of
from eckart.jobs.diagnose.directory import diagnose_directory

HOW = o.options_of(
    diagnose_directory,
    {o.WHAT: "against include exclude", o.DATA: "text measure samples length", o.RUN: "seed device"},
    leave=["out", "cache", "memory", "progress"],
    against=Parameter(help="the model it came from: what moved, and intruder dimensions"),
    include=o.TAKE,
    exclude=o.LEAVE,
    text=Parameter(help="file, folder or name of a text: hidden states, and curves of what a cut would cost"),
    measure=Parameter(
        help="sizes to compress to, as in 0.9,0.7,0.5 of the linear parameters: the rise of the loss that is measured "
        "beside the one that is predicted",
        converter=o.shares,
        n_tokens=1,
    ),
    length=o.LENGTH,
    seed=o.SEED,
    device=o.DEVICE,
)


@o.taking(how=HOW, talk=o.TALK)
def diagnose(
    model: Annotated[str, Parameter(help="a local directory, an adapter, a GGUF file, a hub name, or smollm2")],
    /,
    *,
    how: Options,
    out: Annotated[
        str | None,
        Parameter(help="directory to make, with diagnosis.json (default: print the table only)", group=o.OUTPUT),
    ] = None,
    memory: Memory = None,
    talk: Talk,
) -> int:
    """Shows spectra, heavy tails, what changed, and what a cut would cost."""
    with bars(talk) as progress:
        report = diagnose_directory(model, **how.given(), out=out, memory=o.in_bytes(memory), progress=progress)
    lines = [f"note: {row['name']}: {text}" for row in report["matrices"] for text in row["notes"]]
    lines += warnings_of(report)
    if out:
        lines.append(f"wrote {out}/diagnosis.json in {report['seconds']:.0f} s; open {out}/report.html")
    show(talk, report, diagnosis_tables(report), lines)
    return 0
