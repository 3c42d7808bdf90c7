"""The loss of a language model without its logits, while it learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.layers.cut_cross_entropy import linear_cross_entropy
from eckart.ops.wide_products import slow_dtypes
from eckart.statistics.batches import beside

SHIFTED = "ForCausalLMLoss"
"""The loss in transformers that this one is: the mean over the next tokens."""


@contextmanager
def without_logits(model: Any, example: Mapping[str, Tensor]) -> Iterator[bool]:
    """Inside, the loss of a causal language model of transformers is computed without all its logits being there.

    The head passes hidden states on, and the loss that the model calls multiplies by it, chunk by chunk. That is done
    where the head is an `nn.Linear` as it stands and the model hands its loss just what the head gave. Where logits are
    capped or scaled on the way, where the loss is another one, and in 16 bits on a CPU without units for them, nothing
    is changed.

    Args:
        model: any module.
        example: a batch with labels, to see by what the loss is handed.

    Yields:
        whether it is so.
    """
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    plain = getattr(model, "loss_function", None)
    if not _ordinary(head) or getattr(plain, "__name__", "") != SHIFTED:
        yield False
        return
    handed: list[Tensor] = []
    untouched = False

    def passed(hidden: Tensor) -> Tensor:
        handed[:] = [hidden]
        return hidden

    def loss(logits: Tensor, labels: Tensor, vocab_size: int | None = None, **told: Any) -> Tensor:
        nonlocal untouched
        untouched = bool(handed) and logits is handed[0] and all(each is None for each in told.values())
        if not untouched:
            raise Refused(f"{type(model).__name__} does something to its logits on the way to its loss")
        handed.clear()
        return linear_cross_entropy(logits, head.weight, labels.to(logits.device), head.bias, shift=True)

    @contextmanager
    def in_place() -> Iterator[None]:
        head.forward, model.loss_function = passed, loss
        try:
            yield
        finally:
            del head.forward
            model.loss_function = plain

    training = model.training
    try:
        with in_place(), torch.no_grad():
            inputs: Any = beside(model, example)
            model.eval()(**inputs)
    except Exception:  # noqa: BLE001  (whatever a stranger's model does with what it takes for logits)
        untouched = False
    finally:
        model.train(training)
    if untouched:
        with in_place():
            yield True
    else:
        yield False


def _ordinary(head: Any) -> bool:
    """Whether a head is nothing but its product, in a dtype whose products are fast."""
    if type(head) is not nn.Linear or "forward" in vars(head) or head._forward_hooks or head._forward_pre_hooks:
        return False
    return head.weight.device.type != "cpu" or head.weight.dtype not in slow_dtypes()
