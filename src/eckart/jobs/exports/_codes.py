"""Integers of a model as the formats of others hold them: one scheme for all matrices, and no number rounded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.files.json import read_json, write_json
from eckart.jobs.exports._factors import made_ordinary
from eckart.jobs.exports._ordinary import made_dense, own_bias
from eckart.models import transformers as hf
from eckart.models.experts import mixtures
from eckart.models.fused_experts import is_packed
from eckart.models.modules import StructuredConv1D, StructuredEmbedding, StructuredLinear, Tied
from eckart.models.places import set_module
from eckart.structures import Chain, Dense, Quantized, Shared, StructuredMatrix

WIDTHS = (4, 8)
"""Bits of a code that programs for these formats multiply; fewer stand in the next."""
SMALLEST = 8
"""Inputs that must at least share a scale."""
MAKES = "compress the dense model with --method gptq --bits 4 --group 128"


@dataclass(frozen=True)
class Scheme:
    """What all coded matrices of a model have in common.

    Attributes:
        bits: of a code.
        group: inputs that share a scale; None where all of a row do.
        symmetric: whether the zero-point is 2^(bits-1) everywhere.
    """

    bits: int
    group: int | None
    symmetric: bool


@dataclass(frozen=True)
class Coded:
    """W[i, j] = scales[i, k] (codes[i, j] - zeros[i, k]) with k the group of j.

    Attributes:
        codes: (out, in), uint8.
        scales: (out, groups), in the dtype of the model.
        zeros: (out, groups), uint8.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor


Encode = Callable[[str, Coded], dict[str, Tensor]]
Say = Callable[[Scheme, Mapping[str, Coded], list[str]], tuple[dict[str, Any], Encode]]


def write_codes(source: str, out: str | Path, form: str, say: Say) -> str:
    """Writes a model whose matrices are integers in the tensors of a format, and reads it back.

    Args:
        source: the model.
        out: the new directory.
        form: name of the format.
        say: gives, of the scheme, the coded matrices and the names of the linear maps that stay dense, the
            `quantization_config` and the function that makes the tensors of a matrix.

    Returns:
        What was written, and the largest difference between a number that was read back and the model's own.

    Raises:
        Refused: the format cannot say the model, what was read back differs by more than rounding, or `out` is taken.
    """
    check_target(Path(out))
    loaded = hf.load(source)
    model: Any = loaded.model
    found = quantized(model, source, form)
    scheme, coded = in_one_scheme(found)
    rest = made_ordinary(model, found)
    made_dense(model)
    dense = [name for name, m in model.named_modules() if isinstance(m, nn.Linear) and name not in coded]
    said, encode = say(scheme, coded, dense)
    wanted = model.state_dict()
    for name, each in coded.items():
        set_module(model, name, _Parts(encode(name, each), own_bias(model.get_submodule(name))))
    with new_directory(Path(out)) as partial:
        loaded.write(partial)
        config = {**read_json(partial / "config.json"), "quantization_config": said}
        write_json(config, partial / "config.json")
        worst = _difference(hf.load(str(partial)).model.state_dict(), wanted, form)
    return (
        f"{len(coded)} matrices of {_scheme(scheme, found)}{rest}; {len(dense)} linear maps stay as they are; "
        f"read back, no number differs by more than {worst:.2g}"
    )


def quantized(model: nn.Module, source: str, form: str) -> dict[str, Quantized]:
    """The coded matrices of a model by name.

    Raises:
        Refused: there are none, or one is stored in a way that integers with scales do not say.
    """
    if mixtures(model) or any(is_packed(module) for module in model.modules()):
        raise Refused(f"{source} is a mixture of experts, which is not written as {form}: export --to dense")
    found: dict[str, Quantized] = {}
    for name, module in model.named_modules():
        if isinstance(module, Tied) and not isinstance(module.owner.structure, Dense):
            raise Refused(f"{name} of {source} reads the codes of another matrix, which {form} cannot say: {MAKES}")
        if not isinstance(module, StructuredLinear | StructuredEmbedding) or isinstance(module.structure, Dense):
            continue
        structure = module.structure
        if _turned(structure):
            continue
        kind = type(structure).__name__
        if not isinstance(structure, Quantized):
            raise Refused(f"{name} of {source} is a {kind}, and {form} has integers with scales only: {MAKES}")
        if structure.codebook is not None:
            raise Refused(f"{name} of {source} has a codebook of its own, which {form} cannot say: {MAKES}")
        if type(module) is not StructuredLinear:
            what, advice = "convolution", f"compress with --exclude {name!r}"
            if isinstance(module, StructuredEmbedding):
                what = "embedding"
            if isinstance(module, StructuredConv1D):
                what, advice = "matrix that its layer stores transposed", "export --to plain or onnx"
            raise Refused(f"{name} of {source} is a coded {what}, and {form} is for nn.Linear: {advice}")
        found[name] = structure
    if not found:
        raise Refused(f"{source} has no matrix of integers, which is what {form} holds: {MAKES}")
    return found


def _turned(structure: StructuredMatrix) -> bool:
    """Whether it is the head of a rotated model, an embedding in numbers times a small matrix, written as numbers."""
    first = next(iter(structure.operands()), None) if isinstance(structure, Chain) else None
    return isinstance(first, Shared) and isinstance(first.owner, Dense)


def in_one_scheme(found: Mapping[str, Quantized]) -> tuple[Scheme, dict[str, Coded]]:
    """The same matrices with as many bits, as large groups and one kind of grid, scales repeated where that takes it.

    Raises:
        Refused: no group size of `SMALLEST` or more serves all.
    """
    bits = next(width for width in WIDTHS if width >= max(each.bits for each in found.values()))
    symmetric = all(each.zeros is None for each in found.values())
    group = None
    if any(each.group < each.columns for each in found.values()):
        fits = {name: gcd(each.group, each.columns) for name, each in found.items()}
        group = gcd(*fits.values())
        if group < SMALLEST:
            name = min(fits, key=fits.__getitem__)
            raise Refused(
                f"{name} has {found[name].columns} inputs in groups of {found[name].group}: groups that serve all "
                f"matrices would be of {group}, and {SMALLEST} is the least; compress with a --group that divides the "
                "inputs of every matrix"
            )
    return Scheme(bits, group, symmetric), {n: _coded(each, bits, group, symmetric) for n, each in found.items()}


def _coded(matrix: Quantized, bits: int, group: int | None, symmetric: bool) -> Coded:
    codes, scales, zeros = matrix.unpacked(), matrix.scales.detach(), matrix.zeros
    if zeros is None:
        zeros = torch.full_like(scales, 1 << (matrix.bits - 1), dtype=torch.uint8)
        if symmetric:
            shift = (1 << (bits - 1)) - (1 << (matrix.bits - 1))
            codes, zeros = codes + shift, zeros + shift
    if group is not None:
        places = torch.arange(matrix.columns // group, device=scales.device) * group // matrix.group
        scales, zeros = scales[:, places], zeros[:, places]
    return Coded(codes, scales.contiguous(), zeros.contiguous())


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes (rows, n), uint8, in words of 32 bits, lowest bits first: (rows, ceil(n * bits / 32)), int32."""
    each = 32 // bits
    padded = nn.functional.pad(codes, (0, -codes.shape[1] % each)).reshape(len(codes), -1, each)
    found = torch.zeros(padded.shape[:2], dtype=torch.int32, device=codes.device)
    for place in range(each):
        found |= padded[..., place].int() << (place * bits)
    return found


class _Parts(nn.Module):
    """The tensors of a matrix under the names of a format, where its layer stood."""

    def __init__(self, parts: Mapping[str, Tensor], bias: Tensor | None) -> None:
        super().__init__()
        for name, tensor in parts.items():
            self.register_buffer(name, tensor)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach()))


def _difference(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], form: str) -> float:
    """The largest difference of two numbers of a model; Refused where it is more than a rounding."""
    if given.keys() != wanted.keys():
        raise Refused(f"read back from {form}, {sorted(given.keys() ^ wanted.keys())[0]} is missing: export --to dense")
    worst = 0.0
    for name, own in wanted.items():
        if not own.is_floating_point() or not own.numel():
            continue
        apart = float((given[name].double() - own.double()).abs().max())
        if not apart <= float(own.abs().max()) * torch.finfo(own.dtype).eps:
            raise Refused(f"read back from {form}, {name} differs by {apart:.2g}: export --to dense")
        worst = max(worst, apart)
    return worst


def _scheme(scheme: Scheme, found: Mapping[str, Quantized]) -> str:
    """A scheme in words, and what the model has instead."""
    bits, sizes = ({getattr(each, name) for each in found.values()} for name in ("bits", "group"))
    said = f"{_listed(bits)} bits" + ("" if bits == {scheme.bits} else f", stored in {scheme.bits}")
    groups = "a scale a row" if scheme.group is None else f"groups of {scheme.group}"
    if scheme.group is not None and sizes != {scheme.group}:
        groups += f" (the scales of {_listed(sizes)} repeated)"
    return f"{said}, {groups}, {'symmetric' if scheme.symmetric else 'with zero-points'}"


def _listed(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))
