"""One compressed model in every format that `eckart export` writes, run by the program that the format is for.

    python -m benchmarks.models.engines [--group N ...] [--format NAME ...] [--json FILE]

smollm2 (which comes in 4 bits, taken as dense) with its 210 matrices rounded to symmetric integers of 4 bits. Each row
is a format and what runs it: bytes of the weights; the divergence (nats a token) of the next tokens of a paragraph
from those of the dense model and from those that eckart computes with the same codes; tokens that are read and, where
the program keeps keys and values, written in a second of a processor, one thread. Programs that are not installed
(onnxruntime, openvino, xllamacpp, compressed-tensors) are left out by name.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.rows import Rows, add_option
from eckart.jobs.exports._divergence import divergence, logits
from eckart.jobs.exports.contract import writer
from eckart.models import transformers as hf
from eckart.models.places import replace
from eckart.models.sites import find_sites
from eckart.structures import Quantized

BITS = 4
TEXT = (
    "Most of the matrices that people meet are simpler than their size says. In 1936 Carl Eckart and Gale Young showed "
    "which matrix of lower rank is nearest to a given one: keep the largest singular values, and leave out the others. "
    "Ships carried grain from Odessa to London at that time, and the price of bread was written on a board outside of "
    "the bakery every morning."
)
READ, WRITTEN = 256, 32
"""Tokens that are read at once, and written one after the other behind 16 of them."""
WEIGHTS = ("*.safetensors", "*.gguf", "*.onnx", "*.onnx.data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", type=int, action="append", metavar="N")
    parser.add_argument("--format", action="append", metavar="NAME", choices=[form for form, _, _ in RUNS])
    add_option(parser)
    arguments = parser.parse_args()
    rows = Rows("models.engines", arguments.json)
    loaded = hf.load("smollm2")
    tokens = torch.tensor([loaded.tokenizer(TEXT)["input_ids"]])
    dense = logits(loaded.model, tokens)
    for group in arguments.group or (32, 128):
        with tempfile.TemporaryDirectory() as place:
            measure(rows, Path(place), group, tokens, dense, arguments.format)


def measure(rows: Rows, place: Path, group: int, tokens: Tensor, dense: Tensor, formats: list[str] | None) -> None:
    """Adds the rows of a group size."""
    source = place / "eckart"
    loaded = hf.load("smollm2")
    for site in find_sites(loaded.model):
        replace(loaded.model, site, Quantized.quantize(site.weight, BITS, group, symmetric=True))
    loaded.write(source)
    own = logits(loaded.model, tokens)
    del loaded
    for form, program, run in RUNS:
        what = {"model": f"smollm2, {BITS} bits in groups of {group}", "format": form, "program": program}
        if rows.get(what) is not None or (formats and form not in formats):
            continue
        if (package := NEEDS.get((form, program))) and importlib.util.find_spec(package) is None:
            print(f"{what}: left out, {package} is not installed", flush=True)
            continue
        directory = place / form
        said = "" if form == "eckart" or directory.exists() else writer(form)(str(source), directory)
        engine = run(directory)
        given = engine.logits(tokens)
        size = sum(file.stat().st_size for ends in WEIGHTS for file in directory.glob(ends))
        found = {
            "bytes": size,
            "from dense": divergence(dense, given),
            "from eckart": divergence(own, given),
            "top": float((given.argmax(-1) == own.argmax(-1)).double().mean()),
            **speeds(engine, tokens),
        }
        del engine
        rows.add(what, found)
        print(what, found, said, flush=True)


@dataclass
class Engine:
    """A program with a model in it.

    Attributes:
        logits: of the next tokens, (n, vocabulary), float64, for tokens (1, n).
        read: computes them and returns nothing of it.
        write: writes so many tokens behind those of a text; None where keys and values are not kept.
    """

    logits: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], object]
    write: Callable[[Tensor, int], object] | None = None


def speeds(engine: Engine, tokens: Tensor) -> dict[str, float]:
    """Tokens a second of a processor, the best of three."""
    long = tokens.repeat(1, -(-READ // tokens.shape[1]))[:, :READ]
    found = {"read a second": READ / seconds(lambda: engine.read(long))}
    if (write := engine.write) is not None:
        few, more = (seconds(partial(write, long[:, :16], count)) for count in (1, 1 + WRITTEN))
        found["written a second"] = WRITTEN / (more - few)
    return found


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds, the least of three after one that warms up."""
    work()
    found = []
    for _ in range(3):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def of_torch(model: Any) -> Engine:
    @torch.no_grad()
    def read(tokens: Tensor) -> object:
        return model(input_ids=tokens)

    def write(tokens: Tensor, count: int) -> object:
        return model.generate(tokens, min_new_tokens=count, max_new_tokens=count, do_sample=False)

    return Engine(lambda tokens: logits(model, tokens), read, write if hasattr(model, "generate") else None)


def by_transformers(directory: Path) -> Engine:
    from transformers import AutoModelForCausalLM

    return of_torch(AutoModelForCausalLM.from_pretrained(directory))


def by_eckart(directory: Path) -> Engine:
    return of_torch(hf.load(str(directory)).model)


def gguf_by_transformers(directory: Path) -> Engine:
    return by_eckart(directory / "model.gguf")


def by_llama_cpp(directory: Path) -> Engine:
    """Logits less a constant, from the probabilities of all next tokens of each beginning of the text."""
    engine = importlib.import_module("xllamacpp")
    options = engine.CommonParams()
    options.model.path = str(directory / "model.gguf")
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
    options.warmup, options.n_ctx, options.n_parallel = False, 512, 1
    server = engine.Server(options)
    size = len(json.loads((directory.parent / "eckart" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    plain = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}

    def found(tokens: Tensor) -> Tensor:
        ids: list[int] = tokens[0].tolist()
        given = torch.full((len(ids), size), -100.0, dtype=torch.float64)
        for end in range(1, len(ids) + 1):
            asked = {"prompt": ids[:end], "cache_prompt": True, "n_predict": 1, "n_probs": size, **plain}
            answer = server.handle_completions(asked)
            for each in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
                given[end - 1, each["id"]] = each["logprob"]
        return given

    def write(tokens: Tensor, count: int) -> object:
        asked = {"prompt": tokens[0].tolist(), "cache_prompt": False, "ignore_eos": True, "n_predict": count}
        return server.handle_completions(asked)

    return Engine(found, lambda tokens: write(tokens, 1), write)


def by_onnxruntime(directory: Path) -> Engine:
    engine = importlib.import_module("onnxruntime")
    options = engine.SessionOptions()
    options.intra_op_num_threads = 1
    session = engine.InferenceSession(str(directory / "model.onnx"), options)

    def read(tokens: Tensor) -> Any:
        return session.run(["logits"], {"input_ids": tokens.numpy()})[0]

    return Engine(lambda tokens: torch.from_numpy(read(tokens)[0]).double(), read)


def by_openvino(directory: Path) -> Engine:
    core = importlib.import_module("openvino").Core()
    hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(str(directory / "model.onnx"), "CPU", hints)

    def read(tokens: Tensor) -> Any:
        return compiled({"input_ids": tokens.numpy()})[compiled.output("logits")]

    return Engine(lambda tokens: torch.from_numpy(read(tokens)[0]).double(), read)


def by_the_loader_of_the_docs(directory: Path) -> Engine:
    page = Path(__file__).parents[2] / "docs" / "reference" / "plain.md"
    (source,) = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)
    space: dict[str, Any] = {}
    exec(compile(source, str(page), "exec"), space)
    return of_torch(space["load"](directory))


RUNS: tuple[tuple[str, str, Callable[[Path], Engine]], ...] = (
    ("eckart", "eckart", by_eckart),
    ("gguf", "llama.cpp", by_llama_cpp),
    ("gguf", "transformers", gguf_by_transformers),
    ("onnx", "onnxruntime", by_onnxruntime),
    ("onnx", "openvino", by_openvino),
    ("compressed-tensors", "transformers", by_transformers),
    ("gptq", "eckart", by_eckart),
    ("awq", "eckart", by_eckart),
    ("plain", "the loader of the docs", by_the_loader_of_the_docs),
    ("dense", "transformers", by_transformers),
)
NEEDS = {
    ("gguf", "llama.cpp"): "xllamacpp",
    ("onnx", "onnxruntime"): "onnxruntime",
    ("onnx", "openvino"): "openvino",
    ("compressed-tensors", "transformers"): "compressed_tensors",
}

if __name__ == "__main__":
    main()
