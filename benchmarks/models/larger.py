"""Models that are larger than the memory they are given, through `eckart compress`: what it takes at its peak.

    python -m benchmarks.models.larger WORK [--size NAME ...] [--method NAME ...] [--blocks N] [--json FILE]

Llama-shaped models of random weights in bfloat16 are written to WORK, a file a block, and removed afterwards; their
blocks are alike. Each run is a process of its own: its largest resident set (`ru_maxrss`), its processor time, and the
most that it had on the disk. Of 4 sequences of 128 words. With `--blocks` only the last blocks are compressed, and all
others run and written as they are: the peak is that of one block, and the time of a block is known.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.common.rows import Rows, add_option
from eckart.files.json import write_json
from eckart.files.tensors import write_safetensors

SIZES = {  # hidden size, of MLPs, blocks, heads, heads of keys, GB that the run may take
    "0.3 B": (1024, 2816, 24, 16, 4, 1.0),
    "1.1 B": (2048, 5632, 22, 32, 4, 4.0),
    "3.0 B": (3072, 8192, 28, 24, 8, 8.0),
}
VOCABULARY = 32000
METHODS = {"wanda": ["--percent", "50"], "gptq": ["--bits", "4"], "kfac": []}
KEEP = 0.8
"""What `kfac` keeps of the blocks that are compressed."""
TOKENS = ["--samples", "4", "--length", "128"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", dest="sizes", action="append", choices=list(SIZES))
    parser.add_argument("--method", dest="methods", action="append", choices=list(METHODS))
    parser.add_argument("--blocks", type=int, help="so many are compressed, from the last one on; all by default")
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("models.larger", arguments.json)
    for size in arguments.sizes or SIZES:
        count = arguments.blocks or SIZES[size][2]
        wanted = [
            what
            for method in arguments.methods or METHODS
            if rows.get(what := {"size": size, "method": method, "blocks": count}) is None
        ]
        with written(size, arguments.work) if wanted else nullcontext(Path()) as model:
            for what in wanted:
                row = rows.add(what, measured(model, size, what["method"], arguments.work, count))
                print(what, row.found, flush=True)


def measured(model: Path, size: str, method: str, work: Path, count: int) -> dict[str, Any]:
    """What a compression of the last blocks took."""
    out, (*_, blocks, _, _, memory) = work / "out", SIZES[size]
    partial = out.with_name("out.partial")
    for directory in (out, partial):
        shutil.rmtree(directory, ignore_errors=True)
    command = [sys.executable, "-m", "eckart", "compress", str(model), "--out", str(out), *TOKENS]
    command += ["--method", method, *(METHODS[method] or ["--keep", str(1 - (1 - KEEP) * share_of(size, count))])]
    command += ["--calibration", str(work / "text.txt"), "--eval", "none", "--no-speed", "-q"]
    command += ["--memory", str(memory)]
    for block in range(blocks - count, blocks) if count < blocks else ():
        command += ["--include", f"model.layers.{block}.*"]
    environment = {**os.environ, "ECKART_CACHE": str(work / "cache")}
    with on_disk(partial) as most:
        child = subprocess.Popen(command, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    report = json.loads((out / "report.json").read_text())
    shutil.rmtree(out)
    shutil.rmtree(work / "cache", ignore_errors=True)
    clock = report["seconds"]
    cpu = usage.ru_utime + usage.ru_stime
    return {
        "allowed_gb": memory,
        "of_blocks": blocks,
        "model_bytes": report["size"]["bytes"]["before"],
        "written_bytes": report["size"]["bytes"]["after"],
        "parameters": report["size"]["parameters"]["before"],
        "peak_bytes": usage.ru_maxrss * 1024,
        "disk_bytes": most[0],
        "cpu_seconds": cpu,
        "cpu_seconds_a_block": cpu * ((clock["build"] + clock["fit"]) / sum(clock.values())) / count,
        "dense_matrices": sum(site["dense"] for site in report["sites"]),
        "matrices": len(report["sites"]),
    }


def share_of(size: str, count: int) -> float:
    """The share of a model's numbers that is in the matrices of so many blocks."""
    hidden, inner, blocks, heads, keys, _ = SIZES[size]
    block = 2 * hidden * hidden * (1 + keys / heads) + 3 * hidden * inner
    return count * block / (blocks * block + 2 * VOCABULARY * hidden)


@contextmanager
def on_disk(directory: Path) -> Iterator[list[int]]:
    """The most bytes that files in a directory have had, looked at every second."""
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            sizes = {}  # of files with two names once
            for file in directory.rglob("*"):
                try:
                    found = file.lstat()
                except OSError:  # gone by now
                    continue
                sizes[found.st_ino] = found.st_size
            most[0] = max(most[0], sum(sizes.values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        stop.set()
        watcher.join()


@contextmanager
def written(size: str, work: Path) -> Iterator[Path]:
    """The directory of a model of a size, as long as it is needed, and a text beside it."""
    hidden, inner, blocks, heads, keys, _ = SIZES[size]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    directory = work / "model"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config.save_pretrained(directory)
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in LlamaForCausalLM(config).named_parameters()}
    generator = torch.Generator().manual_seed(0)
    by_file: dict[str, list[str]] = {}
    for name in shapes:
        parts = name.split(".")
        by_file.setdefault(parts[2] if parts[1] == "layers" else "rest", []).append(name)
    weight_map = {}
    block = {n.partition(".0.")[2]: drawn(shapes[n], generator) for n in by_file["0"]}
    for i, names in enumerate(by_file.values(), 1):
        file = f"model-{i:05d}-of-{len(by_file):05d}.safetensors"
        tensors = {n: block.get(".".join(n.split(".")[3:])) for n in names}
        drawn_or_known = {n: drawn(shapes[n], generator) if t is None else t for n, t in tensors.items()}
        write_safetensors(drawn_or_known, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    write_json({"metadata": {}, "weight_map": weight_map}, directory / "model.safetensors.index.json")
    words = [f"word{i}" for i in range(VOCABULARY - 1)]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<unk>").save_pretrained(directory)
    pick = random.Random(0)
    (work / "text.txt").write_text(" ".join(pick.choices(words, k=4000)), "utf-8")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def drawn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Weights as they are drawn before training; ones for norms."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).bfloat16()


if __name__ == "__main__":
    main()
