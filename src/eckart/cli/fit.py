"""`eckart fit`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from eckart.cli import options as o
from eckart.cli.options import Out, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show, warnings_of
from eckart.cli.tables import fit_table
from eckart.jobs.factor.directory import Wish, factor_directory

WISH = o.options_of(
    Wish,
    {o.WHAT: "method rank hold_out", o.DATA: "entries picture", o.OUTPUT: "top", o.RUN: "seed"},
    method=Parameter(help="NAME or NAME:OPTION=VALUE,...; eckart methods estimators and kernels list them"),
    rank=Parameter(help="number of factors (default: the method's)"),
    hold_out=Parameter(converter=o.share, help="share of the entries that is kept from the fit and predicted"),
    entries=Parameter(help="of a list of entries, its columns: user,item,rating"),
    picture=Parameter(help="HEIGHTxWIDTH, where each row is a picture: some are shown"),
    seed=o.SEED,
)


@o.taking(wish=WISH, talk=o.TALK)
def fit(
    data: Annotated[str, Parameter(help="a table: .csv, .tsv, .parquet, .npy, .npz, .mtx or .safetensors")],
    /,
    *,
    out: Out,
    wish: Wish,
    talk: Talk,
) -> int:
    """Factors a table of numbers: completes it, cleans it, finds what it is made of."""
    with bars(talk) as progress:
        report = factor_directory(data, out, wish, progress=progress)
    wrote = f"wrote {out} in {sum(report['seconds'].values()):.1f} s; open {out}/report.html"
    show(talk, report, [fit_table(report)], [*warnings_of(report), wrote])
    return 0
