"""Hidden states of a language model, layer by layer, and what the diagnostics say of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eckart.diagnostics.contract import columns_of, diagnostics_of
from eckart.errors import Refused
from eckart.models.sharing import in_eval_mode
from eckart.progress import Progress, silent


@torch.no_grad()
def hidden_state_rows(model: nn.Module, tokens: Tensor, progress: Progress = silent) -> list[dict[str, Any]]:
    """The numbers of every diagnostic of hidden states after each layer, each a mean over sequences.

    Args:
        model: a transformers model that returns hidden states; layer 0 is the embedding.
        tokens: (sequences, length), int64.
        progress: told of the phase "hidden states".

    Raises:
        Refused: the model returns none, or they are not finite or all the same.
    """
    cards, columns = diagnostics_of("hidden states"), columns_of("hidden states")
    sums: list[dict[str, float]] = []
    width: list[int] = []
    with in_eval_mode(model):
        for done, sequence in enumerate(tokens, 1):
            found = getattr(model(sequence[None], output_hidden_states=True), "hidden_states", None)
            if not found:
                raise Refused(f"{type(model).__name__} returns no hidden states")
            sums = sums or [dict.fromkeys(columns, 0.0) for _ in found]
            width = [state.shape[-1] for state in found]
            for layer, (total, state) in enumerate(zip(sums, found, strict=True)):
                for card in cards:
                    try:
                        numbers = card.entry(state[0])
                    except Refused as error:
                        raise Refused(f"hidden states of layer {layer}: {error}") from error
                    for name, value in numbers.items():
                        assert isinstance(value, float), f"{name} of hidden states has no mean over sequences"
                        total[name] += value / len(tokens)
            progress("hidden states", done, len(tokens))
    size = tokens.shape[1]
    return [{"layer": i, "tokens": size, "dimension": width[i], **total} for i, total in enumerate(sums)]
