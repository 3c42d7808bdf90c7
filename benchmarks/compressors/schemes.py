"""Compressed language models at one size for every matrix, with and without a rotation of the residual stream first.

    python -m benchmarks.compressors.schemes --arms rtn@bits=4,rtn@bits=4+rotate,smoothquant@bits=8,svd@keep=0.8

An arm is METHOD@SIZE, SIZE a word of the method's card or keep= of the linear parameters, and `+rotate` behind it for
the rotation; OPTIONS of the method follow behind a colon, as in gptq@bits=4:group=128. The channels of smollm2 are put
in another order first (`common/shuffled.py`), so that no quantizer meets the grid of its file.

Printed for each: bits a weight of the compressed matrices, from the bytes of what is stored; perplexity; divergence
from the dense model in nats a token with its standard error over sequences; and for arms that were rotated the
difference to the same arm without, sequence by sequence.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common.rows import Row, Rows, add_option
from benchmarks.common.shuffled import shuffled
from eckart.compressors.contract import METHODS
from eckart.jobs.calibration import text_of
from eckart.jobs.compress.plan import apply, make_plan
from eckart.jobs.evaluate.quality import evaluate
from eckart.models.places import replace
from eckart.models.rotation import rotate
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.models.transformers import load_model
from eckart.statistics import Statistics, statistics_for
from eckart.structures import input_bits
from eckart.texts.sequences import sequences

BENCHMARK = "compressors.schemes"


@dataclass(frozen=True)
class Arm:
    """What is done to every matrix."""

    method: str
    word: str
    size: float
    options: Mapping[str, int]
    rotated: bool

    @staticmethod
    def of(text: str) -> Arm:
        """METHOD@WORD=SIZE[:OPTION=VALUE...][+rotate]."""
        scheme, plus, _ = text.partition("+rotate")
        head, *options = scheme.split(":")
        method, _, asked = head.partition("@")
        word, _, size = asked.partition("=")
        named = {name: int(value) for name, _, value in (each.partition("=") for each in options)}
        return Arm(method, word, float(size), named, bool(plus))

    @property
    def what(self) -> dict[str, Any]:
        return {"method": self.method, self.word: self.size, **self.options, "rotated": self.rotated}


def compressed(arm: Arm, model: nn.Module, statistics: Mapping[str, Statistics]) -> tuple[nn.Module, dict[str, Any]]:
    """The model with every matrix compressed, and what was stored."""
    trial, card = share(model), METHODS.find(arm.method).taking(arm.options)
    sites = find_sites(model)
    dense = []
    if arm.word == "keep":
        plan = make_plan(model, sites, card, statistics)
        plan.fit()
        apply(trial, plan, plan.choose(arm.size, "linear-parameters"))
    else:
        for site in sites:
            family = card.entry(site.weight, statistics[site.name])
            if arm.size not in family.sizes:
                dense.append(site.name)
                continue
            fitted = family.build(int(arm.size))
            replace(trial, site, fitted.structure, fitted.bias)
    stored = entries = 0
    rounded = set()
    for site in sites:
        entries += site.weight.numel()
        structure: Any = getattr(trial.get_submodule(site.name), "structure", None)
        stored += site.weight.numel() * site.weight.element_size() if structure is None else structure.cost().bytes
        rounded.add(None if structure is None else input_bits(structure))
    return trial, {
        "bits a weight": round(8 * stored / entries, 4),
        "bits of inputs": sorted(bits for bits in rounded if bits is not None),
        "left dense": len(dense),
    }


@torch.inference_mode()
def hidden_of(model: Any, ids: Tensor) -> Tensor:
    """What the head of a model reads, (sequences, length, hidden)."""
    return torch.cat([model.model(row[None]).last_hidden_state for row in ids])


def judged(model: nn.Module, head: nn.Module, hidden: Tensor, ids: Tensor) -> dict[str, Any]:
    """Perplexity, and the divergence of every sequence from a dense model of that head and hidden states."""

    def dense(i: int) -> Callable[[Tensor], Tensor]:
        return lambda _: head(hidden[i : i + 1])

    each = [evaluate(model, ids[i : i + 1], dense(i)) for i in range(len(ids))]
    nll, kl = torch.tensor([e.nll for e in each]).double(), torch.tensor([e.kl for e in each]).double()
    mean = float(nll.mean().exp())
    return {
        "perplexity": round(mean, 3),
        "stderr": round(mean * float(nll.std()) / math.sqrt(len(nll)), 3),
        "kl": round(float(kl.mean()), 5),
        "kl_stderr": round(float(kl.std()) / math.sqrt(len(kl)), 5),
        "kl of each": [round(value, 5) for value in kl.tolist()],
    }


def partner(rows: Rows, arm: Arm, setting: Mapping[str, Any]) -> Row | None:
    """The same arm without rotation."""
    return rows.get({**setting, **arm.what, "rotated": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--arms", required=True, help="with commas")
    parser.add_argument("--calibration", default="wikipedia")
    parser.add_argument("--judge", default="news")
    parser.add_argument("--samples", type=int, default=32, help="sequences of calibration (default: %(default)s)")
    parser.add_argument("--eval-samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = load_model(options.model)
    if options.model == "smollm2":
        shuffled(model, options.seed)
    size = options.length, options.samples, options.seed
    calibration = sequences(tokenizer, text_of(options.calibration), *size)
    ids = sequences(tokenizer, text_of(options.judge), options.length, options.eval_samples, options.seed)
    setting = {
        "model": options.model,
        "shuffled": options.model == "smollm2",
        "calibrated on": options.calibration,
        "samples": options.samples,
        "length": options.length,
        "judge": options.judge,
        "judged on sequences": options.eval_samples,
        "seed": options.seed,
    }
    rows, hidden = Rows(BENCHMARK, options.json), hidden_of(model, ids)
    arms = [Arm.of(text) for text in options.arms.split(",")]
    for rotated in (False, True):
        wanted = [arm for arm in arms if arm.rotated == rotated and rows.get({**setting, **arm.what}) is None]
        if not wanted:
            continue
        base = share(model)
        if rotated:
            rotate(base, options.seed)
        needs = sorted({need for arm in wanted for need in METHODS.find(arm.method).needs}, key=str)
        modules = {site.name: site.module for site in find_sites(base)}
        statistics, _ = statistics_for(base, modules, needs, list(calibration.split(4)), seed=options.seed)
        for arm in wanted:
            clock = time.process_time()
            trial, stored = compressed(arm, base, statistics)
            seconds = round(time.process_time() - clock, 1)
            found = {**stored, **judged(trial, model.lm_head, hidden, ids), "cpu_seconds": seconds}
            row = rows.add({**setting, **arm.what}, found)
            show(row, arm, partner(rows, arm, setting) if rotated else None)
    dense = {**setting, "method": "dense"}
    if rows.get(dense) is None:
        rows.add(dense, judged(model, model.lm_head, hidden, ids))
    whole = rows.get(dense)
    assert whole is not None
    print(f"dense: perplexity {whole.found['perplexity']} +- {whole.found['stderr']}")


def show(row: Row, arm: Arm, plain: Row | None) -> None:
    """Prints a row, and its paired difference to another."""
    found = row.found
    line = (
        f"{arm.method} {arm.word}={arm.size:g} {dict(arm.options) or ''} {'rotated' if arm.rotated else ''}: "
        f"{found['bits a weight']} bits, inputs {found['bits of inputs'] or '-'}, perplexity {found['perplexity']} "
        f"+- {found['stderr']}, KL {found['kl']} +- {found['kl_stderr']}, {found['cpu_seconds']} s"
    )
    if plain is not None:
        change = torch.tensor(found["kl of each"]) - torch.tensor(plain.found["kl of each"])
        line += f"; KL by the rotation {float(change.mean()):+.5f} +- {float(change.std()) / len(change) ** 0.5:.5f}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
