"""The command line: `eckart compress | compensate | adapt | diagnose | embeddings | evaluate | export | methods`."""

from __future__ import annotations

import argparse
import errno
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from eckart._version import __version__
from eckart.cli import diagnose as command
from eckart.cli import embeddings as embeddings_command
from eckart.cli.options import parser
from eckart.cli.progress_bars import bars, console
from eckart.errors import Refused


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for a request that cannot be met, 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        if getattr(options, "resume", False) and not Path(f"{options.out}.partial").exists():
            what = f"there is no {options.out}.partial to go on with: starting from the beginning"
            console.print(f"[bold]eckart:[/] {_plain(what)}", highlight=False, soft_wrap=True)
        return COMMANDS[options.command](options)
    except Refused as error:
        console.print(f"[bold red]eckart: error:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        hint = ""
        if getattr(options, "out", None) and Path(f"{options.out}.partial").exists():
            hint = "; run the same command with --resume to go on"
        console.print(f"[bold]eckart: interrupted[/]{hint}", highlight=False)
        return 130
    except OSError as error:
        what = str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"the disk is full ({error.filename or error.strerror}): free some space, then "
            what += "go on with --resume" if hasattr(options, "resume") else "try again"
        console.print(f"[bold red]eckart: error:[/] {_plain(what)}", highlight=False, soft_wrap=True)
        return 2


def _plain(text: object) -> str:
    from rich.markup import escape

    return escape(str(text))


def _compress(options: argparse.Namespace) -> int:
    from eckart.cli.tables import summary_table
    from eckart.jobs.compress.directory import Texts, compress_directory
    from eckart.jobs.compress.recipe import Recipe

    recipe = Recipe(
        method=options.method,
        keep=options.keep,
        of=options.of,
        allocation=options.allocation,
        floor=options.floor,
        include=tuple(options.include),
        exclude=tuple(options.exclude),
        embeddings=options.embeddings,
        head=options.head,
        sequential=options.sequential,
        heal=options.heal,
        distill=options.distill,
        samples=options.samples,
        length=options.length,
        seed=options.seed,
    )
    evaluation = "" if options.eval == "none" else options.eval
    texts = Texts(options.calibration, evaluation, options.eval_samples, options.length)
    started = time.perf_counter()
    with bars() as progress:
        report = compress_directory(
            options.model,
            options.out,
            recipe,
            texts,
            max_loss=options.max_loss,
            resume=options.resume,
            scheduler=options.scheduler,
            memory=None if options.memory is None else _bytes(options.memory),
            measure_speed=not options.no_speed,
            progress=progress,
        )
    output = Console()
    output.print(summary_table(report))
    for warning in report["warnings"]:
        output.print(f"warning: {_plain(warning)}", highlight=False)
    output.print(f"wrote {options.out} in {time.perf_counter() - started:.0f} s; open {options.out}/report.html")
    return 0


def _compensate(options: argparse.Namespace) -> int:
    from eckart.cli.tables import compensation_table
    from eckart.jobs.compensate.directory import compensate_directory
    from eckart.jobs.compress.directory import Texts

    evaluation = "" if options.eval == "none" else options.eval
    with bars() as progress:
        report = compensate_directory(
            options.model,
            options.against,
            options.out,
            options.rank,
            Texts(options.calibration, evaluation, options.eval_samples, options.length),
            metric=options.metric,
            allocation=options.allocation,
            samples=options.samples,
            length=options.length,
            seed=options.seed,
            memory=None if options.memory is None else _bytes(options.memory),
            progress=progress,
        )
    output = Console()
    output.print(compensation_table(report))
    for warning in report["warnings"]:
        output.print(f"warning: {_plain(warning)}", highlight=False)
    output.print(f"wrote {options.out} in {sum(report['seconds'].values()):.0f} s")
    return 0


def _adapt(options: argparse.Namespace) -> int:
    from eckart.cli.tables import training_table
    from eckart.jobs.adapt.directory import Request, adapt_directory
    from eckart.jobs.adapt.train import Training

    request = Request(
        data=options.data,
        method=options.method,
        rank=options.rank,
        alpha=options.alpha,
        name=options.name,
        include=tuple(options.include),
        exclude=tuple(options.exclude),
        validation=options.validation,
        length=options.length,
        text="" if options.eval == "none" else options.eval,
    )
    training = Training(
        options.steps, options.rate, options.batch, options.decay, every=options.every, seed=options.seed
    )
    with bars() as progress:
        report = adapt_directory(
            options.model, options.out, request, training, resume=options.resume, progress=progress
        )
    Console().print(training_table(report))
    print(f"wrote {options.out} in {sum(report['seconds'].values()):.0f} s; put it to use with eckart.load_adapter")
    return 0


def _bytes(gigabytes: float) -> int:
    if not 1e-9 <= gigabytes < math.inf:
        raise Refused(f"memory={gigabytes} is no number of GB above 0")
    return round(gigabytes * 1e9)


def _evaluate(options: argparse.Namespace) -> int:
    from eckart.jobs.calibration import text_of
    from eckart.jobs.compress.directory import check_length, quality_report, speed_lengths
    from eckart.jobs.evaluate.quality import evaluate
    from eckart.jobs.evaluate.speed import file_bytes, peak_rss_bytes, speed
    from eckart.models.transformers import load_model
    from eckart.texts.sequences import sequences

    text = text_of(options.text)
    model, tokenizer = load_model(options.model)
    check_length(model, options.length)
    reference = load_model(options.against)[0] if options.against else None
    held_out = sequences(tokenizer, text, options.length, options.samples, options.seed)
    with bars() as progress:
        result = evaluate(
            model, held_out, reference, micro_batch=4, on_progress=lambda d, n: progress("evaluate", d, n)
        )
    report = {"eckart": __version__, "model": options.model, "quality": quality_report(result, options.text)}
    if not options.no_speed:
        report["speed"] = speed(model, **speed_lengths(model))
    if Path(options.model).is_dir():
        report["bytes"] = file_bytes(options.model)
    report["memory"] = {"peak_rss_bytes": peak_rss_bytes()}
    print(json.dumps(report, indent=1))
    return 0


def _export(options: argparse.Namespace) -> int:
    from eckart.jobs.adapt.files import ADAPTER
    from eckart.jobs.adapt.peft import export_adapter
    from eckart.jobs.export import to_dense_directory, to_peft_directory

    if (Path(options.model) / ADAPTER).is_file():
        if options.to != "peft":
            raise Refused(f"{options.model} is an adapter, which has no dense form of its own: export --to peft")
        errors = export_adapter(options.model, options.out, options.rank)
        worst = max(errors, key=errors.__getitem__)
        console.print(f"relative error of the conversion: at most {errors[worst]:.2e} ({worst})", highlight=False)
    else:
        {"dense": to_dense_directory, "peft": to_peft_directory}[options.to](options.model, options.out)
    console.print(f"wrote {options.out}")
    return 0


def _methods(options: argparse.Namespace) -> int:
    from eckart.cli.cards import printed, tables

    output = Console()
    if options.name:
        output.print(Text(printed(options.name)))
    else:
        output.print(*tables())
    return 0


COMMANDS = {
    "compress": _compress,
    "compensate": _compensate,
    "adapt": _adapt,
    "diagnose": command.run,
    "embeddings": embeddings_command.run,
    "evaluate": _evaluate,
    "export": _export,
    "methods": _methods,
}


if __name__ == "__main__":
    sys.exit(main())
