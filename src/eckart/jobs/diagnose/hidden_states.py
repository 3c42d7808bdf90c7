"""Hidden states of a model, layer by layer, and what the diagnostics say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eckart.diagnostics.contract import columns_of, diagnostics_of
from eckart.errors import Refused
from eckart.models.sharing import in_eval_mode
from eckart.progress import Progress, silent
from eckart.statistics.batches import beside, calling, numbered

NAMES = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
"""What models call their hidden states; an encoder-decoder has those of both."""


@torch.no_grad()
def hidden_state_rows(
    model: nn.Module, batches: Sequence[Tensor | Mapping[str, Tensor]], progress: Progress = silent
) -> list[dict[str, Any]]:
    """The numbers of every diagnostic of hidden states after each layer, each a mean over samples; [] without any.

    Args:
        model: a transformers model that returns hidden states; layer 0 is the embedding. Those of an encoder come
            before those of a decoder; the places of a picture are its tokens.
        batches: what it is called with: token ids (samples, length), or tensors by name. Padding is left out.
        progress: told of the phase "hidden states".

    Raises:
        Refused: they are not finite or all the same.
    """
    cards, columns = diagnostics_of("hidden states"), columns_of("hidden states")
    sums: list[dict[str, float]] = []
    width: list[int] = []
    tokens: list[list[int]] = []
    with in_eval_mode(model):
        for done, batch in enumerate(batches, 1):
            inputs: Mapping[str, Tensor] = {"input_ids": batch} if isinstance(batch, Tensor) else batch
            with numbered(done - 1):
                found = _states(model, inputs)
            sums = sums or [dict.fromkeys(columns, 0.0) for _ in found]
            tokens = tokens or [[] for _ in found]
            width = [state.shape[-1] for state in found]
            for layer, state in enumerate(found):
                for one in _samples(state, inputs):
                    tokens[layer].append(len(one))
                    for card in cards:
                        try:
                            numbers = card.entry(one)
                        except Refused as error:
                            raise Refused(f"hidden states of layer {layer}: {error}") from error
                        for name, value in numbers.items():
                            assert isinstance(value, float), f"{name} of hidden states has no mean over samples"
                            sums[layer][name] += value
            progress("hidden states", done, len(batches))
    return [
        {"layer": i, "tokens": round(sum(seen) / len(seen)), "dimension": width[i]}
        | {name: value / len(seen) for name, value in total.items()}
        for i, (total, seen) in enumerate(zip(sums, tokens, strict=True))
    ]


def _states(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The hidden states of a batch, each (samples, tokens, dimension), in the memory of the CPU."""
    moved = beside(model, inputs)
    assert not isinstance(moved, Tensor)
    with calling(model, moved):
        output = model(**moved, output_hidden_states=True)
    found = [state.cpu() for name in NAMES for state in getattr(output, name, None) or ()]
    return [state.flatten(2).mT if state.ndim == 4 else state for state in found]


def _samples(state: Tensor, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The hidden states of each sample, (tokens, dimension), without padding."""
    masks = (inputs.get("attention_mask"), inputs.get("decoder_attention_mask"))
    mask = next((m for m in masks if m is not None and m.shape == state.shape[:2]), None)
    return list(state) if mask is None else [one[kept.bool().cpu()] for one, kept in zip(state, mask, strict=True)]
