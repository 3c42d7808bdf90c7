"""`eckart diagnose` on the command line."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.text import Text

from eckart.bars import bars


def run(options: argparse.Namespace) -> int:
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
