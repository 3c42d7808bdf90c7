"""Text that a model writes by itself: calibration data without a data set, in all the domains it knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.sharing import in_eval_mode
from eckart.models.tasks import task_of
from eckart.statistics.batches import device_of
from eckart.statistics.labels import draw

CACHES = ("past_key_values", "cache_params", "state")
"""What models call what they remember of a text, in what they return and in what they take."""


@torch.no_grad()
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
    check_writer(model)
    config: Any = model.config
    generator = torch.Generator().manual_seed(seed)
    text = config.get_text_config()
    starts = [token for token in (text.bos_token_id, text.eos_token_id) if isinstance(token, int)]
    token = torch.randint(text.vocab_size, (count, 1), generator=generator)
    if starts:
        token = torch.full_like(token, starts[0])
    token = token.to(device_of(model))
    whole, remembered = token, dict[str, Any]()
    with in_eval_mode(model):
        for done in range(1, length + 1):
            # A model that hands on no memory reads the whole text again for each token.
            remembers = done == 1 or bool(remembered)
            output: Any = model(input_ids=token if remembers else whole, use_cache=remembers, **remembered)
            remembered = memory_of(output)
            token = drawn(model, output.logits[:, -1], generator)
            whole = torch.cat([whole, token], 1)
            if on_progress:
                on_progress(done, length)
    return whole[:, 1:].cpu().contiguous()


def memory_of(output: Any) -> dict[str, Any]:
    """What a model hands on to read the next token without those before; empty where that is nothing."""
    found = {name: getattr(output, name, None) for name in CACHES}
    return {name: value for name, value in found.items() if value is not None}


def check_writer(model: nn.Module) -> None:
    """Raises Refused where a model cannot write a text out of nothing, with what to give it instead."""
    kind = type(model).__name__
    if not hasattr(model, "config") or not hasattr(model, "main_input_name"):
        raise Refused(f"{kind} is no language model that could write its own calibration text: pass calibration=")
    task = task_of(model)
    if not task.writes:
        does = "answers what it reads" if task.answers else f"reads {' and '.join(task.reads)} and writes nothing"
        raise Refused(
            f"{kind} {does}, so it cannot write its own calibration text: give {task.wanted} with --calibration, or "
            "batches of what it takes with calibration="
        )


@torch.no_grad()
def own_answers(model: nn.Module, batch: Mapping[str, Tensor], length: int, seed: int = 0) -> Tensor:
    """Samples what an encoder-decoder answers to a batch at temperature 1.

    Args:
        model: a transformers model whose decoder answers what its encoder has read.
        batch: what the encoder reads.
        length: tokens of each answer.
        seed: of the draws.

    Returns:
        The tokens that the decoder has read, the starting one among them: (samples, length), int64.

    Raises:
        Refused: its probabilities are not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    kept: Any = model
    with in_eval_mode(model):
        batch = {name: tensor.to(device_of(model)) for name, tensor in batch.items()}
        mask = {name: tensor for name, tensor in batch.items() if name == "attention_mask"}
        encoded = kept.get_encoder()(**batch)
        tokens = torch.full((len(next(iter(batch.values()))), 1), start_of(model), device=device_of(model))
        for _ in range(length - 1):
            output = kept(encoder_outputs=encoded, **mask, decoder_input_ids=tokens, use_cache=False)
            tokens = torch.cat([tokens, drawn(model, output.logits[:, -1], generator)], 1)
    return tokens.cpu()


def start_of(model: nn.Module) -> int:
    """The token that a decoder starts with."""
    config: Any = model.config
    text = config.get_text_config(decoder=True)
    for holder in (config, getattr(model, "generation_config", None), text):
        for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            if isinstance(token := getattr(holder, name, None), int):
                return token
    return 0


def drawn(model: nn.Module, logits: Tensor, generator: torch.Generator) -> Tensor:
    """A token for each row of logits (n, vocabulary): (n, 1); Refused where they are not finite."""
    probabilities = logits.float().softmax(-1)
    if not torch.isfinite(probabilities).all():
        raise Refused(f"{type(model).__name__} gives NaN or infinite logits on text of its own")
    return draw(probabilities, generator)
