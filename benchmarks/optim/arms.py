"""The optimizers that the benchmarks of the family compare, ours and those of torch, each for matrices and a rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from eckart.optim import OPTIMIZERS, groups

REST = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0}
"""AdamW for embeddings, head, norms and biases, in all arms."""
Made = Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Arm:
    """An optimizer of matrices.

    Attributes:
        make: matrices, a rate and the steps of the run -> their optimizer.
        rates: that are tried.
        card: name of the card that it belongs to, "" for torch's own.
    """

    make: Callable[[list[Any], float, int], torch.optim.Optimizer]
    rates: tuple[float, ...]
    card: str = ""

    def optimizers(self, model: nn.Module, rate: float, steps: int) -> Made:
        """One for the matrices, and AdamW for the rest."""
        split = groups(model, show=False)
        matrices = [p for group in split if group.get("rule") != "adamw" for p in group["params"]]
        rest = [p for group in split if group.get("rule") == "adamw" for p in group["params"]]
        return [self.make(matrices, rate, steps), torch.optim.AdamW(rest, **REST)]


def ours(name: str, rates: tuple[float, ...], **options: Any) -> Arm:
    return Arm(lambda p, lr, steps: OPTIMIZERS[name].entry(p, lr=lr, weight_decay=0.0, **options), rates, name)


ADAM = (1e-3, 3e-3, 1e-2, 3e-2)
SIGNS = (1e-2, 3e-2, 1e-1, 3e-1)
QUARTER = tuple(4 * rate for rate in ADAM)
"""For steps that are scaled by 0.25."""
SGD = (1e-2, 3e-2, 1e-1, 3e-1)
TEXT = {
    "AdamW": ADAM[1:],
    "SGD, Nesterov": (0.3, 1.0, 3.0),
    "muon": SIGNS[1:],
    "soap": ADAM[1:],
    "galore": QUARTER[1:],
    "fira": QUARTER[1:],
    "apollo": ADAM[1:],
    "auon, code": (6.0, 20.0, 60.0),
    "auon, paper": (0.48, 1.6, 4.8),
    "dct-adamw": ADAM[1:],
    "q-galore": QUARTER[1:],
    "q-galore, weights in 8 bits": QUARTER[1:],
    "dion": SIGNS[1:],
    "mfac": (0.001, 0.01, 0.1),
    "adam-s, 2 of 4 left": ADAM[1:],
}
"""The arms that learn text, with three rates each, three times apart or more."""
LONGER = ("AdamW", "muon", "soap", "galore", "fira", "apollo", "dion", "q-galore")
"""Those that also do so for longer."""
LARGER = ("AdamW", "muon, bfloat16", "soap", "galore", "fira", "apollo", "dion", "dct-adamw")
"""Those that also do so in larger matrices, at the smallest three of their rates."""


def arms(rank: int, every: int) -> dict[str, Arm]:
    """All arms, with low ranks of `rank` that are looked for every so many steps."""
    low = {"rank": rank, "every": every}
    return {
        "AdamW": Arm(lambda p, lr, steps: torch.optim.AdamW(p, lr=lr, weight_decay=0.0), ADAM),
        "SGD, Nesterov": Arm(lambda p, lr, steps: torch.optim.SGD(p, lr=lr, momentum=0.95, nesterov=True), SGD),
        "muon": ours("muon", SIGNS),
        "muon, bfloat16": ours("muon", SIGNS, dtype="bfloat16"),
        "soap": ours("soap", ADAM, largest=512),
        "galore": ours("galore", QUARTER, **low),
        "fira": ours("fira", QUARTER, **low),
        "apollo": ours("apollo", ADAM, **low),
        "apollo-mini": ours("apollo-mini", ADAM, every=every),
        "auon, code": ours("auon", tuple(20 * rate for rate in SGD)),
        "auon, paper": ours("auon", tuple(16 * rate for rate in SIGNS), version="paper"),
        "dct-adamw": ours("dct-adamw", ADAM, rank=rank),
        "dct-adamw, identity": ours("dct-adamw", ADAM, rank=rank, basis="identity"),
        "dct-adamw, random": ours("dct-adamw", ADAM, rank=rank, basis="random"),
        "q-galore": ours("q-galore", QUARTER, **low),
        "q-galore, weights in 8 bits": ours("q-galore", QUARTER, **low, weight_bits=8),
        "dion": ours("dion", SIGNS, rank=rank),
        "mfac": ours("mfac", (1e-4, 1e-3, 1e-2, 1e-1), window=16, damping=1e-4),
        "adam-s, 2 of 4 left": Arm(
            lambda p, lr, steps: OPTIMIZERS["adam-s"].entry(p, lr=lr, weight_decay=0.0, total=steps), ADAM, "adam-s"
        ),
        "Muon of torch": Arm(lambda p, lr, steps: torch.optim.Muon(p, lr=lr, weight_decay=0.0), SIGNS),
    }
