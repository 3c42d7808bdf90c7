"""What a layer of a model does with its weight: multiply by it, look its rows up, or something else."""

from __future__ import annotations

import copy
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from eckart.layouts.look_ups import scale_of
from eckart.layouts.patches import is_convolution
from eckart.structures import StructuredMatrix

_KIN = nn.Linear | nn.Embedding | nn.modules.conv._ConvNd


def is_conv1d(module: nn.Module) -> bool:
    """transformers' Conv1D: a linear map that stores its weight as (in, out)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def is_linear(module: nn.Module) -> bool:
    """Whether a module is `x @ W.T + bias`, over its last dimension or over patches of images."""
    return _multiplies(module) or ((is_conv1d(module) or is_convolution(module)) and not is_empty(module))


def is_embedding(module: nn.Module) -> bool:
    """Whether a module gives rows of its weight by index, times one number or not."""
    if not isinstance(module, nn.Embedding) or module.max_norm is not None or not _plain(module, {"weight"}):
        return False
    if type(module) is nn.Embedding:
        return True
    twin: Any = _twin(module, {"weight": _numbers(7, 3)})
    index = torch.tensor([[0, 3, 6, 3], [1, 1, 5, 2]], device="cpu")
    return _acts_as(twin, index, twin.weight[index] * scale_of(twin))


def _multiplies(module: nn.Module) -> bool:
    """Whether a module is an nn.Linear, or of a class made from it that does no more than it does."""
    if not isinstance(module, nn.Linear) or type(module) is NonDynamicallyQuantizableLinear:
        return False
    if not _plain(module, {"weight", "bias"}):
        return False
    if type(module).forward is nn.Linear.forward:
        return True
    weight, bias = _numbers(3, 4), None if module.bias is None else _numbers(3)
    x = _numbers(2, 15, 4)
    return _acts_as(_twin(module, {"weight": weight, "bias": bias}), x, F.linear(x, weight, bias))


def is_empty(module: nn.Module) -> bool:
    """Whether a layer has a weight of no numbers, such as one to no outputs."""
    weight = module._parameters.get("weight")
    return weight is not None and not is_lazy(weight) and not weight.numel()


def _plain(module: nn.Module, parameters: set[str]) -> bool:
    """Whether its own parameters are all that a module has; one that is computed from others, or empty, is none."""
    own = set(module._parameters) == parameters and module._parameters["weight"] is not None
    # A scale is no tensor of a checkpoint.
    kept = set(module._buffers) - module._non_persistent_buffers_set
    return own and not kept and not module._modules and not is_empty(module)


def _numbers(*shape: int) -> Tensor:
    # Wherever a model is being built, and in whatever dtype.
    return torch.linspace(-1, 1, prod(shape), dtype=torch.float32, device="cpu").reshape(shape)


def _twin(module: nn.Module, parameters: dict[str, Tensor | None]) -> nn.Module:
    """A module of the same class and settings with a small weight, which can be tried out."""
    twin: Any = copy.copy(module)
    twin._parameters = {n: None if p is None else nn.Parameter(p, requires_grad=False) for n, p in parameters.items()}
    rows, columns = twin.weight.shape
    if isinstance(twin, nn.Linear):
        twin.out_features, twin.in_features = rows, columns
    else:
        twin.num_embeddings, twin.embedding_dim, twin.padding_idx = rows, columns, None
    # Tensors that were made on no device have no numbers to try.
    twin._buffers = {
        n: b if b is None else torch.ones(b.shape, device="cpu") if b.is_meta else b.cpu()
        for n, b in module._buffers.items()
    }
    found: nn.Module = twin
    return found


@torch.no_grad()
def _acts_as(module: nn.Module, x: Tensor, expected: Tensor) -> bool:
    """Whether a module gives what is expected, in training and in evaluation."""
    for training in (True, False):
        module.training = training
        try:
            found = module.forward(x)
        except Exception:  # noqa: BLE001  (whatever a stranger's layer raises, it is not what was looked for)
            return False
        if (
            not isinstance(found, Tensor)
            or found.shape != expected.shape
            or not torch.allclose(found.float(), expected)
        ):
            return False
    return True


def is_compressed(module: nn.Module) -> bool:
    """Whether a structure stands in for the weight of a layer."""
    return isinstance(getattr(module, "structure", None), StructuredMatrix)


def why_no_matrix(module: Any) -> str:
    """What keeps the weights of a layer from being matrices that a structure can stand in for.

    >>> why_no_matrix(nn.Conv2d(8, 8, 3, groups=8))
    'a convolution in 8 groups'
    """
    if is_compressed(module):
        return "compressed already"
    if is_empty(module):
        return "a weight of no numbers"
    if is_parametrized(module):
        computed = ", ".join(dict(module.parametrizations))
        return (
            f"{computed} is computed by a parametrization: torch.nn.utils.parametrize.remove_parametrizations makes it "
            "an ordinary one"
        )
    computed = ", ".join(n for n in ("weight_g", "weight_orig") if n in module._parameters)
    if computed:
        undo = "torch.nn.utils.remove_weight_norm" if computed == "weight_g" else "torch.nn.utils.prune.remove"
        return f"its weight is computed from others when it is called: {undo} makes it an ordinary one"
    if type(module) in (nn.Conv1d, nn.Conv2d):
        if module.groups > 1:
            return f"a convolution in {module.groups} groups"
        return f"a convolution padded by padding_mode={module.padding_mode!r}"
    if isinstance(module, nn.RNNBase):
        return f"{type(module).__name__} hands its weights to one kernel for all steps"
    if isinstance(module, nn.MultiheadAttention):
        return "an attention with keys of its own (add_bias_kv, add_zero_attn), or of a class made from torch's"
    if type(module) is NonDynamicallyQuantizableLinear:
        return "nn.MultiheadAttention reads it without calling it"
    if type(module) is nn.Embedding and module.max_norm is not None:
        return f"an embedding that rescales its rows when they are read (max_norm={module.max_norm})"
    if isinstance(module, nn.Linear | nn.Embedding) and type(module) not in (nn.Linear, nn.Embedding):
        return f"of the type {type(module).__name__}, which does more than {_base(module).__name__}"
    if type(module) in (nn.Linear, nn.Embedding):
        held = sorted({*module._parameters, *module._buffers, *module._modules} - {"weight", "bias"})
        return f"a {type(module).__name__} that holds more than a weight and a bias ({', '.join(held)})"
    if isinstance(module, _KIN):
        return f"of the type {type(module).__name__}"
    return f"{type(module).__name__} is no layer that is known to multiply by it"


def _base(module: nn.Module) -> type[nn.Module]:
    return nn.Linear if isinstance(module, nn.Linear) else nn.Embedding
