"""Models in other formats."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.files.json import read_json
from eckart.jobs.adapt.host import host
from eckart.jobs.adapt.peft import write_lora
from eckart.jobs.compensate.directory import COMPENSATION
from eckart.models import transformers as hf
from eckart.models.convolution import StructuredConv2d
from eckart.models.fused_experts import fuse, taken_apart, unfuse_named
from eckart.models.modules import StructuredEmbedding, StructuredLinear, Tied
from eckart.models.places import set_module
from eckart.models.quantized_input import in_codes
from eckart.models.sites import Site
from eckart.structures import Chain, Dense, StructuredMatrix, Sum

_BIAS_FLAGS = ("attention_bias", "mlp_bias", "qkv_bias", "use_bias", "use_qkv_bias", "add_bias_linear", "bias")
"""Fields of configurations that give linear maps a bias."""


def to_dense_directory(source: str, out: str | Path) -> None:
    """Writes a compressed model with ordinary matrices, which plain transformers loads without eckart.

    A GGUF file, or a directory that others quantized, becomes such a directory too, its codes turned into numbers. Tied
    matrices stay tied, and experts become fused tensors again. The file grows back to the size of the original; what
    was lost stays lost. Biases that compression added are kept where the architecture can have them.

    Raises:
        Refused: `source` has ordinary matrices already, it has biases that its architecture has no place
            for, or `out` is taken.
    """
    check_target(Path(out))
    loaded = hf.load(source)
    if not made_dense(loaded.model) and not in_codes(source):
        raise Refused(f"{source} has no structured matrices; it is dense already")
    with new_directory(Path(out)) as partial:
        loaded.write(partial)


def made_dense(model: Any) -> bool:
    """Gives a model ordinary matrices, in place; returns whether it had others.

    Raises:
        Refused: it has biases that its architecture has no place for.
    """
    kinds = StructuredLinear | StructuredEmbedding | Tied
    structured = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    apart = taken_apart(model)
    model.config, skeleton = _skeleton(model, [n for n, m in structured.items() if _bias(m) is not None])
    names = {id(module): name for name, module in structured.items()}
    for name, place in skeleton.named_modules():
        if name in structured:
            _fill(place, structured[name])
            set_module(model, name, place)
        elif _bias(place) is not None and _bias(model.get_submodule(name)) is None:
            dense = model.get_submodule(name)
            dense.bias = nn.Parameter(torch.zeros(_bias(place).shape, dtype=dense.weight.dtype))
    for name, module in structured.items():
        if isinstance(module, Tied):
            owner = names[id(module.owner)]
            model.get_submodule(name).weight = model.get_submodule(owner).weight
    for ties in ("_tied_weights_keys", "all_tied_weights_keys"):
        if hasattr(skeleton, ties):
            setattr(model, ties, getattr(skeleton, ties))
    fuse(model)
    return bool(structured or apart)


def to_peft_directory(source: str, out: str | Path) -> None:
    """Writes the low-rank branches of a compensated model as a LoRA adapter in the layout of PEFT.

    The adapter belongs on the model that `compensate` was given, with ordinary matrices, as `to_dense_directory` writes
    it, or in any other format with the same values. Factors go in as they are: the scale is 1.

    Raises:
        Refused: there are no such branches, biases were fitted with them, or `out` is taken.
    """
    check_target(Path(out))
    model: Any
    model = hf.load(source).model
    found = {n: low_rank_terms(m.structure) for n, m in model.named_modules() if isinstance(m, StructuredLinear)}
    found = {name: terms for name, terms in found.items() if terms}
    if not found:
        raise Refused(f"{source} has no low-rank branches beside its matrices; eckart compensate adds them")
    if images := [name for name in found if isinstance(model.get_submodule(name), StructuredConv2d)]:
        raise Refused(f"{images[0]} is a convolution, whose branch no LoRA adapter holds: export --to dense")
    notes = Path(source) / COMPENSATION
    matrices = read_json(notes).get("matrices", []) if notes.is_file() else []
    if rebiased := [entry["name"] for entry in matrices if entry.get("bias")]:
        raise Refused(
            f"the biases of {len(rebiased)} matrices ({rebiased[0]}) were fitted with the branches and do not fit into "
            "an adapter: compensate a model whose compression added no biases, or export --to dense"
        )
    factors = {
        name: (torch.cat([left for left, _ in terms], 1), torch.cat([right for _, right in terms]))
        for name, terms in found.items()
    }
    _, skeleton = _skeleton(model, [])
    belongs = host(skeleton, factors)
    belongs.check(factors)
    write_lora(factors, Path(out), belongs)


def low_rank_terms(structure: StructuredMatrix) -> list[tuple[Tensor, Tensor]]:
    """The factors (out, r) and (r, in) of each product of two dense ones that is added to the first term of a sum."""
    if not isinstance(structure, Sum):
        return []
    terms = []
    for other in structure.operands()[1:]:
        factors = other.operands()
        if isinstance(other, Chain) and len(factors) == 2 and all(isinstance(factor, Dense) for factor in factors):
            left, right = (factor.to_dense().detach() for factor in factors)
            terms.append((left, right))
    return terms


def _bias(module: nn.Module) -> Any:
    bias = getattr(module, "bias", None)
    return bias if isinstance(bias, Tensor) else None


def _skeleton(model: Any, biased: list[str]) -> tuple[Any, nn.Module]:
    """The dense architecture on the meta device, and its configuration, with a place for each of the biases."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config

    def build(config: Any) -> tuple[nn.Module, list[str]]:
        with torch.device("meta"):
            skeleton = type(model)(copy.deepcopy(config))
        unfuse_named(skeleton, taken_apart(model))
        return skeleton, [name for name in biased if _bias(skeleton.get_submodule(name)) is None]

    skeleton, homeless = build(config)
    for flag in _BIAS_FLAGS:
        if homeless and getattr(config, flag, None) is False:
            changed = copy.deepcopy(config)
            setattr(changed, flag, True)
            candidate, left = build(changed)
            if len(left) < len(homeless):
                config, skeleton, homeless = changed, candidate, left
    if homeless:
        some = ", ".join(homeless[:3])
        raise Refused(
            f"{type(model).__name__} has no place for the biases of {len(homeless)} matrices ({some}); "
            "compress it by a method that adds none, such as svd"
        )
    return config, skeleton


def _fill(place: Any, module: Any) -> None:
    """Gives a dense module on the meta device the values of a structured one."""
    weight = module.structure.to_dense().detach()
    values = Site("", place).stored(weight)
    place.weight = nn.Parameter(values.contiguous().clone())
    if _bias(place) is not None:
        own = _bias(module)
        place.bias = nn.Parameter(weight.new_zeros(len(weight)) if own is None else own.detach().clone())
