"""Text that a language model writes by itself: calibration data without a data set, in all the domains it knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.sharing import in_eval_mode
from eckart.statistics.labels import draw


@torch.inference_mode()
def own_text(
    model: nn.Module,
    count: int,
    length: int,
    seed: int = 0,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Samples token sequences from a causal language model at temperature 1 (Williams et al. 2025, arXiv 2410.17170).

    All sequences are written side by side, each after the token that begins a text and is not returned: the model's
    `bos_token_id`, else its `eos_token_id`, else a token drawn at random.

    Args:
        model: a transformers causal language model.
        count: sequences.
        length: tokens in each.
        seed: of the draws; the same seed on the same machine writes the same.
        on_progress: called with (tokens of a sequence done, `length`).

    Returns:
        (count, length), int64.

    Raises:
        Refused: the model cannot write, or its probabilities are not finite.
    """
    config: Any = getattr(model, "config", None)
    if not hasattr(model, "generation_config") or config is None:
        raise Refused(f"{type(model).__name__} is no language model that could write its own calibration text")
    generator = torch.Generator().manual_seed(seed)
    text = config.get_text_config()
    starts = [token for token in (text.bos_token_id, text.eos_token_id) if isinstance(token, int)]
    token = torch.randint(text.vocab_size, (count, 1), generator=generator)
    if starts:
        token = torch.full_like(token, starts[0])
    tokens, past = [], None
    with in_eval_mode(model):
        for done in range(1, length + 1):
            output: Any = model(input_ids=token, past_key_values=past, use_cache=True)
            past = output.past_key_values
            probabilities = output.logits[:, -1].float().softmax(-1)
            if not torch.isfinite(probabilities).all():
                raise Refused(f"{type(model).__name__} gives NaN or infinite logits on text of its own")
            token = draw(probabilities, generator)
            tokens.append(token)
            if on_progress:
                on_progress(done, length)
    return torch.cat(tokens, 1)
