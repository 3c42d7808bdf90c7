"""`eckart compensate`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.cli.options import Memory, Options, Out, Talk, Written
from eckart.cli.progress_bars import bars
from eckart.cli.results import show, warnings_of
from eckart.cli.tables import compensation_table
from eckart.cli.texts import TEXTS
from eckart.jobs.compensate.directory import compensate_directory
from eckart.jobs.texts import Texts

HOW = o.options_of(
    compensate_directory,
    {o.WHAT: "metric allocation", o.DATA: "samples length", o.RUN: "seed device"},
    leave=["cache", "memory", "progress"],
    metric=Parameter(help="eigen for the error of the outputs (default), diagonal, svd, or kfac for that of the loss"),
    allocation=Parameter(help="uniform, or greedy for one solve for all ranks"),
    samples=o.SAMPLES,
    length=o.LENGTH,
    seed=o.SEED,
    device=o.DEVICE,
)


@o.taking(how=HOW, texts=TEXTS, talk=o.TALK)
def compensate(
    model: Written,
    /,
    *,
    against: Annotated[str, Parameter(help="the model that was compressed", group=o.WHAT)],
    out: Out,
    rank: Annotated[int, Parameter(help="of the branches", group=o.WHAT)] = 32,
    how: Options,
    texts: Texts,
    memory: Memory = None,
    talk: Talk,
) -> int:
    """Adds low-rank branches for what the compression of a model lost."""
    given = how.given()
    texts = replace(texts, eval_length=given["length"])
    with bars(talk) as progress:
        report = compensate_directory(
            model, against, out, rank, texts, **given, memory=o.in_bytes(memory), progress=progress
        )
    wrote = f"wrote {out} in {sum(report['seconds'].values()):.0f} s; open {out}/report.html"
    show(talk, report, [compensation_table(report)], [*warnings_of(report), wrote])
    return 0
