"""How many labels a learner needs, chosen by coding rate, by entropy, far from each other, or at random.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb root
    pip install --no-deps bmdal-reg==3.0.2      # for --speed
    python -m benchmarks.diagnostics.kecor --fashion root/usr/share/datasets/fashion-mnist [--speed]

A perceptron of one hidden layer learns Fashion-MNIST, 64 principal components of each picture, from a few labels drawn
at random; then labels are asked for some at a time, each arm choosing by what its own learner predicts. Rows hold the
accuracy on the test pictures after every round, the labels that it takes to reach nine tenths of the accuracy with all
labels of the pool (straight lines between rounds), and the mean accuracy over the rounds beside that of random choice
with the same seed.

- `random`; `entropy`, the largest of the predictions; `k-centre`, the farthest from all that have labels (Sener and
  Savarese 2018), by hidden features; `badge`, k-means++ on the gradients of the last layer (Ash et al. 2020).
- `kecor`; `kecor, no entropy`; `kecor, by itself`, which forgets what has labels; `entropy in the diagonal`, as in the
  authors' code, which does so too.

`--speed` is another part: processor seconds to pick 100 of all 60,000 pictures behind 100 that have labels, from one
learner, beside bmdal-reg's "maxdet", the library below the authors' code, on 512 random projections of the same
gradients. Both take the same noise. NumPy 2 no longer has `np.Inf`, which that library reads: it is put back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from eckart.diagnostics.contract import Pool
from eckart.diagnostics.kecor import NOISE, WEIGHT, chosen, coding_rate, proxy_kernel
from eckart.linalg.pivoted_cholesky import pivoted_cholesky

HIDDEN = 128
SHARE = 0.9


class Learner:
    """A perceptron V silu(U x) with a constant among the inputs, trained anew on what has labels."""

    def __init__(self, x: Tensor, y: Tensor, steps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(HIDDEN, x.shape[1], generator=generator) / x.shape[1] ** 0.5
        self.second = torch.randn(10, HIDDEN, generator=generator) / HIDDEN**0.5
        both = [self.first.requires_grad_(), self.second.requires_grad_()]
        optimizer = torch.optim.AdamW(both, 1e-2, weight_decay=1e-2)
        for _ in range(steps):
            index = torch.randperm(len(x), generator=generator)[:512]
            loss = F.cross_entropy(self(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.first, self.second = (p.detach() for p in both)

    def hidden(self, x: Tensor) -> Tensor:
        return F.silu(x @ self.first.T)

    def __call__(self, x: Tensor) -> Tensor:
        return self.hidden(x) @ self.second.T

    def entropy(self, x: Tensor) -> Tensor:
        p = self(x).softmax(1)
        return -torch.xlogy(p, p).sum(1)


Choice = Callable[[Learner, Tensor, list[int], int, int], list[int]]
"""A learner, the pool's features, what has labels, how many more, and a seed -> these."""


def at_random(learner: Learner, x: Tensor, labelled: list[int], picks: int, seed: int) -> list[int]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).tolist()
    known = set(labelled)
    return [i for i in order if i not in known][:picks]


def by_entropy(learner: Learner, x: Tensor, labelled: list[int], picks: int, seed: int) -> list[int]:
    entropy = learner.entropy(x)
    entropy[labelled] = -1
    return entropy.topk(picks).indices.tolist()


def by_distance(learner: Learner, x: Tensor, labelled: list[int], picks: int, seed: int) -> list[int]:
    h = learner.hidden(x)
    nearest = torch.cdist(h, h[labelled]).amin(1)
    found: list[int] = []
    for _ in range(picks):
        found.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, torch.cdist(h, h[found[-1:]]).squeeze(1))
    return found


def badge(learner: Learner, x: Tensor, labelled: list[int], picks: int, seed: int) -> list[int]:
    h, p = learner.hidden(x).double(), learner(x).double().softmax(1)
    rest = p - F.one_hot(p.argmax(1), p.shape[1])
    size = h.square().sum(1) * rest.square().sum(1)
    generator = torch.Generator().manual_seed(seed)
    found, nearest = [], size.index_fill(0, torch.tensor(labelled), -1.0)
    i = int(nearest.argmax())
    nearest = torch.full_like(size, float("inf"))
    for _ in range(picks):
        found.append(i)
        apart = size + size[i] - 2 * (h @ h[i]) * (rest @ rest[i])
        nearest = torch.minimum(nearest, apart.clamp_min(0)).index_fill(0, torch.tensor(labelled + found), 0.0)
        i = int(torch.multinomial(nearest, 1, generator=generator))
    return found


def by_rate(weight: float, known: bool) -> Choice:
    def choice(learner: Learner, x: Tensor, labelled: list[int], picks: int, seed: int) -> list[int]:
        free = list(range(len(x))) if known else sorted(set(range(len(x))) - set(labelled))
        kernel = proxy_kernel(x[free], learner.first, learner.second)
        given = labelled if known else []
        pool = Pool(*kernel, picks, entropy=learner.entropy(x[free]), labelled=given)
        return [free[i] for i in chosen(pool, weight=weight).index[len(given) :].tolist()]

    return choice


def in_the_diagonal(learner: Learner, x: Tensor, labelled: list[int], picks: int, seed: int) -> list[int]:
    free = sorted(set(range(len(x))) - set(labelled))
    diagonal, column = proxy_kernel(x[free], learner.first, learner.second)
    mean = float(diagonal.mean())
    added = NOISE + WEIGHT * learner.entropy(x[free]).double()

    def of(i: int) -> Tensor:
        found = column(i) / mean
        found[i] += added[i]
        return found

    return [free[i] for i in pivoted_cholesky(diagonal / mean + added, of, picks).index.tolist()]


ARMS: dict[str, Choice] = {
    "random": at_random,
    "entropy": by_entropy,
    "k-centre": by_distance,
    "badge": badge,
    "kecor": by_rate(WEIGHT, True),
    "kecor, no entropy": by_rate(0.0, True),
    "kecor, ten times the entropy": by_rate(10 * WEIGHT, True),
    "kecor, by itself": by_rate(WEIGHT, False),
    "entropy in the diagonal": in_the_diagonal,
}


def needed(counts: list[int], accuracies: list[float], target: float) -> float:
    """Labels at which the target is first reached, by straight lines; the last count where it never is."""
    for k, accuracy in enumerate(accuracies):
        if accuracy >= target:
            if k == 0:
                return float(counts[0])
            before = accuracies[k - 1]
            return counts[k - 1] + (counts[k] - counts[k - 1]) * (target - before) / (accuracy - before)
    return float(counts[-1])


def speed(x: Tensor, y: Tensor, steps: int) -> Iterator[tuple[dict[str, object], dict[str, float]]]:
    """Seconds to pick 100 of all rows behind the first 100, and the coding rate that they add."""
    learner, labelled = Learner(x[:100], y[:100], steps, 0), list(range(100))
    what: dict[str, object] = {"part": "speed", "data": "Fashion-MNIST", "pool": len(x), "labelled": 100, "picks": 100}
    start = time.process_time()
    pool = Pool(*proxy_kernel(x, learner.first, learner.second), 100, labelled=labelled)
    found = chosen(pool, weight=0.0).index.tolist()
    seconds = time.process_time() - start
    sigma = NOISE * float(pool.diagonal.mean())

    def added(index: list[int]) -> float:
        return coding_rate(pool, index, sigma) - coding_rate(pool, labelled, sigma)

    yield what | {"arm": "kecor, no entropy"}, {"seconds": seconds, "nats": added(found)}
    at_chance = labelled + at_random(learner, x, labelled, 100, 0)
    yield what | {"arm": "random"}, {"nats": added(at_chance)}
    from bmdal_reg.bmdal.algorithms import select_batch
    from bmdal_reg.bmdal.feature_data import TensorFeatureData

    net = torch.nn.Sequential(
        torch.nn.Linear(x.shape[1], HIDDEN, bias=False), torch.nn.SiLU(), torch.nn.Linear(HIDDEN, 10, bias=False)
    )
    net[0].weight.data, net[2].weight.data = learner.first, learner.second
    start = time.process_time()
    with mock.patch.object(np, "Inf", np.inf, create=True):
        picked, _ = select_batch(
            batch_size=100,
            models=[net],
            data={"train": TensorFeatureData(x[:100]), "pool": TensorFeatureData(x[100:])},
            y_train=F.one_hot(y[:100], 10).float(),
            selection_method="maxdet",
            sel_with_train=True,
            base_kernel="grad",
            kernel_transforms=[("rp", [512])],
            sigma=NOISE**0.5,
        )
    seconds = time.process_time() - start
    index = labelled + [100 + int(i) for i in picked]
    yield what | {"arm": "bmdal-reg"}, {"seconds": seconds, "nats": added(index)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="the directory of its four files")
    parser.add_argument("--pool", type=int, default=2000)
    parser.add_argument("--first", type=int, default=20, help="labels at random (default: %(default)s)")
    parser.add_argument("--picks", type=int, default=40, help="labels a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100, help="of training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--arms", help=f"with semicolons; of {'; '.join(ARMS)}")
    parser.add_argument("--speed", action="store_true", help="the seconds of a choice among all pictures instead")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.kecor", options.json)
    pool = None if options.speed else options.pool
    images, labels = (part[:pool] for part in fashion(options.fashion, "train"))
    test, test_labels = fashion(options.fashion, "t10k")
    flat = images.flatten(1)
    _, _, basis = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    basis = basis[:64].T
    scale = ((flat - flat.mean(0)) @ basis).square().mean().sqrt()

    def features(pictures: Tensor) -> Tensor:
        """Principal components of mean square one, and a constant."""
        found = (pictures.flatten(1) - flat.mean(0)) @ basis / scale
        return torch.cat([found, torch.ones(len(found), 1)], 1)

    x, x_test = features(images), features(test)
    if options.speed:
        for what, found in speed(x, labels, options.steps):
            print(what, found, flush=True)
            rows.add(what, found)
        return

    def accuracy(learner: Learner) -> float:
        return float((learner(x_test).argmax(1) == test_labels).double().mean())

    full = float(np.mean([accuracy(Learner(x, labels, 8 * options.steps, s)) for s in range(options.seeds)]))
    print(f"{len(x)} pictures: accuracy {full:.4f} with all labels, wanted {SHARE * full:.4f}", flush=True)
    counts = [options.first + options.picks * k for k in range(options.rounds + 1)]
    at_chance: np.ndarray | None = None
    print(f"{'arm':>28} {'labels needed':>15} {'mean accuracy':>14} {'beside random':>17}")
    for arm in ARMS if options.arms is None else ["random", *options.arms.split(";")]:
        curves = []
        for seed in range(options.seeds):
            generator = torch.Generator().manual_seed(seed)
            labelled = torch.randperm(len(x), generator=generator)[: options.first].tolist()
            curve = []
            for k in range(len(counts)):
                learner = Learner(x[labelled], labels[labelled], options.steps, seed)
                curve.append(accuracy(learner))
                if k < options.rounds:
                    labelled += ARMS[arm](learner, x, labelled, options.picks, 1000 * seed + k)
            curves.append(curve)
        labels_needed = [needed(counts, curve, SHARE * full) for curve in curves]
        means = np.array(curves).mean(1)
        at_chance = means if at_chance is None else at_chance
        gain = means - at_chance
        root = len(means) ** 0.5
        found = {
            "needed": {"mean": float(np.mean(labels_needed)), "stderr": float(np.std(labels_needed, ddof=1)) / root},
            "accuracy": float(means.mean()),
            "gain": {"mean": float(gain.mean()), "stderr": float(gain.std(ddof=1)) / root},
            "reached": sum(max(curve) >= SHARE * full for curve in curves),
            "full": full,
            "wanted": SHARE * full,
            "curve": np.array(curves).mean(0).tolist(),
        }
        what = {"data": "Fashion-MNIST", "arm": arm, "pool": len(x), "first": options.first, "picks": options.picks}
        rows.add({**what, "rounds": options.rounds, "steps": options.steps, "seeds": options.seeds}, found)
        print(
            f"{arm:>28} {found['needed']['mean']:7.0f} ± {found['needed']['stderr']:4.0f} {found['accuracy']:14.4f} "
            f"{found['gain']['mean']:+8.4f} ± {found['gain']['stderr']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
