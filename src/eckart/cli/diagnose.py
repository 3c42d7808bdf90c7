"""`eckart diagnose` on the command line."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.text import Text

from eckart.cli.progress_bars import bars
from eckart.errors import Refused


def run(options: argparse.Namespace) -> int:
    from eckart.cli.diagnosis_tables import diagnosis_tables
    from eckart.jobs.diagnose.directory import diagnose_directory

    with bars() as progress:
        report = diagnose_directory(
            options.model,
            against=options.against,
            text=options.text,
            measure=shares(options.measure),
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


def shares(text: str) -> list[float]:
    """Numbers with commas between them; Refused where one is no number."""
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise Refused(f"--measure {text}: shares with commas between them are needed, as in 0.9,0.7,0.5") from None
