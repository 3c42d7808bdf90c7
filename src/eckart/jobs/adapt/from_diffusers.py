"""LoRA files of diffusers and kohya: one file of tensors, whose names say which layers they belong to."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.adapters.contract import ADAPTERS
from eckart.errors import Refused, abridged
from eckart.files.tensors import read_safetensors
from eckart.jobs.adapt.adapter import Adapter
from eckart.jobs.adapt.files import put_in
from eckart.jobs.adapt.from_peft import check_pair, product
from eckart.jobs.adapt.peft_config import read_config
from eckart.jobs.adapt.run import base_of, find_bases, switched_off
from eckart.layouts.patches import geometry_of

METADATA = "lora_adapter_metadata"
"""Key of a file's header under which newer diffusers keep the configuration of PEFT, a word of the part before each."""
_TENSOR = re.compile(
    r"(?P<where>.+?)(?:[._]lora(?:_linear_layer)?[._](?P<kind>up|down|mid|A|B)\.weight|(?:[._]lora)?\.(?P<alpha>alpha))$"
)
_FLAT = re.compile(r"(?:lora|lycoris)_(?P<part>unet|te\d?|transformer)_(?P<rest>\w+)$")
_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "diffusion_model")
_PREFIXES = (*_PARTS, "base_model.model")
_KINDS = {"A": "lora_A", "down": "lora_A", "B": "lora_B", "up": "lora_B", "mid": "mid"}
_BLOCKS = re.compile(r"(?P<list>input|middle|output)_blocks?_(?P<number>\d+)_(?P<rest>\w+)$")
_OUTER = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_OF_RESNETS = {
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
"""Names of the first programs for diffusion models, which kohya keeps for some, and those of diffusers."""


@dataclass
class _Layer:
    """What a file has for one layer: two factors, with a third between them perhaps, and their alpha."""

    key: str
    rest: str
    flat: bool
    tensors: dict[str, Tensor] = field(default_factory=dict)


def load_lora(model: nn.Module, file: Path, *, name: str = "default", part: str | None = None) -> Adapter:
    """Puts the LoRA of such a file beside the linear maps of a model, in place; see `eckart.load_adapter`.

    A product of factors of rank r is multiplied by alpha / r; where the file has no alpha, by 1, or as its header says.

    Raises:
        Refused: pickled files, tensors that are no factors (DoRA, LoHa, LoKr), names that no linear map of the model
            has, several parts that fit the model, or damaged files.
    """
    if file.suffix.lower() != ".safetensors":
        raise Refused(f"{file} is no safetensors file; pickled ones can run code when read: save it with safetensors")
    tensors, header = read_safetensors(file)
    parts = _sorted_out(tensors, file)
    bases = find_bases(model, head=True)
    names = _Names(bases)
    found = {word: {layer.key: names.of(layer) for layer in layers} for word, layers in parts.items()}
    chosen = _chosen(found, part, model, file)
    layers = {found[chosen][layer.key]: layer for layer in parts[chosen]}
    if twice := [layer.key for layer in parts[chosen] if layers[found[chosen][layer.key]] is not layer]:
        raise Refused(f"{file} has {twice[0]} and another layer under one name: {found[chosen][twice[0]]}")
    pairs = {where: _pair(layer, bases[where], file) for where, layer in layers.items()}
    ranks = {where: len(pair["lora_A"]) for where, pair in pairs.items()}
    stated = _stated(header, chosen, file)
    lora = read_config({"peft_type": "LORA"} | stated, file) if stated else None
    if lora is not None and lora.start:
        raise Refused(f"{file} was made with init_lora_weights={lora.start!r}, which changed the matrices themselves")
    scales = {where: _alpha(layer, file) / ranks[where] for where, layer in layers.items() if "alpha" in layer.tensors}
    for where, rank in ranks.items():
        scales.setdefault(where, 1.0 if lora is None else lora.scale_of(where, rank, ranks))
    adapter = Adapter(model, name, ADAPTERS.find("lora"), {}, ranks)
    with switched_off(model):
        put_in(adapter, {n: product(n, pair, scales[n], base_of(bases[n])) for n, pair in pairs.items()})
    return adapter


def _sorted_out(tensors: Mapping[str, Tensor], file: Path) -> dict[str, list[_Layer]]:
    """The layers of each part of a file, by the word that begins their names."""
    layers: dict[tuple[str, str], _Layer] = {}
    for key, tensor in tensors.items():
        match = _TENSOR.match(key)
        if match is None:
            raise Refused(
                f"{file}: {abridged(key)} of shape {tuple(tensor.shape)} is no factor of a LoRA. What has more "
                "(DoRA, LoHa, LoKr, biases, whole matrices) is not read: merge it with the program it is from"
            )
        word, rest, flat = _split(match["where"])
        layer = layers.setdefault((word, rest), _Layer(match["where"], rest, flat))
        kind = "alpha" if match["alpha"] else _KINDS[match["kind"]]
        if kind in layer.tensors:
            raise Refused(f"{file} has {kind} of {abridged(layer.key)} twice, by two ways of naming")
        layer.tensors[kind] = tensor if kind == "alpha" else _factor(tensor, key, file)
    parts: dict[str, list[_Layer]] = {}
    for (word, _), layer in layers.items():
        parts.setdefault(word, []).append(layer)
    if not parts:
        raise Refused(f"{file} holds no tensors")
    return parts


def _factor(tensor: Tensor, key: str, file: Path) -> Tensor:
    """A factor, in a type that is computed with; Refused where it is none."""
    if not tensor.is_floating_point() or tensor.ndim < 2 or not tensor.numel():
        raise Refused(
            f"{file}: {abridged(key)} of shape {tuple(tensor.shape)} and {tensor.dtype} is no factor of a matrix"
        )
    computed = tensor if tensor.element_size() > 1 else tensor.float()
    if not computed.isfinite().all():
        raise Refused(f"{file}: {abridged(key)} has NaN or Inf entries")
    return computed


def _split(where: str) -> tuple[str, str, bool]:
    """The part that a name belongs to, the rest of it, and whether its dots are written as underscores."""
    if flat := _FLAT.match(where):
        return flat["part"], flat["rest"], True
    # Processors of attention were once modules of their own, in which the first matrix of `to_out` had no number.
    if ".processor." in where:
        where = re.sub(r"\.to_out$", ".to_out.0", where.replace(".processor.", "."))
    for prefix in _PREFIXES:
        if where.startswith(f"{prefix}."):
            return prefix, where.removeprefix(f"{prefix}."), False
    return "", where, False


class _Names:
    """Finds a model's linear maps by what others call them.

    Args:
        names: its linear maps.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.own = set(names)
        self.flat: dict[str, list[str]] = {}
        for name in self.own:
            self.flat.setdefault(name.replace(".", "_"), []).append(name)
        numbers = [re.match(r"down_blocks\.0\.resnets\.(\d+)\.", name) for name in self.own]
        self.depth = max((int(found[1]) + 1 for found in numbers if found), default=0)

    def of(self, layer: _Layer) -> str:
        """The linear map that a layer of a file is for; "" where there is none, or none that is the only one."""
        point = "_" if layer.flat else "."
        outer = f"text_model{point}"  # which newer encoders of CLIP lack
        called = [layer.rest, layer.rest.removeprefix(outer), outer + layer.rest]
        if not layer.flat:
            # The word taken for a part may be the name of a module.
            return next((name for name in [layer.key, *called] if name in self.own), "")
        called += [_by_diffusers(layer.rest, self.depth)] if self.depth else []
        found = next((self.flat[name] for name in called if name in self.flat), [])
        return found[0] if len(found) == 1 else ""


def _by_diffusers(rest: str, depth: int) -> str:
    """What diffusers calls a layer of a U-Net, of the name that the first programs gave it, both without dots.

    Args:
        rest: the old name. Blocks are numbered through: the first is the first convolution, and behind every `depth`
            of one size, or `depth + 1` on the way up, one changes the size.
        depth: blocks of a size on the way down.
    """
    if rest in _OUTER:
        return _OUTER[rest]
    match = _BLOCKS.match(rest)
    if match is None:
        return rest
    number, inner = int(match["number"]), match["rest"]
    if match["list"] == "middle":
        kind, place = ("attentions", 0) if number == 1 else ("resnets", number // 2)
        where = f"mid_block_{kind}_{place}"
    else:
        word, count = ("down", number - 1) if match["list"] == "input" else ("up", number)
        block, place = divmod(count, depth + 1)
        which, _, inner = inner.partition("_")
        kind = {"0": "resnets", "1": "attentions", "2": "upsamplers"}.get(which, which)
        if inner == "op":
            kind, place, inner = "downsamplers", 0, "conv"
        elif inner == "conv":
            # The layer that widens stands behind a block's attentions, or in their place where there are none.
            kind, place = "upsamplers", 0
        where = f"{word}_blocks_{block}_{kind}_{place}"
    return f"{where}_{_OF_RESNETS.get(inner, inner)}" if kind == "resnets" else f"{where}_{inner}"


def _chosen(found: Mapping[str, Mapping[str, str]], part: str | None, model: nn.Module, file: Path) -> str:
    """The part of a file that is for a model; Refused where there is none, or more than one, or it fits by halves."""
    kind = type(model).__name__
    words = ", ".join(repr(word) for word in found)
    if part is not None and part not in found:
        raise Refused(f"part={part!r}: {file} has {words}")
    fitting = [word for word, names in found.items() if any(names.values())]
    if part is None and len(fitting) > 1:
        raise Refused(f"{file} has several parts that fit {kind}, {', '.join(map(repr, fitting))}: name one by part=")
    if part is None and not fitting:
        first = next(iter(next(iter(found.values()))))
        raise Refused(f"{file} is for another model: {kind} has no linear map that is called {abridged(first)}")
    chosen = part if part is not None else fitting[0]
    names = found[chosen]
    if lacking := [key for key, name in names.items() if not name]:
        raise Refused(
            f"{file} has factors of {abridged(lacking[0])}, and {kind} has no linear map of that name, or several "
            f"({len(lacking)} of {len(names)} layers have no place): is it a LoRA of this model?"
        )
    if part is None and (left := [word for word in found if word != chosen]):
        warnings.warn(
            f"{file} is for other models too: what it has for {', '.join(map(repr, left))} is left out; "
            f"part={chosen!r} says that this is meant",
            stacklevel=4,
        )
    return chosen


def _pair(layer: _Layer, module: nn.Module, file: Path) -> dict[str, Tensor]:
    """The two factors of a layer, in the number of dimensions that the model's layer has."""
    pair = {kind: tensor for kind, tensor in layer.tensors.items() if kind.startswith("lora_")}
    middle, right = layer.tensors.get("mid"), pair.get("lora_A")
    if middle is not None and right is not None:
        if middle.ndim < 3 or middle.shape[1] != len(right) or right.flatten(1).shape[1] != right.shape[1]:
            raise Refused(f"{file}: the three factors of {layer.key} do not multiply to the filters of a convolution")
        exact = torch.promote_types(right.dtype, torch.float32)
        pair["lora_A"] = torch.einsum("rs...,si->ri...", middle.to(exact), right.flatten(1).to(exact))
    geometry = geometry_of(base_of(module))
    for kind, tensor in pair.items():
        if geometry is None and tensor.numel() == math.prod(tensor.shape[:2]):
            pair[kind] = tensor.flatten(1)
        elif geometry is not None and tensor.ndim == 2 and geometry.patch == (1, 1):
            pair[kind] = tensor[..., None] if geometry.line else tensor[..., None, None]
    check_pair(pair, layer.key, file)
    return pair


def _alpha(layer: _Layer, file: Path) -> float:
    tensor = layer.tensors["alpha"]
    value = float(tensor) if tensor.numel() == 1 and not tensor.is_complex() else math.nan
    if not math.isfinite(value) or value == 0:
        raise Refused(f"{file}: alpha of {layer.key} is {abridged(tensor.tolist())}, and must be one number, not 0")
    return value


def _stated(header: Mapping[str, str], part: str, file: Path) -> dict[str, Any]:
    """What the header says of the configuration of one part; empty where it says nothing."""
    try:
        stated = json.loads(header.get(METADATA, "{}"))
        inner = {key.removeprefix(f"{part}."): value for key, value in stated.items() if key.startswith(f"{part}.")}
    except (ValueError, AttributeError, RecursionError) as error:
        raise Refused(f"{file}: {METADATA} in its header is damaged: {error}") from error
    return inner if part else stated
