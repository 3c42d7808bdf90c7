"""Bilevel problems of many blocks, of which a step looks at a few, with estimates that remember what they saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.linalg.solution import Solution
from eckart.optim.contract import optimizer

Loss = Callable[[Tensor, Tensor, int, int], Tensor]
"""`(x, y_i, i, draw)` -> the loss of block i, a number; `draw` picks its samples, the same ones for the same number."""


@dataclass(frozen=True)
class Bilevel:
    """A point of a bilevel problem.

    Attributes:
        x: of the upper level.
        y: of the lower level (blocks, d).
    """

    x: Tensor
    y: Tensor


def correction(blocks: int, picked: int, alpha: float) -> float:
    """gamma of the tracker u <- (1 - alpha) u + alpha h(z) + gamma (h(z) - h(z')), z' the point before, where picked.

    With e the error of u, D = h(z) - h(z') and p = picked / blocks, a picked block has e <- (1 - alpha) e + (gamma - 1
    + alpha) D, another one e <- e - D. gamma makes the products of e and D cancel on average:
    p (1 - alpha) (gamma - 1 + alpha) = 1 - p.
    """
    return (blocks - picked) / (picked * (1 - alpha)) + 1 - alpha


@optimizer(
    "blockwise-bilevel",
    paper="Hu et al. 2023, arXiv 2305.18730",
    expression="x <- x - lr z, z tracks mean_i [df_i/dx - (d2g_i/dx dy) v_i], v_i tracks (d2g_i/dy2)^-1 df_i/dy",
    state="x and z twice; y_i, v_i twice and their trackers s_i, u_i for every block",
)
def solve_bilevel(
    upper: Loss,
    lower: Loss,
    x: Tensor,
    y: Tensor,
    *,
    steps: int = 1000,
    picked: int = 1,
    lr: float = 0.01,
    lower_lr: float = 0.1,
    alpha: float = 0.5,
    beta: float = 0.1,
    radius: float = float("inf"),
    seed: int = 0,
) -> Solution[Bilevel]:
    """The least of mean_i f_i(x, y_i(x)) over x, y_i(x) being the least of g_i(x, .), a few blocks i a step.

    No Hessian is inverted (the second of the paper's two algorithms): v_i descends along its own residual, the tracked
    (d2g_i/dy2) v_i - df_i/dy, as y_i does along the tracked dg_i/dy. Trackers of blocks that are not picked stand
    still, and those that are make up for it by `correction`; z is a mean over the picked blocks that is corrected with
    the same samples at the point before. Every block keeps six vectors like y_i.

    Fewer steps with more blocks in each is reproduced on ten classifiers of clothes. Trackers halve what is left beside
    the slopes of the samples at hand where half of the blocks are looked at or all; with two of ten they are behind in
    equal looks, and with one runs at one rate end anywhere from the best of all to far beyond the start.

    Args:
        upper: f_i, differentiable in x and y_i.
        lower: g_i, twice differentiable, and strongly convex in y_i.
        x: where to begin, of any shape.
        y: (blocks, d).
        steps: to be taken.
        picked: blocks a step, without repeat.
        lr: of x.
        lower_lr: of y_i and v_i, below 2 over the largest curvature of g_i.
        alpha: of a tracker, in (0, 1): what a new sample weighs.
        beta: likewise of z, in (0, 1].
        radius: of the ball that v_i stays in.
        seed: of the picks and of `draw`.

    Returns:
        the last point, or the one before z was not finite; the history is ||z||.

    Raises:
        Refused: options out of their range, or no finite gradient at the start.
    """
    blocks = len(y)
    if not 1 <= picked <= blocks:
        raise Refused(f"picked={picked} is not in 1..{blocks}, the number of blocks")
    if not 0 < alpha < 1 or not 0 < beta <= 1 or steps < 1:
        raise Refused(f"alpha={alpha} must be in (0, 1), beta={beta} in (0, 1] and steps={steps} at least 1")
    x, y = x.detach().clone(), y.detach().clone()
    v, s, u = (torch.zeros_like(y) for _ in range(3))
    seen = torch.zeros(blocks, dtype=torch.bool, device="cpu")
    before = x, y.clone(), v.clone()
    gamma, generator = correction(blocks, picked, alpha), torch.Generator().manual_seed(seed)
    z, history = torch.zeros_like(x), []
    for step in range(steps):
        now = x, y.clone(), v.clone()
        chosen = torch.randperm(blocks, generator=generator)[:picked].tolist()
        slopes = []
        for i in chosen:
            draw = step * blocks + i
            here, there = (_probe(upper, lower, at[0], at[1][i], at[2][i], i, draw) for at in (now, before))
            for tracker, found, was in zip((s, u), here[:2], there[:2], strict=True):
                moved = (1 - alpha) * tracker[i] + alpha * found + gamma * (found - was)
                tracker[i] = moved if seen[i] else found
            seen[i] = True
            slopes.append((here[2], there[2]))
            y[i] -= lower_lr * s[i]
            v[i] -= lower_lr * u[i]
            v[i] *= (radius / v[i].norm().clamp_min(1e-30)).clamp_max(1)
        new, old = (torch.stack(each).mean(0) for each in zip(*slopes, strict=True))
        z = new if step == 0 else (1 - beta) * (z - old) + new
        history.append(float(z.norm()))
        if not torch.isfinite(z).all() or not torch.isfinite(y).all():
            if step == 0:
                raise Refused("the gradients at the start are not finite")
            return Solution(Bilevel(before[0], before[1]), False, step, history, "it diverged: take smaller rates")
        before, x = now, x - lr * z
    return Solution(Bilevel(x, y), False, steps, history, f"all {steps} steps were taken")


def _probe(
    upper: Loss, lower: Loss, x: Tensor, y: Tensor, v: Tensor, i: int, draw: int
) -> tuple[Tensor, Tensor, Tensor]:
    """dg_i/dy; (d2g_i/dy2) v - df_i/dy; and df_i/dx - (d2g_i/dx dy) v, at a point and for a draw of samples."""

    with torch.enable_grad():
        x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
        outer_x, outer_y = _slopes(upper(x, y, i, draw), x, y)
        down = _slopes(lower(x, y, i, draw), y, further=True)[0]
        across, curved = _slopes((down * v).sum(), x, y) if down.requires_grad else (0 * outer_x, 0 * outer_y)
    return down.detach(), curved - outer_y, outer_x - across


def _slopes(loss: Tensor, *at: Tensor, further: bool = False) -> tuple[Tensor, ...]:
    found: tuple[Tensor, ...] = torch.autograd.grad(loss, at, create_graph=further, materialize_grads=True)
    return found
