"""`eckart diagnose` on the command line."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.text import Text

from eckart.bars import bars


def add_to(commands: Any) -> None:
    """Adds the command and its arguments to the subparsers of `eckart`."""
    parser = commands.add_parser("diagnose", help="spectra, heavy tails, what changed, and what compressing would cost")
    parser.add_argument("model", help="a local directory, an adapter, a GGUF file, a hub name, or smollm2")
    parser.add_argument("--against", help="the model it came from: what moved, and intruder dimensions")
    parser.add_argument("--text", help="file or name of a text: hidden states, and curves of what a cut would cost")
    parser.add_argument("--out", help="directory to make, with diagnosis.json (default: print the table only)")
    parser.add_argument("--include", action="append", default=[], help="pattern of matrices to take; repeatable")
    parser.add_argument("--exclude", action="append", default=[], help="pattern of matrices to leave; repeatable")
    parser.add_argument("--samples", type=int, default=16, help="sequences of the text (default %(default)s)")
    parser.add_argument("--length", type=int, default=256, help="tokens in each (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from eckart.diagnose.directory import diagnose_directory
    from eckart.report.diagnosis import diagnosis_tables

    with bars() as progress:
        report = diagnose_directory(
            options.model,
            against=options.against,
            text=options.text,
            out=options.out,
            include=options.include,
            exclude=options.exclude,
            samples=options.samples,
            length=options.length,
            seed=options.seed,
            progress=progress,
        )
    output = Console()
    for table in diagnosis_tables(report):
        output.print(table)
    for row in report["matrices"]:
        for note in row["notes"]:
            output.print(Text(f"note: {row['name']}: {note}"))
    for warning in report["warnings"]:
        output.print(Text(f"warning: {warning}"))
    if options.out:
        output.print(Text(f"wrote {options.out}/diagnosis.json in {report['seconds']:.0f} s"))
    return 0
