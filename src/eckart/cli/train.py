"""`eckart train`."""

from __future__ import annotations

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.cli.options import Device, Model, Out, ReportTo, Resume, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show, warnings_of
from eckart.cli.tables import learning_table
from eckart.jobs.learning.loop import Training
from eckart.jobs.train.directory import Request, train_directory

REQUEST = o.options_of(
    Request,
    {o.WHAT: "optimizer other_rate parametrization include exclude scratch", o.DATA: "data validation length"},
    optimizer=Parameter(help="NAME or NAME:OPTION=VALUE,... of matrices; AdamW moves the rest"),
    other_rate=Parameter(help="rate of AdamW for the rest (default: 0.001; the rate with adamw)"),
    parametrization=Parameter(help="NAME or NAME:OPTION=VALUE,...: what trains in the places of matrices"),
    include=o.TAKE,
    exclude=o.LEAVE,
    scratch=Parameter(help="draw the weights anew: MODEL is a directory with config.json and a tokenizer"),
    data=Parameter(help=".jsonl of prompt and response, text, or text and label; a text file; or a folder"),
    validation=Parameter(help="file to judge by (default: a tenth of the data)"),
)
TRAINING = o.options_of(Training, {o.TRAINING: "steps rate batch decay clip every", o.RUN: "seed"})


@o.taking(request=REQUEST, training=TRAINING, talk=o.TALK)
def train(
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
    """Trains all of a model, or its configuration from the start."""
    with bars(talk) as progress:
        report = train_directory(
            model, out, request, training, resume=resume, device=device, report_to=report_to, progress=progress
        )
    wrote = f"wrote {out} in {sum(report['seconds'].values()):.0f} s; open {out}/report.html"
    show(talk, report, [learning_table(report)], [*warnings_of(report), wrote])
    return 0
