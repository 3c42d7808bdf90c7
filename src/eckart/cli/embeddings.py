"""`eckart embeddings` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eckart._version import __version__
from eckart.cli.progress_bars import bars
from eckart.errors import Refused

if TYPE_CHECKING:
    from eckart.jobs.diagnose.embeddings import Embeddings


def run(options: argparse.Namespace) -> int:
    from eckart.files.arrays import SUFFIXES, check_new_file, read_array, write_array
    from eckart.jobs.diagnose.embeddings import check_nullify, embeddings
    from eckart.models.checkpoint import write_json

    if (options.nullify is None) != (options.out is None):
        raise Refused("--nullify FILE and --out FILE go together: a prompt, and where to write what is left")
    if options.out is not None:
        check_nullify(options.kernel)
        check_new_file(options.out, *SUFFIXES)
    if options.json is not None:
        check_new_file(options.json)
    first, second = read_array(options.images), read_array(options.texts)
    prompt = None if options.nullify is None else read_array(options.nullify)
    with bars() as progress:
        found = embeddings(
            first,
            second,
            kernel=options.kernel,
            bandwidth=options.bandwidth,
            frequencies=options.frequencies,
            seed=options.seed,
            progress=progress,
        )
    output = Console()
    output.print(table(found, f"{options.images} given {options.texts}", options.bandwidth is None))
    for warning in found.warnings:
        output.print(Text(f"warning: {warning}"))
    if prompt is not None:
        write_array(found.nullified(first, prompt), options.out)
        output.print(Text(f"wrote {options.out}: {options.images} without the direction of {options.nullify}"))
    if options.json is not None:
        names = {"eckart": __version__, "first": options.images, "second": options.texts}
        write_json({**names, **found.to_dict()}, Path(options.json))
        output.print(Text(f"wrote {options.json}"))
    return 0


def table(found: Embeddings, title: str, drawn: bool) -> Table:
    """What was found as a table of two columns; `drawn` where bandwidths are median distances."""
    from eckart.diagnostics.contract import columns_of

    shown = Table(title=Text(title), title_justify="left", show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    rows = {
        "pairs": str(found.pairs.count),
        "dimensions": "{} and {}".format(*found.dimensions),
        "kernel": found.kernel,
    }
    if found.bandwidths is not None:
        rows["bandwidths" + ", the median distances" * drawn] = "{:.4g} and {:.4g}".format(*found.bandwidths)
        rows["frequencies"] = str(found.frequencies)
    for name, column in columns_of("pairs").items():
        value = found.numbers.get(name)
        if isinstance(value, float):
            rows[column.heading(name)] = f"{value:.3f}" + " nats" * (column.unit == "nats")
        elif value is not None:
            rows[column.heading(name)] = str(value)
    for name, value in rows.items():
        shown.add_row(name, value)
    return shown
