"""The command line: `eckart compress | compensate | diagnose | evaluate | export | methods`."""

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
from rich.table import Table

from eckart._version import __version__
from eckart.bars import bars, console
from eckart.diagnose import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0, 2 for a request that cannot be met, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except ValueError as error:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("eckart", description="Stores matrices as fewer numbers and keeps what matters.")
    parser.add_argument("--version", action="version", version=f"eckart {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    compress = commands.add_parser("compress", help="make a model smaller and measure what it cost")
    compress.add_argument("model", help="a local directory, a GGUF file, a hub name, or smollm2")
    compress.add_argument("--out", required=True, help="directory to make")
    compress.add_argument("--method", default="kfac", help="see eckart methods (default %(default)s)")
    budget = compress.add_mutually_exclusive_group()
    budget.add_argument("--keep", type=float, default=0.8, help="share that is kept (default %(default)s)")
    budget.add_argument("--max-loss", type=float, help="smallest model whose perplexity rises by at most this share")
    compress.add_argument("--of", default="linear-parameters", help="linear-parameters, parameters, bytes or macs")
    compress.add_argument("--allocation", help="uniform, greedy, exact, threshold or farms (default: the method's)")
    compress.add_argument("--floor", type=float, default=0.1, help="least share a matrix keeps (default %(default)s)")
    compress.add_argument("--include", action="append", default=[], help="pattern of matrices to take; repeatable")
    compress.add_argument("--exclude", action="append", default=[], help="pattern of matrices to leave; repeatable")
    compress.add_argument("--embeddings", action="store_true", help="compress the embeddings too")
    compress.add_argument("--head", action="store_true", help="compress the output head too")
    compress.add_argument("--sequential", action="store_true", help="fit again behind the compressed blocks")
    compress.add_argument(
        "--heal",
        type=int,
        default=0,
        metavar="STEPS",
        help="steps of training for each block, towards what the dense block returns (default %(default)s)",
    )
    compress.add_argument(
        "--calibration",
        default="mixture",
        help="file, name of a text, self for what the model writes, or mixture of both (default %(default)s)",
    )
    compress.add_argument("--samples", type=int, default=64, help="calibration sequences (default %(default)s)")
    compress.add_argument("--length", type=int, default=256, help="tokens in each (default %(default)s)")
    compress.add_argument("--eval", default="news", help="file or name of a text, or none (default %(default)s)")
    compress.add_argument("--eval-samples", type=int, default=16, help="evaluation sequences (default %(default)s)")
    compress.add_argument(
        "--memory", type=float, help="GB the statistics may take in one pass (default: half of what is free)"
    )
    compress.add_argument("--no-speed", action="store_true", help="do not time the models")
    compress.add_argument("--seed", type=int, default=0)
    compress.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    compress.add_argument("--scheduler", help="address of a Dask scheduler for the fits")
    compress.set_defaults(run=_compress)

    compensate = commands.add_parser("compensate", help="add low-rank paths for what the compression of a model lost")
    compensate.add_argument("model", help="a directory that eckart compress wrote")
    compensate.add_argument("--against", required=True, help="the model that was compressed")
    compensate.add_argument("--out", required=True, help="directory to make")
    compensate.add_argument("--rank", type=int, default=32, help="rank of the paths (default %(default)s)")
    compensate.add_argument(
        "--metric", help="eigen for the error of the outputs (default), diagonal, svd, or kfac for that of the loss"
    )
    compensate.add_argument(
        "--allocation", default="uniform", help="uniform, or greedy for one solve for all ranks (default %(default)s)"
    )
    compensate.add_argument("--calibration", default="mixture", help="as for compress (default %(default)s)")
    compensate.add_argument("--samples", type=int, default=64, help="calibration sequences (default %(default)s)")
    compensate.add_argument("--length", type=int, default=256, help="tokens in each (default %(default)s)")
    compensate.add_argument("--eval", default="news", help="file or name of a text, or none (default %(default)s)")
    compensate.add_argument("--eval-samples", type=int, default=16, help="evaluation sequences (default %(default)s)")
    compensate.add_argument(
        "--memory", type=float, help="GB the statistics may take in one pass (default: half of what is free)"
    )
    compensate.add_argument("--seed", type=int, default=0)
    compensate.set_defaults(run=_compensate)

    command.add_to(commands)

    evaluate = commands.add_parser("evaluate", help="perplexity, distance to a dense model, speed, size")
    evaluate.add_argument("model", help="a local directory, a GGUF file, a hub name, or smollm2")
    evaluate.add_argument("--text", default="news", help="file or name of a text (default %(default)s)")
    evaluate.add_argument("--against", help="dense model for the divergence and the agreement")
    evaluate.add_argument("--samples", type=int, default=16)
    evaluate.add_argument("--length", type=int, default=256)
    evaluate.add_argument("--no-speed", action="store_true", help="do not time the model")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.set_defaults(run=_evaluate)

    export = commands.add_parser("export", help="turn a compressed model into another format")
    export.add_argument("model", help="a directory that eckart wrote")
    export.add_argument(
        "--to",
        required=True,
        choices=["dense", "peft"],
        help="dense: ordinary matrices, no eckart needed; peft: what compensate added, as an adapter",
    )
    export.add_argument("--out", required=True, help="directory to make")
    export.set_defaults(run=_export)

    listing = commands.add_parser("methods", help="the published methods there are")
    listing.set_defaults(run=_methods)
    return parser


def _compress(options: argparse.Namespace) -> int:
    from eckart.job import Texts, compress_directory
    from eckart.recipe import Recipe
    from eckart.report.build import summary_table

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
    from eckart.compensate_job import compensate_directory
    from eckart.job import Texts
    from eckart.report.build import compensation_table

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


def _bytes(gigabytes: float) -> int:
    if not 1e-9 <= gigabytes < math.inf:
        raise ValueError(f"memory={gigabytes} is no number of GB above 0")
    return round(gigabytes * 1e9)


def _evaluate(options: argparse.Namespace) -> int:
    from eckart.calibration import text_of
    from eckart.evaluate import evaluate
    from eckart.job import check_length, quality_report, speed_lengths
    from eckart.models.hf import load_model
    from eckart.models.text import sequences
    from eckart.speed import file_bytes, peak_rss_bytes, speed

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
    from eckart.export import to_dense_directory, to_peft_directory

    {"dense": to_dense_directory, "peft": to_peft_directory}[options.to](options.model, options.out)
    console.print(f"wrote {options.out}")
    return 0


def _methods(_: argparse.Namespace) -> int:
    from eckart.methods import METHODS

    table = Table("method", "what it does", "makes", "needs", "paper")
    for name in sorted(METHODS):
        card = METHODS[name]
        needs = ", ".join(need.value for need in card.needs) or "nothing"
        table.add_row(name, card.summary, card.expression, needs, card.paper)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
