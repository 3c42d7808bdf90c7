"""What others make of a whole model on a CPU: torchao, quanto and bitsandbytes, in a copy that is theirs to change."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from typing import Any

import torch
from torch import Tensor, nn

Model = nn.Module
GROUP = 64


def is_matrix(module: nn.Module, name: str) -> bool:
    """Of the blocks: the head, which is also the embedding, stays as it is for all."""
    return isinstance(module, nn.Linear) and "lm_head" not in name


def torchao(kind: str, dtype: torch.dtype = torch.float32) -> Callable[[Model], Model]:
    def make(model: Model) -> Model:
        from torchao import quantization
        from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig

        configs: dict[str, Callable[[], Any]] = {
            "int8": quantization.Int8WeightOnlyConfig,
            "int8, int8 inputs": quantization.Int8DynamicActivationInt8WeightConfig,
            "int4": lambda: PrototypeInt4WeightOnlyConfig(group_size=GROUP),
        }
        model = model.to(dtype)
        quantization.quantize_(model, configs[kind](), filter_fn=is_matrix)
        return model

    return make


def quanto(kind: str) -> Callable[[Model], Model]:
    def make(model: Model) -> Model:
        from optimum import quanto

        quanto.quantize(model, weights=getattr(quanto, kind), exclude="lm_head")
        quanto.freeze(model)
        return model

    return make


def bitsandbytes(bits: int) -> Callable[[Model], Model]:
    def layer(linear: nn.Linear) -> nn.Module:
        import bitsandbytes as bnb

        shape, bias = (linear.in_features, linear.out_features), linear.bias is not None
        made: Any
        if bits == 4:
            made = bnb.nn.Linear4bit(*shape, bias, compute_dtype=torch.float32, quant_type="nf4")
            made.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", blocksize=GROUP)
        else:
            made = bnb.nn.Linear8bitLt(*shape, bias, has_fp16_weights=False)
            made.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
        if bias:
            made.bias = linear.bias
        return made.to("cpu")  # which is when it quantizes

    def make(model: Model) -> Model:
        for name, module in list(model.named_modules()):
            if is_matrix(module, name):
                parent, _, own = name.rpartition(".")
                setattr(model.get_submodule(parent), own, layer(module))
        return model

    return make


def arms() -> dict[str, Callable[[Model], Model]]:
    """Those that are installed, by name."""
    found: dict[str, Callable[[Model], Model]] = {}
    if util.find_spec("torchao"):
        found |= {f"torchao {kind}": torchao(kind) for kind in ("int8", "int8, int8 inputs")}
        found |= {f"torchao int4 g{GROUP}, bf16": torchao("int4", torch.bfloat16)}
    if util.find_spec("optimum"):
        found["quanto int8"] = quanto("qint8")  # its int4 cannot be run in inference mode
    if util.find_spec("bitsandbytes"):
        found |= {"bitsandbytes nf4": bitsandbytes(4), "bitsandbytes int8": bitsandbytes(8)}
    return found


def stored(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that one holds, whatever it looks like from outside."""
    inner = getattr(tensor, "quant_state", None)
    held = [tensor, *(t for t in vars(inner).values() if isinstance(t, Tensor))] if inner is not None else [tensor]
    found = []
    for each in held:
        if hasattr(each, "__tensor_flatten__"):
            found += [part for name in each.__tensor_flatten__()[0] for part in stored(getattr(each, name))]
        else:
            found.append(each)
    return found


def bytes_of(model: nn.Module) -> int:
    """Of all tensors of a model, each once."""
    tensors = {t.data_ptr(): t.nbytes for outer in (*model.parameters(), *model.buffers()) for t in stored(outer)}
    return sum(tensors.values())
