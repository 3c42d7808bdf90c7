"""`eckart adapt`."""

from __future__ import annotations

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.cli.options import Device, Model, Out, ReportTo, Resume, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show, warnings_of
from eckart.cli.tables import training_table
from eckart.jobs.adapt.directory import Request, adapt_directory
from eckart.jobs.learning.loop import Training

REQUEST = o.options_of(
    Request,
    {o.WHAT: "method rank alpha name include exclude", o.DATA: "data validation length text"},
    method=o.METHOD,
    rank=Parameter(help="how large"),
    alpha=Parameter(help="paths are multiplied by alpha / rank (default: rank)"),
    name=Parameter(help="of the adapter"),
    include=o.TAKE,
    exclude=o.LEAVE,
    data=Parameter(help=".jsonl of prompt and response, text, or text and label; a text file; or a folder"),
    validation=Parameter(help="file to judge by (default: a tenth of the data)"),
    text=Parameter(name="--eval", help="text to measure forgetting on, or none", converter=o.text_or_none),
)
TRAINING = o.options_of(Training, {o.TRAINING: "steps rate batch decay clip every", o.RUN: "seed"})


@o.taking(request=REQUEST, training=TRAINING, talk=o.TALK)
def adapt(
    model: Model,
    /,
    *,
    out: Out,
    request: Request,
    training: Training,
    resume: Resume = False,
    device: Device = "cpu",
    report_to: ReportTo = (),
    talk: Talk,
) -> int:
    """Trains a few numbers beside the frozen matrices of a model."""
    with bars(talk) as progress:
        report = adapt_directory(
            model, out, request, training, resume=resume, device=device, report_to=report_to, progress=progress
        )
    seconds = sum(report["seconds"].values())
    wrote = f"wrote {out} in {seconds:.0f} s; open {out}/report.html, and put it to use with eckart.load_adapter"
    show(talk, report, [training_table(report)], [*warnings_of(report), wrote])
    return 0
