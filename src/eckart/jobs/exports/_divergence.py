"""How far what another program computes is from what eckart does: next tokens of a few tokens, after both models."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.models.tasks import task_of

TOKENS = 64
"""Tokens of which the next is compared; drawn, so that no text is needed."""
MOST = 0.01
"""Nats of divergence from which on a file does not say the model: 16 bits in the places of 32 cost 1e-6."""


def check_reads_tokens(model: Any) -> None:
    """Raises Refused for a model that cannot be called with tokens alone."""
    task = task_of(model)
    if task.reads != ("text",) or task.answers:
        raise Refused(
            f"what is written would be tried on tokens alone, and a {task.kind} wants {task.wanted}: export --to dense"
        )


def drawn(model: Any) -> Tensor:
    """Tokens (1, n) of a vocabulary, the same at each call; n is `TOKENS`, or the context where that is less.

    Raises:
        Refused: the model cannot be called with tokens alone.
    """
    check_reads_tokens(model)
    config = model.config.get_text_config()
    count = min(TOKENS, getattr(config, "max_position_embeddings", TOKENS))
    return torch.randint(config.vocab_size, (1, count), generator=torch.Generator().manual_seed(0))


def logits(model: Any, tokens: Tensor) -> Tensor:
    """What a model says of the next tokens, (n, vocabulary), float64.

    Raises:
        Refused: it says nothing.
    """
    with torch.no_grad():
        found = model(input_ids=tokens)
    if not isinstance(getattr(found, "logits", None), Tensor):
        raise Refused(f"a {type(model).__name__} says nothing of next tokens, by which what is written would be tried")
    return cast(Tensor, found.logits)[0].double()


def divergence(own: Tensor, given: Tensor) -> float:
    """KL(p || q) of softmax(own) = p and softmax(given) = q, (n, vocabulary) each; mean over n, in nats."""
    log_p, log_q = own.log_softmax(-1), given.log_softmax(-1)
    return max(0.0, float((log_p.exp() * (log_p - log_q)).sum(-1).mean()))


def compared(own: Tensor, given: Tensor, program: str) -> str:
    """A sentence of how far they are apart; Refused where they are not the same model."""
    apart = divergence(own, given)
    if not apart <= MOST:
        raise Refused(
            f"run by {program}, the next tokens diverge by {apart:.2g} nats from what eckart computes, which is more "
            "than rounding: export --to dense"
        )
    return f"run by {program}, the next tokens of {len(own)} diverge by {apart:.2g} nats"
