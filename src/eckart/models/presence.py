"""Whether a model holds numbers at all."""

from __future__ import annotations

from itertools import chain

from torch import nn
from torch.nn.parameter import is_lazy

from eckart.errors import Refused


def present(model: nn.Module, whose: str = "the model") -> None:
    """Raises Refused that names the first tensor of a model that holds no numbers.

    Such are those on the meta device, where a model stands that was only laid out, or whose weights were offloaded; and
    those of lazy layers, which have no shape before the first call.

    Args:
        model: any module.
        whose: what the message calls it.
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise Refused(f"{name} of {whose} has no shape yet: call the model once, which makes its lazy layers real")
        if tensor.is_meta:
            raise Refused(
                f"{name} of {whose} is on the meta device and holds no numbers: load the weights first, onto a device "
                "that holds them all (from_pretrained without an offload folder, or to_empty() and load_state_dict())"
            )
