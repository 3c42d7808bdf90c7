"""`eckart embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from eckart._version import __version__
from eckart.cli import options as o
from eckart.cli.options import Options, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show
from eckart.errors import Refused
from eckart.files.arrays import SUFFIXES, check_new_file, read_array, write_array
from eckart.files.json import write_json
from eckart.jobs.diagnose import embeddings as job

HOW = o.options_of(
    job.embeddings,
    {o.WHAT: "kernel bandwidth frequencies", o.RUN: "seed"},
    leave=["progress"],
    kernel=Parameter(help="of both sets", choices=job.KERNELS),
    bandwidth=Parameter(
        help=f"of the gaussian kernel (default: either set's median distance over {job.DRAWN} drawn pairs of rows)"
    ),
    frequencies=Parameter(help="drawn for the gaussian kernel"),
    seed=Parameter(help="of what is drawn"),
)


@o.taking(how=HOW, talk=o.NO_JSON)
def embeddings(
    images: Annotated[
        str, Parameter(help="the first set, images say: .npy or .safetensors (FILE or FILE:NAME), (n, d)")
    ],
    texts: Annotated[
        str, Parameter(help="the second set, captions say: rows that belong to those of the first, (n, e)")
    ],
    /,
    *,
    how: Options,
    nullify: Annotated[
        str | None,
        Parameter(help="an embedding like those of the second set, whose direction --out lacks", group=o.WHAT),
    ] = None,
    out: Annotated[
        str | None,
        Parameter(help=".npy or .safetensors to write: the first set without it (cosine only)", group=o.OUTPUT),
    ] = None,
    json: Annotated[
        str | None,
        Parameter(
            help="file to write the numbers to; - prints them instead of the table",
            group=o.OUTPUT,
            allow_leading_hyphen=True,
        ),
    ] = None,
    talk: Talk,
) -> int:
    """Says what of one set's diversity a second set, paired with it, explains."""
    given = how.given()
    if (nullify is None) != (out is None):
        raise Refused("--nullify FILE and --out FILE go together: a prompt, and where to write what is left")
    if out is not None:
        job.check_nullify(given["kernel"])
        check_new_file(out, *SUFFIXES)
    printed = json == "-"
    if json is not None and not printed:
        check_new_file(json)
    first, second = read_array(images), read_array(texts)
    prompt = None if nullify is None else read_array(nullify)
    with bars(talk) as progress:
        found = job.embeddings(first, second, **given, progress=progress)
    report = {"eckart": __version__, "first": images, "second": texts, **found.to_dict()}
    lines = [f"warning: {warning}" for warning in found.warnings]
    if prompt is not None and out is not None:
        write_array(found.nullified(first, prompt), out)
        lines.append(f"wrote {out}: {images} without the direction of {nullify}")
    if json is not None and not printed:
        write_json(report, Path(json), new=True)
        lines.append(f"wrote {json}")
    title = f"{images} given {texts}"
    show(Talk(json=printed), report, [table(found, title, given["bandwidth"] is None)], lines)
    return 0


def table(found: job.Embeddings, title: str, drawn: bool) -> Table:
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
