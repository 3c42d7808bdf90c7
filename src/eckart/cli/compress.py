"""`eckart compress`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import Group, Parameter

from eckart.budget import ALLOCATIONS
from eckart.budget.currencies import CURRENCIES
from eckart.cli import options as o
from eckart.cli.dry_run import dry_run_tables
from eckart.cli.options import Device, Model, NoSpeed, Resume, Talk
from eckart.cli.progress_bars import bars
from eckart.cli.results import show, warnings_of
from eckart.cli.tables import summary_table
from eckart.cli.texts import TEXTS
from eckart.compressors.contract import SIZES
from eckart.errors import Refused
from eckart.jobs.compress.directory import compress_directory
from eckart.jobs.compress.dry_run import dry_run as expected
from eckart.jobs.compress.recipe import KEEP, Recipe
from eckart.jobs.texts import Texts

EITHER = Group("keep or max-loss", show=False, validator=o.one_of)
EACH: dict[str, Any] = {
    word: Parameter(help=f"instead, for every matrix: {said}") for word, said in SIZES.items() if hasattr(Recipe, word)
}
"""Sizes of every matrix."""

RECIPE = o.options_of(
    Recipe,
    {
        o.WHAT: "method include exclude embeddings head rotate",
        o.BUDGET: f"keep of allocation floor {' '.join(EACH)} group symmetric",
        o.DATA: "samples length",
        o.TRAINING: "sequential heal distill",
        o.RUN: "seed mixed_precision",
    },
    method=o.METHOD,
    include=o.TAKE,
    exclude=o.LEAVE,
    embeddings=Parameter(
        help="compress the embeddings too, and a head that is tied to them (default: where auto shares out bytes)",
        negative="--no-embeddings",
    ),
    head=Parameter(
        help="compress the output head too (default: where auto shares out bytes and takes embeddings)",
        negative="--no-head",
    ),
    keep=Parameter(
        group=(o.BUDGET, EITHER), converter=o.share, help=f"share that is kept, 0.8 or 80% (default {KEEP})"
    ),
    of=Parameter(help="of what", choices=list(CURRENCIES)),
    allocation=Parameter(help="how sizes are shared out (default: the method's)", choices=sorted(ALLOCATIONS)),
    floor=Parameter(converter=o.share),
    samples=o.SAMPLES,
    length=o.LENGTH,
    seed=o.SEED,
    group=Parameter(help="inputs that share a scale, of methods that quantize (default: the method's)"),
    symmetric=Parameter(help="no zero-points, of methods that quantize"),
    **EACH,
)


@o.taking(recipe=RECIPE, texts=TEXTS, talk=o.TALK)
def compress(
    model: Model,
    /,
    *,
    out: Annotated[str | None, Parameter(help="directory to make", group=o.OUTPUT)] = None,
    recipe: Recipe,
    max_loss: Annotated[
        float | None,
        Parameter(
            help="smallest model whose perplexity rises by at most this share, 0.05 or 5%",
            group=(o.BUDGET, EITHER),
            converter=o.share,
        ),
    ] = None,
    texts: Texts,
    memory: Annotated[
        float | None,
        Parameter(
            help="GB the run may take (default: what is free); a model that takes more is worked on block by block",
            group=o.RUN,
        ),
    ] = None,
    device: Device = "cpu",
    no_speed: NoSpeed = False,
    resume: Resume = False,
    scheduler: Annotated[
        str | None, Parameter(help="address of a Dask scheduler for statistics, fits and trials", group=o.RUN)
    ] = None,
    dry_run: Annotated[
        bool,
        Parameter(
            help="say what would be done, how small it gets and what it takes",
            group=o.RUN,
            show_default=False,
        ),
    ] = False,
    talk: Talk,
) -> int:
    """Makes a model smaller and measures what it cost."""
    texts = replace(texts, eval_length=recipe.length)
    if dry_run:
        with bars(talk) as progress:
            found = expected(
                model, recipe, texts, max_loss=max_loss, memory=o.in_bytes(memory), device=device, progress=progress
            )
        show(talk, found, dry_run_tables(found), found["notes"])
        return 0
    if out is None:
        raise Refused("eckart compress needs --out DIR, the directory to make; or --dry-run")
    started = time.perf_counter()
    with bars(talk) as progress:
        report = compress_directory(
            model,
            out,
            recipe,
            texts,
            max_loss=max_loss,
            resume=resume,
            scheduler=scheduler,
            memory=o.in_bytes(memory),
            device=device,
            measure_speed=not no_speed,
            progress=progress,
        )
    wrote = f"wrote {out} in {time.perf_counter() - started:.0f} s; open {out}/report.html"
    show(talk, report, [summary_table(report)], [*warnings_of(report), wrote])
    return 0
