"""Adapters that PEFT wrote: any LoRA that is a product beside a matrix, with the outputs that PEFT gives it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from eckart.adapters.contract import ADAPTERS
from eckart.errors import Refused
from eckart.files.json import read_json
from eckart.files.tensors import read_safetensors
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import Parts, put_in
from eckart.jobs.adapt.host import Host
from eckart.jobs.adapt.peft import CONFIG, PREFIX, WEIGHTS
from eckart.jobs.adapt.peft_config import CONVERT, MERGE, LoraConfig, read_config
from eckart.jobs.adapt.run import base_of, find_bases, switched_off
from eckart.layouts.patches import Pair, geometry_of
from eckart.models.layers import is_conv1d
from eckart.models.modules import StructuredLinear
from eckart.models.sites import Site
from eckart.structures import Scaled, StructuredMatrix, low_rank

_FACTORS = ("lora_B", "lora_A")
_OF_GRADIENTS = ("lora_velora_embed",)
"""Tensors that only gradients are computed from."""
Factors = Mapping[str, Tensor]


def load_peft(model: nn.Module, source: Path, *, name: str = "default") -> Adapter:
    """Puts a LoRA that PEFT wrote beside the linear maps of a model, in place; see `eckart.load_adapter`.

    Raises:
        Refused: another type than LoRA, a variant of LoRA that has more than factors, a start that is not in the file,
            damaged files, or a model that does not fit.
    """
    lora = read_config(read_json(source / CONFIG), source)
    factors, others = _tensors(source)
    Host(model_type=str(getattr(getattr(model, "config", None), "model_type", ""))).check(factors)
    ranks = {where: _rank(lora, where, pair, source) for where, pair in factors.items()}
    adapter = Adapter(model, name, ADAPTERS.find(lora.start or "lora"), {}, ranks)
    bases = find_bases(model, head=True)
    with switched_off(model):
        _check_same(model, others, source)
        scales = {where: lora.scale_of(where, rank, ranks) for where, rank in ranks.items()}
        put_in(adapter, {n: _parts(lora, n, pair, scales[n], bases.get(n)) for n, pair in factors.items()})
    if unclear := lora.ambiguous(ranks):
        warnings.warn(
            f"{source}: several keys of alpha_pattern match {unclear[0]}, and PEFT forgets which was the first when it "
            "saves; the narrowest counts here",
            stacklevel=3,
        )
    lacking = [where for where in bases if where not in factors and lora.targets is not None and lora.takes(where)]
    if lacking and lora.targets != "all-linear":
        warnings.warn(
            f"{source} is for {len(lacking)} more matrices of this model than it has factors for ({lacking[0]}), and "
            "these stay as they are: is it an adapter of this model?",
            stacklevel=3,
        )
    return adapter


def _tensors(source: Path) -> tuple[dict[str, Factors], dict[str, Tensor]]:
    """The factors by the name of their matrix, and all other tensors by name; Refused for a damaged file."""
    file = source / WEIGHTS
    if not file.is_file() and (source / "adapter_model.bin").is_file():
        raise Refused(f"{source} holds pickled weights, which can run code when read: save it with safetensors")
    read, _ = read_safetensors(file)
    tensors = {key.removeprefix(PREFIX): tensor for key, tensor in read.items()}
    factors: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        where, _, kind = key.removesuffix(".weight").rpartition(".")
        if kind in _FACTORS and key.endswith(".weight"):
            factors.setdefault(where, {})[kind] = tensor
        elif "lora_" in key and kind not in _OF_GRADIENTS:
            raise Refused(f"{file}: {key} of shape {tuple(tensor.shape)} is no factor of a linear map; {MERGE}")
        elif kind not in _OF_GRADIENTS:
            others[key] = tensor
    for where, pair in factors.items():
        check_pair(pair, where, file)
    if not factors:
        raise Refused(f"{file} has no factors of a LoRA")
    return dict(factors), others


def check_pair(pair: Factors, where: str, file: Path) -> None:
    """Raises Refused where two factors are no matrix together, and no filters of a convolution either."""
    sizes = [pair[kind].ndim if kind in pair else 0 for kind in _FACTORS]
    inner = (len(pair["lora_A"]), *(1, 1)[: sizes[0] - 2]) if all(sizes) else ()
    if sizes not in ([2, 2], [3, 3], [4, 4]) or pair["lora_B"].shape[1:] != inner:
        raise Refused(f"{file}: the factors of {where} do not multiply to a matrix or the filters of a convolution")


def _rank(lora: LoraConfig, where: str, pair: Factors, source: Path) -> int:
    """The rank of one matrix; Refused where the configuration says another, or that there are no factors."""
    rank = len(pair["lora_A"])
    if not lora.takes(where):
        raise Refused(
            f"{source} has factors of {where}, which its configuration does not take (target_modules, exclude_modules, "
            "layers_to_transform), so that PEFT leaves them out: correct adapter_config.json"
        )
    if rank not in (said := lora.ranks_of(where)):
        raise Refused(f"{source}: the factors of {where} have rank {rank}, and its configuration says {min(said)}")
    return rank


def _check_same(model: nn.Module, others: Mapping[str, Tensor], source: Path) -> None:
    """Raises Refused where the file brings other values than the model has, for what is no factor."""
    for key, tensor in others.items():
        where, _, leaf = key.replace(".base_layer.", ".").rpartition(".")
        try:
            own = getattr(model.get_submodule(where), leaf, None)
        except AttributeError:
            own = None
        if not (isinstance(own, Tensor) and own.shape == tensor.shape and torch.equal(own, tensor.to(own))):
            raise Refused(
                f"{source} brings values of its own for {where}.{leaf} (modules_to_save, bias or save_embedding_layers "
                f"of PEFT), and only factors can be read: {MERGE}"
            )


def _parts(lora: LoraConfig, where: str, pair: Factors, scale: float, module: nn.Module | None) -> Parts:
    """The path of one matrix, and what its start took out of the matrix."""
    base = None if module is None else base_of(module)
    parts = product(where, pair, scale, base)
    if not lora.start or base is None:
        return parts
    return replace(parts, taken=_taken(lora.start, where, base, len(pair["lora_A"]), scale))


def product(where: str, pair: Factors, scale: float, base: nn.Module | None) -> Parts:
    """The scaled product of two factors, as the path of a matrix.

    Args:
        where: name of the matrix.
        pair: `lora_B` (out, r) and `lora_A` (r, in), or the filters of two convolutions.
        scale: what their product is multiplied by.
        base: what holds the matrix; None where the model has none of that name.

    Raises:
        Refused: filters for a convolution of other dimensions, or of one with a dilation.
    """
    dtype = torch.promote_types(pair["lora_A"].dtype, torch.float32)
    if base is not None and not isinstance(base, StructuredLinear):
        dtype = torch.promote_types(dtype, Site(where, base).weight.dtype)
    left, right = (pair[kind].flatten(1).to(dtype) for kind in _FACTORS)
    patch: Pair | None = None
    if pair["lora_A"].ndim > 2:
        *above, last = pair["lora_A"].shape[2:]
        patch = (above[0] if above else 1, last)
        geometry = None if base is None else geometry_of(base)
        if geometry is not None and geometry.line == bool(above):
            raise Refused(f"the adapter of {where} is for a convolution of another number of dimensions than there is")
        if geometry is not None and geometry.dilation != (1, 1) and patch != (1, 1):
            raise Refused(
                f"{where} is a convolution of dilation {geometry.dilation}, which PEFT leaves out of its factors"
            )
    return Parts(_scaled(low_rank(left, right), scale), patch=patch)


@torch.no_grad()
def _taken(start: str, where: str, base: nn.Module, rank: int, scale: float) -> StructuredMatrix:
    """What PEFT takes out of a matrix again whenever it loads an adapter of such a start."""
    if isinstance(base, StructuredLinear) or geometry_of(base) is not None:
        raise Refused(
            f"{where} is not an ordinary linear layer here, and {start} takes its start out of one: {CONVERT}"
        )
    site = Site(where, base)
    if start == "pissa":
        u, values, vh = torch.linalg.svd(site.weight.float(), full_matrices=False)
        root = (values[:rank] / scale).sqrt()
        return _scaled(low_rank(u[:, :rank] * root, root[:, None] * vh[:rank]), scale)
    # Of the matrix as the layer stores it, which a Conv1D does transposed.
    q, r = torch.linalg.qr(site.stored(site.weight).float())
    left, right = q[:, :rank], r[:rank]
    return _scaled(low_rank(right.T, left.T) if is_conv1d(base) else low_rank(left, right), scale)


def _scaled(path: StructuredMatrix, scale: float) -> StructuredMatrix:
    return path if scale == 1.0 else Scaled(path, scale=scale)
