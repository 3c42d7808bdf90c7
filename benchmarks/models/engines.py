"""One compressed model in every format that `eckart export` writes, run by the program that the format is for.

    python -m benchmarks.models.engines [--group N ...] [--format NAME ...] [--json FILE]

smollm2 (which comes in 4 bits, taken as dense) with its 210 matrices rounded to symmetric integers of 4 bits. Each row
is a format and what runs it: bytes of the weights, and the divergence (nats a token) of the next tokens of a paragraph
from those of the dense model and from those that eckart computes with the same codes. Programs that are not installed
(onnxruntime, xllamacpp, compressed-tensors) are left out by name.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import tempfile
from collections.abc import Callable
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
        given = run(directory, tokens)
        size = sum(file.stat().st_size for ends in WEIGHTS for file in directory.glob(ends))
        found = {
            "bytes": size,
            "from dense": divergence(dense, given),
            "from eckart": divergence(own, given),
            "top": float((given.argmax(-1) == own.argmax(-1)).double().mean()),
        }
        rows.add(what, found)
        print(what, found, said, flush=True)


def by_transformers(directory: Path, tokens: Tensor) -> Tensor:
    from transformers import AutoModelForCausalLM

    return logits(AutoModelForCausalLM.from_pretrained(directory), tokens)


def by_eckart(directory: Path, tokens: Tensor) -> Tensor:
    return logits(hf.load(str(directory)).model, tokens)


def gguf_by_transformers(directory: Path, tokens: Tensor) -> Tensor:
    return by_eckart(directory / "model.gguf", tokens)


def by_llama_cpp(directory: Path, tokens: Tensor) -> Tensor:
    """Logits less a constant, from the probabilities of all next tokens of each beginning of the text."""
    engine = importlib.import_module("xllamacpp")
    options = engine.CommonParams()
    options.model.path = str(directory / "model.gguf")
    options.cpuparams.n_threads, options.warmup, options.n_ctx = 1, False, 512
    server = engine.Server(options)
    ids: list[int] = tokens[0].tolist()
    size = len(json.loads((directory.parent / "eckart" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    plain = {"n_predict": 1, "n_probs": size, "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
    found = torch.full((len(ids), size), -100.0, dtype=torch.float64)
    for end in range(1, len(ids) + 1):
        answer = server.handle_completions({"prompt": ids[:end], "cache_prompt": True, **plain})
        for each in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            found[end - 1, each["id"]] = each["logprob"]
    return found


def by_onnxruntime(directory: Path, tokens: Tensor) -> Tensor:
    session = importlib.import_module("onnxruntime").InferenceSession(str(directory / "model.onnx"))
    return torch.from_numpy(session.run(["logits"], {"input_ids": tokens.numpy()})[0][0]).double()


def by_the_loader_of_the_docs(directory: Path, tokens: Tensor) -> Tensor:
    page = Path(__file__).parents[2] / "docs" / "reference" / "plain.md"
    (source,) = re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.S | re.M)
    space: dict[str, Any] = {}
    exec(compile(source, str(page), "exec"), space)
    return logits(space["load"](directory), tokens)


RUNS: tuple[tuple[str, str, Callable[[Path, Tensor], Tensor]], ...] = (
    ("eckart", "eckart", by_eckart),
    ("gguf", "llama.cpp", by_llama_cpp),
    ("gguf", "transformers", gguf_by_transformers),
    ("onnx", "onnxruntime", by_onnxruntime),
    ("compressed-tensors", "transformers", by_transformers),
    ("gptq", "eckart", by_eckart),
    ("awq", "eckart", by_eckart),
    ("plain", "the loader of the docs", by_the_loader_of_the_docs),
    ("dense", "transformers", by_transformers),
)
NEEDS = {
    ("gguf", "llama.cpp"): "xllamacpp",
    ("onnx", "onnxruntime"): "onnxruntime",
    ("compressed-tensors", "transformers"): "compressed_tensors",
}

if __name__ == "__main__":
    main()
