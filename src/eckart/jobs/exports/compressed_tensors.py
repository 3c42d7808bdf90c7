"""integers of 4 or 8 bits as vLLM and plain transformers with the package compressed-tensors load them"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.jobs.exports._codes import Coded, Encode, Scheme, words, write_codes

FORM = "compressed-tensors"


def write(source: str, out: str | Path) -> str:
    """Writes a model of integers as compressed-tensors packs them, `pack-quantized`; codes and scales stay as they are.

    All matrices get one scheme: codes of 4 or 8 bits, and the largest groups that serve all, whose scales are repeated
    where the model has larger ones. Matrices that are dense stay dense.

    Returns:
        The scheme, and the largest difference of what was read back.

    Raises:
        Refused: a matrix is no integers with scales, or as `write_codes`.
    """
    return write_codes(source, out, FORM, said)


def said(scheme: Scheme, coded: Mapping[str, Coded], dense: list[str]) -> tuple[dict[str, Any], Encode]:
    """The `quantization_config`, and what makes the tensors of a matrix."""
    weights = {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": "channel" if scheme.group is None else "group",
        "group_size": scheme.group,
        "dynamic": False,
    }
    config: dict[str, Any] = {
        "quant_method": FORM,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": dense,
    }
    if not scheme.symmetric:
        # Loaded in codes, transformers does not expect zero-points to be packed, though the package packs them.
        config["dequantize"] = True
    return config, lambda _, matrix: packed(matrix, scheme)


def packed(matrix: Coded, scheme: Scheme) -> dict[str, Tensor]:
    """Codes packed along the inputs, zero-points along the outputs, lowest bits first."""
    parts = {
        "weight_packed": words(matrix.codes, scheme.bits),
        "weight_scale": matrix.scales,
        "weight_shape": torch.tensor(matrix.codes.shape),
    }
    if not scheme.symmetric:
        parts["weight_zero_point"] = words(matrix.zeros.T, scheme.bits).T.contiguous()
    return parts
