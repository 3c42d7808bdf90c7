"""Training the factors of a compressed model towards the predictions of the dense one, one side after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from eckart.errors import Refused
from eckart.jobs.evaluate.quality import divergence
from eckart.models.modules import StructuredEmbedding, StructuredLinear
from eckart.ops.wide_products import WideProducts
from eckart.statistics.batches import beside

RANK = 8
"""Of the update of each factor."""
RATE = 2e-3
"""Largest step of an entry, relative to the root mean square of its leaf."""
JUDGES = 8
"""One batch in so many trains nothing and judges instead."""
CHECKS = 4
"""How often a round is judged."""


@dataclass(frozen=True)
class Distillation:
    """What the training did.

    Attributes:
        steps: of each round.
        kl: mean divergence from the dense model on held-back batches, nats a token: before, after the round of the
            first factors, after that of the others.
    """

    steps: int
    kl: tuple[float, ...]


@torch.no_grad()
def distill(
    model: nn.Module,
    dense: nn.Module,
    batches: Sequence[Tensor],
    steps: int,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Distillation:
    """Updates of low rank for the factors of a compressed model: first those next to the outputs, then the others.

    The sequential low-rank fine-tuning of SVD-LLM (Wang 2024, arXiv 2403.07378, section 3.3): each factor F becomes
    F + B A of rank 8, with the factors of the other side frozen, and is then merged. It trains end to end, on the mean
    of KL(dense || model) over calibration tokens instead of labels. Every eighth batch is held back, and the values
    that do best on those are kept, the first ones included.

    Args:
        model: a compressed causal language model, in eval mode; changed in place.
        dense: what it was.
        batches: token ids (sequences, length).
        steps: of each of the two rounds, at least 1.
        seed: of the order of the batches and of the updates.
        on_progress: called with (steps done, steps in all).

    Raises:
        Refused: fewer than two batches, or no structure has a factor to train.
    """
    if steps < 1:
        raise Refused(f"steps={steps} must be at least 1")
    judges = list(batches[JUDGES - 1 :: JUDGES]) or list(batches[-1:])
    training = [batch for i, batch in enumerate(batches) if i % JUDGES != JUDGES - 1][: len(batches) - 1]
    rounds = [names for names in sides(model) if names]
    if not training:
        raise Refused("distillation needs two batches of calibration tokens: one to train on, one to judge on")
    if not rounds:
        raise Refused("distillation trains the matrices that structures are made of, and there are none: leave it out")
    generator = torch.Generator().manual_seed(seed)
    history = [judged(model, dense, judges, {})]
    for i, names in enumerate(rounds):

        def tick(done: int, before: int = i * steps) -> None:
            if on_progress:
                on_progress(before + done, len(rounds) * steps)

        history.append(_round(model, dense, names, training, judges, history[-1], steps, generator, tick))
    return Distillation(steps, tuple(history))


def sides(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the matrices that structures are made of: the first of each structure, and the others."""
    first, others = [], []
    for name, module in model.named_modules():
        if isinstance(module, StructuredLinear | StructuredEmbedding):
            named = module.structure.named_parameters(f"{name}.structure")
            leaves = [leaf for leaf, p in named if p.ndim >= 2 and p.is_floating_point() and p.numel()]
            first += leaves[:1]
            others += leaves[1:]
    return first, others


def _round(
    model: nn.Module,
    dense: nn.Module,
    names: Sequence[str],
    training: Sequence[Tensor],
    judges: Sequence[Tensor],
    first: float,
    steps: int,
    generator: torch.Generator,
    tick: Callable[[int], None],
) -> float:
    leaves = {name: model.get_parameter(name) for name in names}
    scales = {name: float(leaf.detach().float().square().mean().sqrt()) for name, leaf in leaves.items()}
    updates = {name: _update(leaf, generator) for name, leaf in leaves.items()}
    groups = [
        {"params": [factor], "scale": scales[name] if side == 0 else 1 / math.sqrt(RANK)}
        for name, pair in updates.items()
        for side, factor in enumerate(pair)
    ]
    optimizer = torch.optim.Adam(groups, eps=1e-20)
    best, least = {}, first
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * group["scale"] * (1 + math.cos(math.pi * step / steps)) / 2
        batch = training[int(torch.randint(len(training), (1,), generator=generator))]
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = _loss(model, dense, batch, {name: updated(leaves[name], updates[name]) for name in names})
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) * CHECKS // steps > step * CHECKS // steps:
            now = {name: updated(leaves[name], updates[name]).detach() for name in names}
            error = judged(model, dense, judges, now)
            if error < least:
                best, least = now, error
        tick(step + 1)
    for name, value in best.items():
        leaves[name].copy_(value)
    return least


def _update(leaf: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """B = 0 and A of entries of size 1 / sqrt(rank), so that a step of B moves an entry of B A by its own size."""
    out, columns = leaf.flatten(0, -2).shape
    rank = min(RANK, out, columns)
    a = torch.randn(rank, columns, generator=generator) / math.sqrt(rank)
    return torch.zeros(out, rank, device=leaf.device).requires_grad_(), a.to(leaf.device).requires_grad_()


def updated(leaf: Tensor, update: tuple[Tensor, Tensor]) -> Tensor:
    """F + B A, in the dtype of F; blocks of a matrix stand below each other."""
    return (leaf.detach().float() + (update[0] @ update[1]).view(leaf.shape)).to(leaf.dtype)


def _loss(model: nn.Module, dense: nn.Module, batch: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    tokens = beside(model, batch)
    with WideProducts():
        with torch.no_grad():
            expected = dense(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)
        found = functional_call(model, dict(values), (), {"input_ids": tokens, "use_cache": False}).logits
    return divergence(expected, found.float().log_softmax(-1)).mean()


@torch.no_grad()
def judged(model: nn.Module, dense: nn.Module, batches: Sequence[Tensor], values: Mapping[str, Tensor]) -> float:
    """The mean divergence on some batches with other values of some parameters; infinite where it is not finite."""
    total = sum(batch.numel() * float(_loss(model, dense, batch, values)) for batch in batches)
    mean = total / sum(batch.numel() for batch in batches)
    return mean if math.isfinite(mean) else math.inf
