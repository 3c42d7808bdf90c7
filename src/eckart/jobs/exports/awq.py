"""integers of 4 bits in the layout of AutoAWQ (gemm), as vLLM and GPTQModel load them"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.jobs.exports._codes import Coded, Encode, Scheme, words, write_codes

FORM = "awq"
PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""The column of eight that stands in each place of a word, lowest bits first."""


def write(source: str, out: str | Path) -> str:
    """Writes a model of integers, whichever method found them, as AutoAWQ lays them out; no number is rounded again.

    Codes of fewer bits stand in 4, scales keep the dtype of the model, and a grid without zero-points gets those of its
    middle. Programs that read the layout compute in float16.

    Returns:
        The scheme, and the largest difference of what was read back.

    Raises:
        Refused: a matrix is no integers with scales, has codes of more than 4 bits, outputs that do not fill words, or
            is the head, or as `write_codes`.
    """
    return write_codes(source, out, FORM, said)


def said(scheme: Scheme, coded: Mapping[str, Coded], dense: list[str]) -> tuple[dict[str, Any], Encode]:
    """The `quantization_config`, and what makes the tensors of a matrix.

    Raises:
        Refused: codes of more than 4 bits, or of the head.
    """
    if scheme.bits != 4:
        raise Refused(f"{FORM} has codes of 4 bits, and this model needs {scheme.bits}: export --to gptq")
    if heads := [name for name in coded if name.endswith("lm_head")]:
        raise Refused(f"{heads[0]} is in codes, and readers of {FORM} leave the head dense: export --to gptq")
    config: dict[str, Any] = {
        "quant_method": FORM,
        "bits": scheme.bits,
        "group_size": -1 if scheme.group is None else scheme.group,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": dense,
    }
    return config, laid_out


def laid_out(name: str, matrix: Coded) -> dict[str, Tensor]:
    """Codes (inputs, outputs / 8) and zero-points (groups, outputs / 8) packed along the outputs.

    Raises:
        Refused: the outputs do not fill words.
    """
    if len(matrix.codes) % len(PLACES):
        raise Refused(
            f"{name} has {len(matrix.codes)} outputs, and {FORM} packs {len(PLACES)} in a word: export --to "
            "compressed-tensors"
        )
    order = torch.arange(len(matrix.codes)).view(-1, len(PLACES))[:, PLACES].flatten()
    return {
        "qweight": words(matrix.codes.T[:, order], 4),
        "qzeros": words(matrix.zeros.T[:, order], 4),
        "scales": matrix.scales.T.contiguous(),
    }
