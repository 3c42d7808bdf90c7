"""The matrices that `peers.py` compares on: layers of smollm2 with what went into them, and hard ones made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from eckart.jobs.calibration import text_of
from eckart.metrics import Metric
from eckart.models.transformers import load_model
from eckart.statistics import Need, Statistics
from eckart.statistics.collect import collect
from eckart.texts.sequences import sequences

KINDS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
KINDS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
LENGTH = 256
CONDITION = 1e9
INPUTS = (Need.INPUT_SECOND_MOMENT, Need.INPUT_MEAN, Need.INPUT_ABS_MEAN)


@dataclass
class Matrix:
    """A weight, the inputs it was measured on, and what eckart's own pass over them found.

    Attributes:
        name: the layer and the kind, or what is hard about it.
        weight: W (out, in).
        inputs: (sequences, tokens, in), in the dtype of the weight.
        statistics: of `eckart.statistics.collect` on the same inputs.
    """

    name: str
    weight: Tensor
    inputs: Tensor
    statistics: Statistics

    @property
    def size(self) -> str:
        return "x".join(map(str, self.weight.shape))

    @cached_property
    def metric(self) -> Metric:
        """C = E[x x^T] of the inputs, every product and sum in float64: what both sides are judged in."""
        x = self.inputs.flatten(0, 1).double()
        return Metric(right=x.T @ x / len(x))


def layers(numbers: list[int], fisher: list[int], samples: int, seed: int) -> dict[int, dict[str, Matrix]]:
    """The seven matrices of some layers of smollm2 on news, by layer and kind; gradients for those in `fisher`."""
    model, tokenizer = load_model("smollm2")
    batches = sequences(tokenizer, text_of("news"), LENGTH, samples, seed).split(1)
    modules = {(n, kind): model.get_submodule(f"model.layers.{n}.{kind}") for n in numbers for kind in KINDS}
    inputs: dict[str, list[Tensor]] = {f"{n}.{kind}": [] for n, kind in modules}

    def keep(name: str) -> object:
        return lambda module, arguments, output: inputs[name].append(arguments[0].detach())

    handles = [m.register_forward_hook(keep(f"{n}.{kind}")) for (n, kind), m in modules.items()]
    plain = collect(model, {f"{n}.{k}": m for (n, k), m in modules.items()}, INPUTS, batches, seed=seed)
    for handle in handles:
        handle.remove()
    graded = {f"{n}.{k}": m for (n, k), m in modules.items() if n in fisher}
    gradients = collect(model, graded, (Need.FISHER_ROWS, Need.FISHER_COLUMNS), batches, seed=seed)
    found: dict[int, dict[str, Matrix]] = {n: {} for n in numbers}
    for (n, kind), module in modules.items():
        name = f"{n}.{kind}"
        if name in gradients:
            plain[name].fisher_rows = gradients[name].fisher_rows
            plain[name].fisher_columns = gradients[name].fisher_columns
        short = kind.split(".")[1].removesuffix("_proj")
        found[n][kind] = Matrix(f"{n} {short}", module.weight.detach(), torch.cat(inputs[name]), plain[name])
    return found


def hard(layer: dict[str, Matrix], seed: int) -> list[Matrix]:
    """Fewer tokens than inputs, a second moment of condition 1e9, and weights of 16 bits."""
    square, wide, tall = (layer[kind] for kind in ("self_attn.q_proj", "mlp.down_proj", "mlp.gate_proj"))
    generator = torch.Generator().manual_seed(seed)
    tokens, n = square.inputs.shape[0] * square.inputs.shape[1], square.weight.shape[1]
    left, right = (
        torch.linalg.qr(torch.randn(rows, n, generator=generator, dtype=torch.float64)).Q for rows in (tokens, n)
    )
    graded = tokens**0.5 * left * torch.logspace(0, -0.5, n, CONDITION, dtype=torch.float64) @ right.T
    cases = {
        "256 tokens, q": (square.weight, square.inputs[:1]),
        "256 tokens, down": (wide.weight, wide.inputs[:1]),
        f"condition {CONDITION:.0e}, q": (square.weight, graded.float().view(-1, LENGTH, n)),
        "float16, q": (square.weight.half(), square.inputs.half()),
        "bfloat16, gate": (tall.weight.bfloat16(), tall.inputs.bfloat16()),
    }
    return [Matrix(name, weight, x, measured(weight, x)) for name, (weight, x) in cases.items()]


def measured(weight: Tensor, inputs: Tensor) -> Statistics:
    """What `collect` finds where W sees these inputs, a sequence at a time."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight.data = weight
    return collect(linear, {"w": linear}, INPUTS, inputs.split(1))["w"]
