"""The optimizers that the benchmarks of the family compare, ours and those of others, each for matrices and a rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from eckart.optim import OPTIMIZERS, groups, state_bytes

REST = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.0}
"""AdamW for embeddings, head, norms and biases, in all arms."""
Made = Sequence[torch.optim.Optimizer]
Make = Callable[[list[Any], float], torch.optim.Optimizer]
"""Matrices and a rate -> their optimizer."""


@dataclass(frozen=True)
class Arm:
    """An optimizer of matrices.

    Attributes:
        make: matrices, a rate and the steps of the run -> their optimizer.
        rates: that are tried.
        card: name of the card that it belongs to, "" for those of others.
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
OTHERS = {
    "torch: Muon": SIGNS,
    "bitsandbytes: AdamW8bit": ADAM,
    "torchao: AdamW8bit": ADAM,
    "galore-torch: GaLoreAdamW": QUARTER,
    "pytorch-optimizer: SOAP": ADAM,
    "pytorch-optimizer: GaLore": QUARTER,
    "pytorch-optimizer: Fira": QUARTER,
    "pytorch-optimizer: APOLLO": ADAM,
    "pytorch-optimizer: Muon": SIGNS,
}
"""Those of others, and the rates that are tried."""
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
    "dct-adamw, identity": ADAM[1:],
    "dct-adamw, random": ADAM[1:],
    "adamw, 8 bits": ADAM[1:],
    "muon, 8 bits": SIGNS[1:],
    "galore, 8 bits": QUARTER[1:],
    **{name: rates[1:] for name, rates in OTHERS.items()},
}
"""The arms that learn text, with three rates each, three times apart or more."""
LONGER = ("AdamW", "muon", "soap", "galore", "fira", "apollo", "dion", "q-galore")
"""Those that also do so for longer."""
LARGER = ("AdamW", "muon, bfloat16", "soap", "galore", "fira", "apollo", "dion", "dct-adamw")
"""Those that also do so in larger matrices, at all of their rates."""


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
        "adamw, 8 bits": ours("adamw", ADAM, bits=8),
        "muon, 8 bits": ours("muon", SIGNS, bits=8),
        "galore, 8 bits": ours("galore", QUARTER, **low, bits=8),
        **{
            name: Arm(lambda p, lr, steps, make=make: make(p, lr), OTHERS[name])  # type: ignore[misc]
            for name, make in peers(rank, every).items()
            if name in OTHERS
        },
    }


def peers(rank: int, every: int) -> dict[str, Make]:
    """Those of torch, and of others where they are installed, without weight decay."""
    found: dict[str, Make] = {
        "torch: AdamW": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.0),
        "torch: Muon": lambda p, lr: torch.optim.Muon(p, lr=lr, weight_decay=0.0),
    }
    low = {"rank": rank, "update_proj_gap": every, "projection_type": "std"}
    galore = {"rank": rank, "update_proj_gap": every, "scale": 0.25, "proj_type": "std"}
    for package, name, make in (
        (
            "bitsandbytes.optim",
            "bitsandbytes: AdamW8bit",
            lambda m, p, lr: m.AdamW8bit(p, lr=lr, weight_decay=0.0),
        ),
        (
            "torchao.optim",
            "torchao: AdamW8bit",
            lambda m, p, lr: m.AdamW8bit(p, lr=lr, weight_decay=0.0),
        ),
        (
            "galore_torch",
            "galore-torch: GaLoreAdamW",
            lambda m, p, lr: m.GaLoreAdamW([{"params": p, **galore}], lr=lr),
        ),
        (
            "pytorch_optimizer",
            "pytorch-optimizer: SOAP",
            lambda m, p, lr: m.SOAP(p, lr=lr, weight_decay=0.0),
        ),
        (
            "pytorch_optimizer",
            "pytorch-optimizer: Fira",
            lambda m, p, lr: m.Fira([{"params": p, "scale": 0.25, **low}], lr=lr),
        ),
        (
            "pytorch_optimizer",
            "pytorch-optimizer: GaLore",
            lambda m, p, lr: m.GaLore([{"params": p, "scale": 0.25, **low}], lr=lr),
        ),
        (
            "pytorch_optimizer",
            "pytorch-optimizer: APOLLO",
            lambda m, p, lr: m.APOLLO([{"params": p, "scale": 1.0, **low}], lr=lr, scale_type="channel"),
        ),
        (
            "pytorch_optimizer",
            "pytorch-optimizer: Muon",
            lambda m, p, lr: m.Muon([{"params": p, "use_muon": True}], lr=lr),
        ),
    ):
        try:
            module = import_module(package)
        except ImportError:
            print(f"{package} is not installed")
            continue
        found[name] = lambda p, lr, make=make, module=module: make(module, p, lr)  # type: ignore[misc]
    return found


def counted(optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    """Bytes of the state, and of what is shared."""
    if hasattr(optimizer, "shared"):
        found = state_bytes(optimizer)
        return found["state"], found["shared"]
    return sum(x.numel() * x.element_size() for x in inside(dict(optimizer.state), set())), 0


def inside(held: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors of a state, those in the attributes of objects too."""
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, Tensor):
        yield held
        return
    parts = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else None
    for each in vars(held).values() if parts is None and hasattr(held, "__dict__") else parts or ():
        yield from inside(each, seen)
