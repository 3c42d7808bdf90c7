"""LQ-LoRA by its authors' functions: the decomposition of one matrix, and the integer program that shares out the bits.

See `checkouts`.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.checkouts import Outcome, checkout, module, stored, timed
from benchmarks.peers.matrices import Matrix


def stand_ins() -> list[ModuleType]:
    def fake_tensor_quant(x: Tensor, amax: Tensor, bits: int = 8, unsigned: bool = False) -> Tensor:
        bound = 2.0 ** (bits - 1 + unsigned) - 1
        scale = bound / amax.clamp_min(1e-24)
        return (x * scale).round().clamp(0.0 if unsigned else -bound, bound) / scale

    return [
        module("gurobipy"),
        module("bitsandbytes"),
        module("pytorch_quantization", tensor_quant=SimpleNamespace(fake_tensor_quant=fake_tensor_quant)),
        module("models.misc_utils", swarn=lambda *_, **__: None),
        module("models.quantization_utils_2"),
    ]


def decomposition(directory: Path, matrix: Matrix, rank: int, bits: int) -> Outcome:
    """models/lq_utils.py: `lowrank_quantized_sparse_decomposition` under rows x columns of the Fisher information.

    Stand-ins: gurobipy, bitsandbytes (unused here); `models.misc_utils` (prints); `models.quantization_utils_2`, the
    packed quantizer, by the repository's own `quantization_utils`, which rounds alike; NVIDIA's `fake_tensor_quant`,
    written out: round(x bound / amax) / (bound / amax), 0 to 255 for the unsigned one used. A scale of 8 bits goes with
    64 inputs, one of 32 bits with 256 of those, or with 64 where 256 do not divide the matrix.
    """
    parts = stand_ins()
    rows, columns = matrix.statistics.fisher_rows, matrix.statistics.fisher_columns
    assert rows is not None
    assert columns is not None
    importance = torch.outer(rows / rows.mean(), columns / columns.mean()).float()
    with checkout(directory, *parts) as load:
        utilities = load("models.quantization_utils")
        parts[-1].__dict__["quantize"] = utilities.quantize
        decompose = load("models.lq_utils").lowrank_quantized_sparse_decomposition
        inner = 256 if matrix.weight.numel() % (64 * 256) == 0 else 64
        config = utilities.QuantConfig(bits, 8, "fp32", 64, inner)
        torch.manual_seed(0)
        w = matrix.weight.float()
        (left, right, codes, _), seconds = timed(
            lambda: decompose(w, rank, qconfig=config, W=importance, heuristic="two-sided")
        )
        size = int(utilities.estimate_storage_from_config(w, config)) // 8 + stored(left, right)
    return Outcome(left.double() @ right.double() + codes.double(), size, seconds)


def program(directory: Path, budget: float, errors: Any, costs: Any) -> tuple[float, float]:
    """models/lq_utils.py: `mip_solve` with its SciPy backend: the least sum of errors, and the CPU seconds."""
    with checkout(directory, *stand_ins()) as load:
        solve = load("models.lq_utils").mip_solve
        solution, seconds = timed(lambda: solve(budget, errors, costs, backend="scipy"))
    return float(solution.fun), seconds
