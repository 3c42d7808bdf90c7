"""Decoding and reading of a whole model compressed in several ways, in turns, and what each way costs.

    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive python -m benchmarks.inference.whole_models --json FILE

The model is SmolLM2 in float32, whose weights lie on a grid of 4 bits already: look at its speeds, and not at its
divergences, which are printed to show that the outputs are those of the model. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import eckart
from benchmarks.common.rows import Rows, add_option
from eckart.jobs.evaluate.quality import evaluate
from eckart.jobs.evaluate.speed import speed
from eckart.models.modules import StructuredLinear
from eckart.models.transformers import load_model
from eckart.structures import RoundedInput

README = Path(__file__).parents[2] / "README.md"


def bytes_of(model: nn.Module) -> int:
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


def compressed(method: str, **scheme: float) -> Callable[[nn.Module], nn.Module]:
    def make(model: nn.Module) -> nn.Module:
        eckart.compress(model, method, **scheme)  # type: ignore[arg-type]
        return model

    return make


def rounded(model: nn.Module) -> nn.Module:
    """4 bits, and inputs rounded to 8."""
    compressed("rtn", bits=4, group=64)(model)
    for module in model.modules():
        if isinstance(module, StructuredLinear):
            module.structure = RoundedInput(module.structure)
    return model


ARMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense bf16": lambda model: model.to(torch.bfloat16),
    "rtn, 8 bits a row": compressed("rtn", bits=8, group=1 << 20, symmetric=True),
    "rtn, 4 bits, groups of 64": compressed("rtn", bits=4, group=64),
    "rtn, 4 bits, groups of 64, inputs of 8 bits": rounded,
    "nf4": compressed("nf4", bits=4),
    "codebook, 4 bits": compressed("codebook", bits=4),
    "rtn, 3 bits, groups of 64": compressed("rtn", bits=3, group=64),
    "magnitude, 50 %": compressed("magnitude", percent=50),
    "kfac, 80 % of the linear parameters": compressed("kfac", keep=0.8, samples=16),
    "kfac, 60 % of the linear parameters": compressed("kfac", keep=0.6, samples=16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--decode", type=int, default=24)
    parser.add_argument("--samples", type=int, default=8, help="texts of 256 tokens that divergences are over")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("inference.whole_models", options.json)
    dense, tokenizer = load_model("smollm2", dtype=torch.float32)[:2]
    dense.eval()
    texts = torch.tensor(tokenizer(README.read_text("utf-8")).input_ids)[: 256 * options.samples]
    sequences = texts[: len(texts) // 256 * 256].view(-1, 256)
    print(eckart.native())
    for name, make in ARMS.items():
        what = {"model": "smollm2", "arm": name, "threads": torch.get_num_threads()}
        if rows.get(what) is not None:
            continue
        model = make(copy.deepcopy(dense)).eval()
        found = speed(
            {"dense": dense, name: model},
            prefill_tokens=options.prefill,
            decode_tokens=options.decode,
            repeats=options.repeats,
        )
        quality = evaluate(model, sequences, reference=dense)
        row = {
            "decode": found["decode_tokens_per_second"][name],
            "decode_dense": found["decode_tokens_per_second"]["dense"],
            "decode_ratio": found["decode_ratio"],
            "prefill": found["prefill_tokens_per_second"][name],
            "prefill_ratio": found["prefill_ratio"],
            "bytes_ratio": bytes_of(model) / bytes_of(dense),
            "kl": quality.kl,
        }
        rows.add(what, row)
        print(
            f"{name:<46}{row['bytes_ratio']:>7.3f} of the bytes, decoding {row['decode']:>7.1f} tokens/s "
            f"({row['decode_ratio']:.2f} of dense), reading {row['prefill']:>7.1f} ({row['prefill_ratio']:.2f}), "
            f"divergence {row['kl']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
