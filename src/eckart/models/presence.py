"""Whether what is given for a model is one, and holds numbers at all."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

from torch import nn
from torch.nn.parameter import is_lazy

from eckart.errors import Refused


def check_model(model: object, whose: str = "the model") -> None:
    """Raises Refused for anything but a module, and says how one is made of it."""
    if isinstance(model, nn.Module):
        return
    kind = f"{whose} is {model!r:.80}, a {type(model).__name__}"
    if isinstance(model, str | Path):
        name = str(model)
        raise Refused(
            f"{whose} is {name!r:.80}, and a name is no model: load it with transformers, as in "
            f"AutoModelForCausalLM.from_pretrained({name!r:.80}), or hand the name to the command line"
        )
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise Refused(f"{whose} is the class {model.__name__}: make one, {model.__name__}(...)")
    held = getattr(model, "model", None)
    inside = next((each for each in model if isinstance(each, nn.Module)), None) if isinstance(model, tuple) else None
    if isinstance(held, nn.Module):
        raise Refused(f"{kind}; its model is its attribute: give it .model")
    if inside is not None:
        raise Refused(f"{kind}; give the {type(inside).__name__} in it alone")
    raise Refused(f"{kind}, and no torch.nn.Module: give a model that can be called")


def present(model: nn.Module, whose: str = "the model") -> None:
    """Raises Refused for what is no model, and names the first tensor of one that holds no numbers.

    Such are those on the meta device, where a model stands that was only laid out, or whose weights were offloaded;
    those of lazy layers, which have no shape before the first call; and shards of tensors that are spread over
    processes (FSDP, tensor parallelism).

    Args:
        model: any module.
        whose: what the message calls it.
    """
    check_model(model, whose)
    _whole(model, whose)
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise Refused(f"{name} of {whose} has no shape yet: call the model once, which makes its lazy layers real")
        if tensor.is_meta:
            raise Refused(
                f"{name} of {whose} is on the meta device and holds no numbers: load the weights first, onto a device "
                "that holds them all (from_pretrained without an offload folder, or to_empty() and load_state_dict())"
            )


def _whole(model: nn.Module, whose: str) -> None:
    """Raises Refused where this process has shards of tensors only.

    What spreads a model is loaded where one is spread; to load it for a look would take a second.
    """
    advice = (
        "gather it first, in all processes: whole = get_model_state_dict(model, options="
        "StateDictOptions(full_state_dict=True, cpu_offload=True)) of torch.distributed.checkpoint.state_dict; then, "
        "in the first, model.save_pretrained(DIR, state_dict=whole), or load it into a model that is not spread"
    )
    wrapper = getattr(sys.modules.get("torch.distributed.fsdp"), "FullyShardedDataParallel", ())
    for name, module in model.named_modules():
        if isinstance(module, wrapper):
            raise Refused(f"{name or whose} is FullyShardedDataParallel, one process's shard of the numbers: {advice}")
    sharded = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())
    for name, tensor in model.named_parameters():
        if isinstance(tensor, sharded):
            raise Refused(f"{name} of {whose} is a DTensor, one process's shard of the numbers: {advice}")


def no_single_layer(model: nn.Module) -> None:
    """Raises Refused for a model that is itself a layer, in whose place nothing can be put."""
    if model._parameters.get("weight") is not None and not model._modules:
        raise Refused(
            f"the model is a single {type(model).__name__}, and nothing holds its place: wrap it, "
            "torch.nn.Sequential(model)"
        )


def without_peft(model: nn.Module) -> None:
    """Raises Refused for a model that adapters of PEFT are in."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith("peft.tuners.") and hasattr(module, "base_layer"):
            raise Refused(
                f"{name or 'the model'} is a layer of PEFT, which saves its adapters and not the matrices beside them: "
                "take them in with merge_and_unload() first, or read them from their directory with eckart.load_adapter"
            )
