"""Convolutional networks: every method at one size after another, on two nets with real weights and a task each.

    python -m benchmarks.compressors.convolution --facenet DIR --lfw FILE --fashion DIR --cache resnet.safetensors

The first are RNet and ONet of MTCNN (Zhang et al. 2016), as published with facenet-pytorch, which tell faces from other
pictures: calibrated on one half of 100 faces and 100 others, judged on the other half. The second is a residual net of
0.3 M parameters, which this program trains on Fashion-MNIST in some minutes of one core and keeps in a file: calibrated
on 512 training images, judged on the 10000 test images. Parameters are shared out among all convolutions and linear
layers; for methods that store fewer bits of all of them (marked *) --keep-bits are shares of the bytes instead.

--facenet DIR    `facenet_pytorch/data` of the wheel: pip download --no-deps facenet-pytorch==2.6.0 (MIT)
--lfw FILE       `skimage/data/lfw_subset.npy` of the wheel: pip download --no-deps scikit-image==0.26.0 (BSD-3)
--fashion DIR    `usr/share/datasets/fashion-mnist` of the Debian package dataset-fashion-mnist (MIT)

Multiply-adds are counted by PyTorch's dispatcher as one image is run; those of structures that unpack their matrix at
every call are those of the dense one. Time ratios are medians over rounds in which the dense and the small net take
turns, above one where the small one is faster. Seconds are of the processor, for fitting, choosing and building.
"""

from __future__ import annotations

import argparse
import copy
import statistics as stats
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.pictures import Task, face_tasks, fashion_task
from benchmarks.common.rows import Rows, add_option
from eckart.compressors.contract import METHODS
from eckart.jobs.compress.plan import apply, make_plan
from eckart.models.sites import find_sites
from eckart.statistics import Statistics, statistics_for

DEFAULT = "svd,kfac,gptq,sparsegpt,spatial-svd,tucker-2,cp,auto"


@torch.no_grad()
def logits(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch).logits for batch in images.split(500)])


def auc(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The area under the ROC curve and its standard error (Hanley and McNeil 1982)."""
    positive, negative = scores[labels == 1].double(), scores[labels == 0].double()
    wins = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative).double()
    a, m, n = float(wins.mean()), len(positive), len(negative)
    variance = a * (1 - a) + (m - 1) * (a / (2 - a) - a * a) + (n - 1) * (2 * a * a / (1 + a) - a * a)
    return a, max(0.0, variance / (m * n)) ** 0.5


def judged(task: Task, z: Tensor, dense: Tensor) -> dict[str, float]:
    """Accuracy, area under the curve of two classes, and divergence from the dense net, with standard errors."""
    right = (z.argmax(1) == task.labels).double()
    found = {"accuracy": 100 * float(right.mean()), "stderr": 100 * float((right.var() / len(right)).sqrt())}
    if z.shape[1] == 2:
        found["auc"], found["auc_stderr"] = auc(z[:, 1] - z[:, 0], task.labels)
    p, q = dense.double().log_softmax(1), z.double().log_softmax(1)
    kl = (p.exp() * (p - q)).sum(1)
    return found | {"kl": float(kl.mean()), "kl_stderr": float((kl.var() / len(kl)).sqrt())}


def line(found: Mapping[str, float]) -> str:
    """What `judged` found, as the columns of the table."""
    area = f"{found['auc']:6.4f} +- {found['auc_stderr']:6.4f} " if "auc" in found else ""
    return f"{found['accuracy']:6.2f} +- {found['stderr']:4.2f} {area}{found['kl']:7.4f} +- {found['kl_stderr']:6.4f}"


def macs(model: nn.Module, image: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return counter.get_total_flops() // 2


@torch.no_grad()
def faster(dense: nn.Module, small: nn.Module, batch: Tensor, rounds: int) -> float:
    """The median over rounds of the time of the dense net over that of the small one."""
    ratios = []
    for turn in range(rounds + 1):
        seconds = {}
        for model in (dense, small) if turn % 2 else (small, dense):
            start = time.perf_counter()
            model(batch)
            seconds[id(model)] = time.perf_counter() - start
        ratios.append(seconds[id(dense)] / seconds[id(small)])
    return stats.median(ratios[1:])


def stored_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


def run(task: Task, shares: Mapping[str, Sequence[float]], rounds: int, seed: int, rows: Rows) -> None:
    """Prints the table of a task, and keeps its rows: for each method the shares of the size to keep."""
    sites = find_sites(task.model)
    needs = sorted({n for m in shares for n in METHODS.find(m).needs}, key=lambda need: need.value)
    clock = time.process_time()
    modules = {site.name: site.module for site in sites}
    statistics: dict[str, Statistics]
    statistics, _ = statistics_for(task.model, modules, needs, task.calibration, seed=seed)
    seconds = time.process_time() - clock
    expected = logits(task.model, task.images)
    totals = make_plan(task.model, sites, METHODS.find("svd"), {}).totals
    images = sum(map(len, task.calibration))
    print(
        f"\n{task.name}: {len(sites)} matrices, {totals['parameters']} parameters; calibrated on {images} images "
        f"({seconds:.1f} s of statistics), judged on {len(task.images)}"
    )
    area = f"{'AUC':>6}{'':11}" if expected.shape[1] == 2 else ""
    print(f"{'method':>12} {'keep':>5} {'acc. %':>6}{'':9} {area}{'KL':>7}{'':10} "
          f"{'params':>8} {'bytes':>8} {'k macs':>7} {'speed':>6} {'CPU s':>6}")  # fmt: skip
    whole = macs(task.model, task.images[:1])
    setting = {"model": task.name, "data": task.data, "images": images, "judged on images": len(task.images)}
    setting |= {"seed": seed}
    dense = judged(task, expected, expected)
    rows.add({**setting, "method": "dense", "of": "", "keep": 1.0}, dense | {"size": totals, "k_macs": whole / 1e3})
    print(f"{'dense':>12} {1:>5.2f} {line(dense)} {totals['parameters']:>8} "
          f"{stored_bytes(task.model):>8} {whole / 1e3:>7.0f} {1:>6.2f}", flush=True)  # fmt: skip
    for name, keeps in shares.items():
        card = METHODS.find(name)
        clock = time.process_time()
        plan = make_plan(task.model, sites, card, statistics)
        plan.fit(errors=card.allocation != "uniform")
        fitted = time.process_time() - clock
        of = currency(name)
        for keep in keeps:
            clock = time.process_time()
            label = f"{name}{'*' if of == 'bytes' else ''}"
            try:
                choice = plan.choose(keep, of)
            except ValueError as error:
                print(f"{label:>12} {keep:>5.2f} {str(error)[:100]}", flush=True)
                continue
            small = copy.deepcopy(task.model)
            apply(small, plan, choice)
            spent = fitted + time.process_time() - clock
            found = judged(task, logits(small, task.images), expected)
            size = make_plan(small, [], card, {}).totals
            thousands = macs(small, task.images[:1]) / 1e3
            speed = faster(task.model, small, task.images[:64], rounds)
            rows.add(
                {**setting, "method": name, "of": of, "keep": keep},
                found | {"size": size, "k_macs": thousands, "speed": speed, "cpu_seconds": spent},
            )
            print(f"{label:>12} {keep:>5.2f} {line(found)} {size['parameters']:>8} {stored_bytes(small):>8} "
                  f"{thousands:>7.0f} {speed:>6.2f} {spent:>6.2f}", flush=True)  # fmt: skip


def currency(method: str) -> str:
    return "bytes" if METHODS.find(method).size == "bits" else "parameters"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facenet", type=Path, help="directory with rnet.pt and onet.pt")
    parser.add_argument("--lfw", type=Path, help="lfw_subset.npy")
    parser.add_argument("--fashion", type=Path, help="directory with the four files of Fashion-MNIST")
    parser.add_argument("--cache", type=Path, default=Path("resnet.safetensors"), help="where the trained net is kept")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--methods", default=DEFAULT)
    parser.add_argument("--keep", default="0.9,0.8,0.7,0.6,0.5,0.3")
    parser.add_argument("--keep-bits", default="0.3,0.2,0.15,0.11")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    if (options.facenet is None) != (options.lfw is None):
        parser.error("--facenet and --lfw go together")
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, seed {options.seed}")
    tasks = face_tasks(options.facenet, options.lfw) if options.facenet else []
    if options.fashion:
        tasks.append(fashion_task(options.fashion, options.cache, options.epochs, options.seed))
    if not tasks:
        parser.error("nothing to do: pass --facenet and --lfw, or --fashion")
    keeps = {"parameters": options.keep, "bytes": options.keep_bits}
    shares = {name: [*map(float, keeps[currency(name)].split(","))] for name in options.methods.split(",")}
    rows = Rows("compressors.convolution", options.json)
    for task in tasks:
        run(task, shares, options.rounds, options.seed, rows)


if __name__ == "__main__":
    main()
