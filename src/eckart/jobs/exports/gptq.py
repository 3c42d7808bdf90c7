"""integers of 4 or 8 bits in the layout of AutoGPTQ and GPTQModel"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.jobs.exports._codes import Coded, Encode, Scheme, words, write_codes

FORM = "gptq"


def write(source: str, out: str | Path) -> str:
    """Writes a model of integers, whichever method found them, as AutoGPTQ lays them out; no number is rounded again.

    Scales keep the dtype of the model. The first version of the layout stores zero-points less one and so has none of
    0; where there are such, the second is written (`gptq_v2`).

    Returns:
        The scheme, and the largest difference of what was read back.

    Raises:
        Refused: a matrix is no integers with scales or does not fill whole words of 32 bits, a block has matrices in
            codes that another has dense, or as `write_codes`.
    """
    return write_codes(source, out, FORM, said)


def said(scheme: Scheme, coded: Mapping[str, Coded], dense: list[str]) -> tuple[dict[str, Any], Encode]:
    """The `quantization_config`, and what makes the tensors of a matrix.

    Raises:
        Refused: matrices are left dense in a way that the configuration cannot say.
    """
    version = "gptq" if all(int(each.zeros.min()) > 0 for each in coded.values()) else "gptq_v2"
    inside = {name: _in_block(name) for name in coded}
    kinds = sorted(set(filter(None, inside.values())))
    left = {kind for name in dense if (kind := _in_block(name)) is not None}
    if both := left & set(kinds):
        name = next(name for name in dense if _in_block(name) in both)
        raise Refused(
            f"{name} is dense and the same matrix of another block is not, which {FORM} cannot say: export --to "
            "compressed-tensors"
        )
    heads = [name for name, kind in inside.items() if kind is None]
    if any(not name.endswith("lm_head") for name in heads):
        raise Refused(
            f"{heads[0]} is in codes and in no block, which {FORM} cannot say: compress with --exclude {heads[0]!r}"
        )
    config: dict[str, Any] = {
        "quant_method": FORM,
        "bits": scheme.bits,
        "group_size": -1 if scheme.group is None else scheme.group,
        "desc_act": False,
        "sym": scheme.symmetric,
        "lm_head": bool(heads),
        "checkpoint_format": version,
    }
    if left:
        config["modules_in_block_to_quantize"] = [kinds]
    return config, lambda name, matrix: laid_out(name, matrix, scheme, less=version == "gptq")


def laid_out(name: str, matrix: Coded, scheme: Scheme, less: bool) -> dict[str, Tensor]:
    """Codes packed along the inputs, zero-points along the outputs, everything (inputs or groups, outputs).

    Raises:
        Refused: the inputs or outputs do not fill words.
    """
    out, inputs = matrix.codes.shape
    each = 32 // scheme.bits
    if out % each or inputs % each:
        raise Refused(
            f"{name} of shape ({out}, {inputs}) does not fill words of {each} codes, as {FORM} asks: export --to "
            "compressed-tensors"
        )
    return {
        "qweight": words(matrix.codes, scheme.bits).T.contiguous(),
        "qzeros": words(matrix.zeros.T - (1 if less else 0), scheme.bits),
        "scales": matrix.scales.T.contiguous(),
        "g_idx": (torch.arange(inputs) // (scheme.group or inputs)).int(),
    }


def _in_block(name: str) -> str | None:
    """The name of a matrix in its block; None outside of all."""
    found = re.search(r"\.\d+\.(.+)$", f".{name}")
    return found and found.group(1)
