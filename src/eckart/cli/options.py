"""What the command line can be told."""

from __future__ import annotations

import argparse

from eckart._version import __version__


def parser() -> argparse.ArgumentParser:
    """The whole command line; what is parsed has `command`, the name of one."""
    whole = argparse.ArgumentParser("eckart", description="Stores matrices as fewer numbers and keeps what matters.")
    whole.add_argument("--version", action="version", version=f"eckart {__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

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
        "--distill",
        type=int,
        default=0,
        metavar="STEPS",
        help="steps of training for each side of the factors, end to end (default %(default)s)",
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
    compress.set_defaults(command="compress")

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
    compensate.set_defaults(command="compensate")

    adapt = commands.add_parser("adapt", help="train a few numbers beside the frozen matrices of a model")
    adapt.add_argument("model", help="a local directory, a GGUF file, a hub name, or smollm2")
    adapt.add_argument("--data", required=True, help=".jsonl of prompt and response, or of text; or a text file")
    adapt.add_argument("--out", required=True, help="directory to make")
    adapt.add_argument("--method", default="lora", help="see eckart methods (default %(default)s)")
    adapt.add_argument("--rank", type=int, default=16, help="how large (default %(default)s)")
    adapt.add_argument("--alpha", type=float, help="paths are multiplied by alpha / rank (default: rank)")
    adapt.add_argument("--name", default="default", help="of the adapter (default %(default)s)")
    adapt.add_argument("--include", action="append", default=[], help="pattern of matrices to take; repeatable")
    adapt.add_argument("--exclude", action="append", default=[], help="pattern of matrices to leave; repeatable")
    adapt.add_argument("--validation", default="", help="file to judge by (default: a tenth of the data)")
    adapt.add_argument("--length", type=int, default=256, help="tokens of an example at most (default %(default)s)")
    adapt.add_argument("--steps", type=int, default=200, help="of the optimizer (default %(default)s)")
    adapt.add_argument("--rate", type=float, default=1e-3, help="largest learning rate (default %(default)s)")
    adapt.add_argument("--batch", type=int, default=4, help="examples in a step (default %(default)s)")
    adapt.add_argument("--decay", type=float, default=0.0, help="weight decay (default %(default)s)")
    adapt.add_argument("--every", type=int, default=50, help="steps between judgements (default %(default)s)")
    adapt.add_argument("--eval", default="news", help="text to measure forgetting on, or none (default %(default)s)")
    adapt.add_argument("--seed", type=int, default=0)
    adapt.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    adapt.set_defaults(command="adapt")

    diagnose = commands.add_parser("diagnose", help="spectra, heavy tails, what changed, and what a cut would cost")
    diagnose.add_argument("model", help="a local directory, an adapter, a GGUF file, a hub name, or smollm2")
    diagnose.add_argument("--against", help="the model it came from: what moved, and intruder dimensions")
    diagnose.add_argument("--text", help="file or name of a text: hidden states, and curves of what a cut would cost")
    diagnose.add_argument(
        "--measure",
        default="",
        metavar="SHARES",
        help="sizes to compress to, as in 0.9,0.7,0.5 of the linear parameters: the rise of the loss that is measured "
        "beside the one that is predicted",
    )
    diagnose.add_argument("--out", help="directory to make, with diagnosis.json (default: print the table only)")
    diagnose.add_argument("--include", action="append", default=[], help="pattern of matrices to take; repeatable")
    diagnose.add_argument("--exclude", action="append", default=[], help="pattern of matrices to leave; repeatable")
    diagnose.add_argument("--samples", type=int, default=16, help="sequences of the text (default %(default)s)")
    diagnose.add_argument("--length", type=int, default=256, help="tokens in each (default %(default)s)")
    diagnose.add_argument("--seed", type=int, default=0)
    diagnose.set_defaults(command="diagnose")

    embeddings = commands.add_parser(
        "embeddings", help="what of one set's diversity a second set, paired with it, explains"
    )
    embeddings.add_argument(
        "images", help="the first set, images say: .npy or .safetensors (FILE or FILE:NAME), (n, d)"
    )
    embeddings.add_argument(
        "texts", help="the second set, captions say: rows that belong to those of the first, (n, e)"
    )
    embeddings.add_argument(
        "--kernel", default="cosine", choices=["cosine", "gaussian"], help="of both sets (default %(default)s)"
    )
    embeddings.add_argument(
        "--bandwidth",
        type=float,
        help="of the gaussian kernel (default: either set's median distance over 4096 drawn pairs of rows)",
    )
    embeddings.add_argument(
        "--frequencies", type=int, default=512, help="drawn for the gaussian kernel (default %(default)s)"
    )
    embeddings.add_argument("--nullify", help="an embedding like those of the second set, whose direction --out lacks")
    embeddings.add_argument("--out", help=".npy or .safetensors to write: the first set without it (cosine only)")
    embeddings.add_argument("--json", help="file to write the numbers to")
    embeddings.add_argument("--seed", type=int, default=0, help="of what is drawn (default %(default)s)")
    embeddings.set_defaults(command="embeddings")

    evaluate = commands.add_parser("evaluate", help="perplexity, distance to a dense model, speed, size")
    evaluate.add_argument("model", help="a local directory, a GGUF file, a hub name, or smollm2")
    evaluate.add_argument("--text", default="news", help="file or name of a text (default %(default)s)")
    evaluate.add_argument("--against", help="dense model for the divergence and the agreement")
    evaluate.add_argument("--samples", type=int, default=16)
    evaluate.add_argument("--length", type=int, default=256)
    evaluate.add_argument("--no-speed", action="store_true", help="do not time the model")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.set_defaults(command="evaluate")

    export = commands.add_parser("export", help="turn a compressed model into another format")
    export.add_argument("model", help="a directory that eckart wrote")
    export.add_argument(
        "--to",
        required=True,
        choices=["dense", "peft"],
        help="dense: ordinary matrices, no eckart needed; peft: what compensate added, or an adapter, as a LoRA",
    )
    export.add_argument("--rank", type=int, help="of the LoRA that an adapter becomes (default: its own)")
    export.add_argument("--out", required=True, help="directory to make")
    export.set_defaults(command="export")

    listing = commands.add_parser("methods", help="the published methods there are")
    listing.add_argument("name", nargs="?", help="print the card of this method, with what was measured of it")
    listing.set_defaults(command="methods")
    return whole
