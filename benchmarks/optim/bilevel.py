"""Penalties of features that many classifiers share: block-wise bilevel steps with trackers, and without.

    python -m benchmarks.optim.bilevel --fashion DIR [--json FILE]

Ten ridge regressions, a class of Fashion-MNIST against the others each, on 50 principal axes of 500 pictures; their
common x holds the logarithms of a penalty an axis, to be chosen for 5000 other pictures. A step looks at `picked` of
the ten and at 16 pictures of both kinds for each. `plain` has the same three descents on the slopes of these alone. Of
five rates two seeds pick; then the median of five others. The gap is Phi(x) over its least, Phi being exact, as shares
of the gap at the start. `equal looks` has as many looks at a block as 200 steps of ten; `equal steps` has 200.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.pictures import fashion
from benchmarks.common.rows import Rows, add_option
from eckart.optim.blockwise_bilevel import Loss, solve_bilevel

CLASSES, AXES, LEARNED, JUDGED, BATCH, STEPS = 10, 50, 500, 5000, 16, 200
RATES = (3.0, 10.0, 30.0, 100.0, 300.0)
LOWER = 0.2
SEEDS = 5


class Penalties:
    """The problem: x are logarithms of penalties, y_i the weights of a class."""

    def __init__(self, directory: Path) -> None:
        pictures, labels = fashion(directory, "train")
        every = pictures[: LEARNED + JUDGED].flatten(1).double()
        every = every - every[:LEARNED].mean(0)
        axes = torch.linalg.svd(every[:LEARNED], full_matrices=False)[2][:AXES]
        z = every @ axes.T
        z = z / z[:LEARNED].square().sum(1).mean().sqrt() * 2
        t = torch.nn.functional.one_hot(labels[: len(z)], CLASSES).double() * 2 - 1
        self.learned, self.judged = (z[:LEARNED], t[:LEARNED]), (z[LEARNED:], t[LEARNED:])

    def losses(self) -> tuple[Loss, Loss]:
        """f_i and g_i of a few pictures."""

        def some(kind: tuple[Tensor, Tensor], draw: int) -> tuple[Tensor, Tensor]:
            at = torch.randint(len(kind[0]), (BATCH,), generator=torch.Generator().manual_seed(draw))
            return kind[0][at], kind[1][at]

        def upper(x: Tensor, y: Tensor, i: int, draw: int) -> Tensor:
            z, t = some(self.judged, draw)
            return (z @ y - t[:, i]).square().mean() / 2

        def lower(x: Tensor, y: Tensor, i: int, draw: int) -> Tensor:
            z, t = some(self.learned, draw)
            return (z @ y - t[:, i]).square().mean() / 2 + (x.exp() * y.square()).sum() / 2

        return upper, lower

    def value(self, x: Tensor) -> Tensor:
        """Phi(x), of all pictures and the weights in closed form."""
        (z, t), (new, truth) = self.learned, self.judged
        weights = torch.linalg.solve(z.T @ z / len(z) + x.exp().diag(), z.T @ t / len(z))
        return (new @ weights - truth).square().mean() / 2

    def least(self) -> float:
        x = self.start().requires_grad_()
        search = torch.optim.LBFGS([x], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            search.zero_grad()
            found = self.value(x)
            found.backward()  # type: ignore[no-untyped-call]
            return found

        search.step(closure)  # type: ignore[no-untyped-call]
        return float(self.value(x.detach()))

    @staticmethod
    def start() -> Tensor:
        return torch.full((AXES,), -1.0, dtype=torch.float64)


def plain(upper: Loss, lower: Loss, x: Tensor, y: Tensor, *, steps: int, picked: int, lr: float, seed: int) -> Tensor:
    """The same descents of x, y_i and v_i along the slopes of the samples at hand."""
    generator = torch.Generator().manual_seed(seed)
    x, y, v = x.clone(), y.clone(), torch.zeros_like(y)
    for step in range(steps):
        slopes = []
        for i in torch.randperm(len(y), generator=generator)[:picked].tolist():
            at, of = x.clone().requires_grad_(), y[i].clone().requires_grad_()
            f, g = upper(at, of, i, step * len(y) + i), lower(at, of, i, step * len(y) + i)
            (down,) = torch.autograd.grad(g, of, create_graph=True)
            across, curved = torch.autograd.grad((down * v[i]).sum(), (at, of), materialize_grads=True)
            outer, along = torch.autograd.grad(f, (at, of), materialize_grads=True)
            slopes.append(outer - across)
            y[i] -= LOWER * down.detach()
            v[i] -= LOWER * (curved - along)
        x -= lr * torch.stack(slopes).mean(0)
    return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, required=True, help="directory with the four files of Fashion-MNIST")
    add_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = Penalties(options.fashion)
    losses, best, start = problem.losses(), problem.least(), problem.start()
    scale = float(problem.value(start)) - best
    rows = Rows("optim.bilevel", options.json)

    def gap(arm: str, steps: int, picked: int, rate: float, seed: int) -> float:
        begin = (start, torch.zeros(CLASSES, AXES, dtype=torch.float64))
        told: dict[str, Any] = {"steps": steps, "picked": picked, "lr": rate, "seed": seed}
        if arm == "plain":
            x = plain(*losses, *begin, **told)
        else:
            solution = solve_bilevel(*losses, *begin, lower_lr=LOWER, **told)
            x = solution.value.x if solution.iterations == steps else torch.full_like(start, math.inf)
        found = (float(problem.value(x)) - best) / scale
        return found if math.isfinite(found) else math.inf

    for budget in ("equal steps", "equal looks"):
        for picked in (1, 2, 5, 10) if budget == "equal steps" else (1, 2, 5):
            steps = STEPS if budget == "equal steps" else STEPS * CLASSES // picked
            for arm in ("tracked", "plain"):
                what = {"budget": budget, "picked": picked, "arm": arm, "steps": steps, "seeds": SEEDS}
                row = rows.get(what)
                if row is None:
                    tried = {rate: sum(gap(arm, steps, picked, rate, seed) for seed in (100, 101)) for rate in RATES}
                    rate = min(tried, key=lambda each: tried[each])
                    gaps = [gap(arm, steps, picked, rate, seed) for seed in range(SEEDS)]
                    ended = [each for each in gaps if math.isfinite(each)]
                    middle = float(np.median(gaps))
                    found: dict[str, Any] = {"gap": middle if math.isfinite(middle) else None}
                    found |= {"least gap": min(ended, default=None), "largest gap": max(ended, default=None)}
                    found |= {"diverged": len(gaps) - len(ended), "rate": rate, "edge": rate in (RATES[0], RATES[-1])}
                    row = rows.add(what, found | {"least": best, "start": best + scale})
                print(what, row.found, flush=True)


if __name__ == "__main__":
    main()
