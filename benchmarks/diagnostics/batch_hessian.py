"""The curvature of batches and the largest stable rates on a small net, measured and predicted.

    apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb root
    python -m benchmarks.diagnostics.batch_hessian --fashion root/usr/share/datasets/fashion-mnist

A perceptron learns pictures of Fashion-MNIST of 7 x 7 for a while. At that point

- `spectrum`: the largest and smallest eigenvalue of its Hessian by the Lanczos process, and of the whole matrix;
- `curvature`: the largest eigenvalue of the Hessians of random batches, each by a Lanczos process of its own, beside
  what the noise along the leading eigenvector predicts and what noise that is alike in all entries does;
- `rates`: the largest rate, on a grid of factors of 2^(1/4), at which SGD and Adam, started there, have not raised the
  loss of all pictures after some steps (`descends`), or not above that of chance (`stable`); the median over seeds.

Batches are drawn from the pictures that the Hessian is of, without replacement, so that their noise is (1 - b / n) of
that of new ones.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from eckart.diagnostics.batch_hessian import batch_eigenvalue, sharpness
from eckart.diagnostics.contract import Curvature
from eckart.linalg.spectral_density import lanczos

BATCHES = (8, 16, 32, 64, 128, 256, 512, 1024)
GRID = 2**0.25


Optimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


class Problem:
    """A perceptron, the pictures, and their loss as a function of some of these."""

    def __init__(self, x: Tensor, y: Tensor, hidden: int, seed: int) -> None:
        self.x, self.y = x, y
        g = torch.Generator().manual_seed(seed)
        shapes = (hidden, x.shape[1]), (hidden,), (10, hidden), (10,)
        self.parameters = [
            (torch.randn(s, generator=g).double() / s[-1] ** 0.5 if len(s) > 1 else torch.zeros(s).double()).to(x.dtype)
            for s in shapes
        ]
        for p in self.parameters:
            p.requires_grad_()

    def loss(self, index: Tensor | slice, parameters: list[Tensor] | None = None) -> Tensor:
        a, b, c, d = self.parameters if parameters is None else parameters
        return F.cross_entropy(F.silu(self.x[index] @ a.T + b) @ c.T + d, self.y[index])

    def curvature(self, batch: int, index: Tensor) -> Curvature:
        parts = index.split(batch)
        return Curvature.of(lambda j: self.loss(parts[j]), self.parameters, len(parts), batch)

    def largest(self, index: Tensor, steps: int, seed: int) -> float:
        """Of the Hessian of some pictures."""
        product = Curvature.of(lambda j: self.loss(index), self.parameters, 2, len(index)).products[0]
        start = torch.randn(sum(p.numel() for p in self.parameters), 1, generator=torch.Generator().manual_seed(seed))
        start = F.normalize(start.double(), dim=0)
        return float(lanczos(lambda q: product(q[:, 0])[:, None], start, steps, 1e-7)[0].max())

    def whole(self) -> Tensor:
        """The Hessian, column by column, float64."""
        n = sum(p.numel() for p in self.parameters)
        sizes = [p.numel() for p in self.parameters]
        gradients = torch.autograd.grad(self.loss(slice(None)), self.parameters, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradients])
        found = torch.empty(n, n, dtype=torch.float64)
        for i in range(0, n, 64):
            pick = torch.eye(n, dtype=flat.dtype)[i : i + 64]
            second = torch.autograd.grad(flat, self.parameters, pick, retain_graph=True, is_grads_batched=True)
            found[i : i + 64] = torch.cat([s.flatten(1) for s in second], 1).double()
        assert sum(sizes) == n
        return found

    def after(self, optimizer: Optimizer, batch: int, steps: int, seed: int) -> float:
        """The loss of all pictures after some steps, the mean over the last few of them."""
        generator = torch.Generator().manual_seed(seed)
        own = [p.detach().clone().requires_grad_() for p in self.parameters]
        made, last = optimizer(own), []
        for step in range(steps):
            index = torch.randperm(len(self.x), generator=generator)[:batch]
            made.zero_grad()
            self.loss(index, own).backward()  # type: ignore[no-untyped-call]
            made.step()
            if step >= steps - 5:
                last.append(float(self.loss(slice(None), own).detach()))
                if not math.isfinite(last[-1]):
                    return math.inf
        return float(np.mean(last))


OPTIMIZERS: dict[str, Callable[[float], Optimizer]] = {
    "SGD": lambda rate: lambda own: torch.optim.SGD(own, rate),
    "Adam": lambda rate: lambda own: torch.optim.Adam(own, rate),
}


def largest_rate(after: Callable[[float], float], bound: float, start: float) -> float:
    """By bisection on the grid: the largest rate after which the loss is not above a bound, from one near it."""

    def rises(k: int) -> bool:
        return after(start * GRID**k) > bound

    low, high = 0, 0
    while rises(low):
        low, high = low - 4, low
    while high <= low or not rises(high):
        low, high = (high if high > low else low), max(high, low) + 4
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rises(middle) else (middle, high)
    return start * GRID**low


def slope(batches: list[int], values: list[float]) -> float:
    """Of the logarithm against that of the batch."""
    return float(np.polyfit(np.log(batches), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="the directory of its four files")
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--pictures", type=int, default=1024)
    parser.add_argument("--learned", type=int, default=50, help="steps of Adam before (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="of a trial of a rate (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="decompose the whole Hessian too")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.batch_hessian", options.json)
    x, y = fashion(options.fashion, "train")
    x = F.avg_pool2d(x[: options.pictures], 4).flatten(1)
    problem = Problem(x - x.mean(0), y[: options.pictures], options.hidden, options.seed)
    n, size = len(x), sum(p.numel() for p in problem.parameters)
    optimizer = torch.optim.Adam(problem.parameters, 1e-2)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.learned):
        optimizer.zero_grad()
        problem.loss(torch.randperm(n, generator=generator)[:64]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    setting = {"parameters": size, "pictures": n, "learned": options.learned, "seed": options.seed}
    clock = time.process_time()
    index = torch.randperm(n, generator=generator)
    found = sharpness(problem.curvature(8, index))
    seconds = time.process_time() - clock
    print(
        f"{size} parameters, loss {float(problem.loss(slice(None)).detach()):.3f}: {found}, {seconds:.0f} s", flush=True
    )
    told = {**vars(found), "seconds": seconds}
    if options.whole:
        clock = time.process_time()
        values = torch.linalg.eigvalsh(problem.whole())
        told |= {"exact_largest": float(values[-1]), "exact_smallest": float(values[0])}
        told |= {"exact_seconds": time.process_time() - clock}
        print(f"whole: {told['exact_smallest']:.5f} to {told['exact_largest']:.5f}, {told['exact_seconds']:.0f} s")
    rows.add({"part": "spectrum", **setting}, told)
    bounds = {"descends": float(problem.loss(slice(None)).detach()), "stable": math.log(10)}
    arms = [(name, bound) for name in OPTIMIZERS for bound in bounds]
    heads = " ".join(f"{name + ' ' + bound:>13}" for name, bound in arms)
    print(f"{'batch':>6} {'curvature':>16} {'leading':>8} {'alike':>7} {'2/leading':>9} {heads}")
    rates: dict[tuple[str, str], list[float]] = {arm: [] for arm in arms}
    predicted, measured = [], []
    for batch in BATCHES:
        share = (1 - batch / n) * n / (n - 1)
        expected = {
            kind: batch_eigenvalue(found.largest, share * noise, batch)
            for kind, noise in (("leading", found.leading), ("alike", found.noise))
        }
        draws = [torch.randperm(n, generator=generator)[:batch] for _ in range(4 * options.draws)]
        tops = [problem.largest(drawn, 24, k) for k, drawn in enumerate(draws)]
        top = {"mean": float(np.mean(tops)), "spread": float(np.std(tops))}
        rows.add({"part": "curvature", "batch": batch, **setting, "draws": len(tops)}, {**top, **expected})
        for name, bound in arms:
            start = rates[name, bound][-1] if rates[name, bound] else {"SGD": 0.5, "Adam": 0.01}[name]

            def after(rate: float, seed: int, name: str = name, batch: int = batch) -> float:
                return problem.after(OPTIMIZERS[name](rate), batch, options.steps, seed)

            each = [largest_rate(partial(after, seed=k), bounds[bound], start) for k in range(options.draws)]
            rates[name, bound].append(float(np.median(each)))
            what = {"part": "rates", "optimizer": name, "bound": bound, "batch": batch, **setting}
            rows.add(
                {**what, "draws": options.draws, "steps": options.steps},
                {"rate": float(np.median(each)), "least": min(each), "most": max(each)},
            )
        predicted.append(2 / expected["leading"])
        measured.append(top["mean"])
        cells = " ".join(f"{rates[arm][-1]:13.4f}" for arm in arms)
        print(
            f"{batch:6} {top['mean']:8.2f} ± {top['spread']:5.2f} {expected['leading']:8.2f} {expected['alike']:7.2f} "
            f"{predicted[-1]:9.3f} {cells}",
            flush=True,
        )
    batches = list(BATCHES)
    for reach in (4, len(batches)):
        slopes = {f"{name} {bound}": slope(batches[:reach], rates[name, bound][:reach]) for name, bound in arms}
        slopes["predicted"] = slope(batches[:reach], predicted[:reach])
        slopes["of 2 by curvature"] = -slope(batches[:reach], measured[:reach])
        rows.add({"part": "slopes", "from": batches[0], "to": batches[reach - 1], **setting}, slopes)
        print(f"slopes, {batches[0]} to {batches[reach - 1]}: {slopes}")


if __name__ == "__main__":
    main()
