"""Language models: all methods at one budget after another, see `harness`.

    python -m benchmarks.compressors.methods --model smollm2 --of bytes,linear-parameters --keep 0.6,0.4 \
        --methods kfac,gptq,auto

The model is whatever `eckart compress` takes: a directory, a GGUF file, smollm2. All methods read the same statistics,
collected once, with every eighth calibration sequence held back, on which `auto` makes its trials. Calibration and
judges are texts that packages carry, or NAME=FILE. Scores are perplexities; KL is the divergence from the dense model
in nats a token.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from benchmarks.common import harness
from eckart.jobs.calibration import as_batches, calibration_text, calibration_tokens, text_of
from eckart.jobs.compress.trials import held_back
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.statistics import Need, Statistics, cache_directory, statistics_for
from eckart.texts.sequences import sequences

BENCHMARK = "compressors.methods"


def bench(options: Namespace) -> harness.Bench:
    model, tokenizer = load_model(options.model)
    label, _, file = options.calibration.partition("=")
    size = options.samples, options.length, options.seed
    text = calibration_text(file or label)
    tokens = calibration_tokens(file or label, text, model, tokenizer, *size, cache_directory())
    batches, trial = held_back([b for b in as_batches(tokens, tokenizer, *size)[0] if isinstance(b, Tensor)])
    sites = find_sites(model, embeddings=options.embeddings)

    def judge(source: str) -> Callable[[nn.Module], harness.Score]:
        ids = sequences(tokenizer, text_of(source), options.length, options.eval_samples, options.seed)

        def score(other: nn.Module) -> harness.Score:
            found = evaluate(other, ids, None if other is model else model, micro_batch=4)
            return harness.Score(found.perplexity, found.stderr or 0.0, found.kl or 0.0)

        return score

    def statistics(needs: Sequence[Need]) -> Mapping[str, Statistics]:
        modules = {site.name: site.module for site in sites}
        return statistics_for(model, modules, needs, batches, seed=options.seed, cache=cache_directory())[0]

    setting = {
        "model": Path(options.model).name,
        "calibrated on": label,
        "tokens": sum(b.numel() for b in batches),
        "of sequences of": options.length,
        "held back": trial.numel(),
        "judged on sequences": options.eval_samples,
        "embeddings": options.embeddings,
        "seed": options.seed,
    }
    named = [item.partition("=")[::2] for item in options.judge or ["news", "docstrings"]]
    judges = {name: judge(path or name) for name, path in named}
    return harness.Bench(BENCHMARK, setting, model, sites, judges, "perplexity", "KL", statistics, trial=trial)


if __name__ == "__main__":
    parser = harness.parser(__doc__ or "", of="bytes")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--calibration", default="mixture", help="NAME=FILE or NAME")
    parser.add_argument("--judge", action="append", default=[], help="NAME=FILE or NAME; repeatable")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--eval-samples", type=int, default=32)
    parser.add_argument("--embeddings", action="store_true", help="compress embeddings, and a head tied to them, too")
    given = parser.parse_args()
    harness.main(given, BENCHMARK, lambda: bench(given))
