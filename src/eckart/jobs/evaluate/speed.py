"""What a model costs to run: tokens a second, bytes, memory."""

from __future__ import annotations

import inspect
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.tensors import tensors_begin
from eckart.jobs.evaluate.quality import check_length, config_of, evaluating
from eckart.machine import DEVICES
from eckart.models.own_text import memory_of
from eckart.models.presence import present
from eckart.report.types import RatePair, Speed
from eckart.statistics.batches import device_of

_WARM_UP_STEPS = 2


def speed(
    models: nn.Module | Mapping[str, nn.Module],
    *,
    prefill_tokens: int = 256,
    decode_tokens: int = 32,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Tokens a second of language models at batch size one: reading a prompt, and greedy decoding after it.

    As in generation, the key-value cache is used and logits are computed for the last position only, where the model
    can. The prompt is random tokens. After a warm-up of each model the models take turns, in reverse order in every
    other round, so that a drift of the machine meets all of them alike.

    Args:
        models: one model, or models by name.
        prefill_tokens: length of the prompt.
        decode_tokens: tokens generated, one step each.
        repeats: rounds, of which one is reported.
        seed: of the prompt.

    Returns:
        Speeds by name in "prefill_tokens_per_second" and "decode_tokens_per_second" (one model is named "model"),
        "threads" and "dtype". Several models also give "prefill_ratio" and "decode_ratio": speed of the last over that
        of the first (above one: the last is faster). All numbers of a phase are those of one round, see `middle`.

    Raises:
        Refused: no model, a count below one, or a prompt and its continuation longer than a model's context.
    """
    arms = {"model": models} if isinstance(models, nn.Module) else dict(models)
    if not arms:
        raise Refused("speed: no models given")
    for name, arm in arms.items():
        present(arm, name)
    for name, count in (("prefill_tokens", prefill_tokens), ("decode_tokens", decode_tokens), ("repeats", repeats)):
        if count < 1:
            raise Refused(f"speed: {name} must be at least 1, got {count}")
    vocabulary = min(config_of(arm).vocab_size for arm in arms.values())
    prompt = torch.randint(vocabulary, (1, prefill_tokens), generator=torch.Generator().manual_seed(seed))
    for arm in arms.values():
        check_length(arm, prefill_tokens + decode_tokens)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    with evaluating(*arms.values()), torch.inference_mode():
        for arm in arms.values():
            _generate(arm, prompt, min(decode_tokens, _WARM_UP_STEPS))
        for turn in range(repeats):
            for name in list(arms) if turn % 2 == 0 else reversed(list(arms)):
                seconds[name].append(_generate(arms[name], prompt, decode_tokens))
    dtypes = {name: _dtype(arm) for name, arm in arms.items()}
    same = len(set(dtypes.values())) == 1
    dtype = next(iter(dtypes.values())) if same else ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
    result: dict[str, Any] = {"threads": torch.get_num_threads(), "dtype": dtype}
    for part, (key, tokens) in enumerate((("prefill", prefill_tokens), ("decode", decode_tokens))):
        times = {name: [each[part] for each in rounds] for name, rounds in seconds.items()}
        rates = {name: tokens / each[middle(times)] for name, each in times.items()}
        result[f"{key}_tokens_per_second"] = rates
        if len(arms) > 1:
            result[f"{key}_ratio"] = rates[list(arms)[-1]] / rates[next(iter(arms))]
    return result


def middle(seconds: Mapping[str, Sequence[float]]) -> int:
    """The round in which the last of several models was in the middle, measured by the first; of one, by itself.

    Speeds drift while a machine does other things, from round to round more than within one. Ratios within a round do
    not mind, medians of each model by itself do, and the two need not agree: so both speeds and their ratio are taken
    from the round whose ratio is the median.

    Args:
        seconds: of each round, by name.

    >>> middle({"dense": [1.0, 2.0, 3.0], "small": [0.8, 1.0, 2.7]})
    0
    """
    *_, last = seconds.values()
    first = next(iter(seconds.values())) if len(seconds) > 1 else [1.0] * len(last)
    ratios = [b / a for a, b in zip(first, last, strict=True)]
    return ratios.index(statistics.median_low(ratios))


def speed_lengths(model: nn.Module) -> dict[str, int]:
    """Lengths for `speed` that fit the model's context."""
    context: int = getattr(config_of(model), "max_position_embeddings", None) or 288
    decode = max(1, min(32, context // 2))
    return {"prefill_tokens": max(1, min(256, context - decode)), "decode_tokens": decode}


def compared_speed(before: nn.Module, after: nn.Module) -> Speed:
    """What a report says of the speeds of two models, measured in turns."""
    found = speed({"before": before, "after": after}, **speed_lengths(after))
    prefill, decode = (RatePair(**found.pop(f"{name}_tokens_per_second")) for name in ("prefill", "decode"))
    return Speed(prefill_tokens_per_second=prefill, decode_tokens_per_second=decode, **found)


def weight_bytes(directory: str | Path) -> int:
    """Bytes of the tensors in the weight files (`*.safetensors`) of a directory; Refused where there are none.

    What is before the tensors in a file, their names and places, is left out: a few kilobytes, which a model in memory
    has not, so that a model counts as much before it is written as after.
    """
    files = sorted(Path(directory).glob("*.safetensors"))
    if not files:
        raise Refused(f"{directory} holds no *.safetensors file; is it the directory of a saved model?")
    return sum(file.stat().st_size - tensors_begin(file) for file in files)


def _generate(model: nn.Module, prompt: Tensor, steps: int) -> tuple[float, float]:
    """Seconds for the prompt, and for `steps` greedy steps after it."""
    ids = prompt.to(device_of(model))
    few = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    start = _now(ids.device)
    output = model(input_ids=ids, use_cache=True, **few)
    token = output.logits[:, -1:].argmax(-1)
    middle = _now(ids.device)
    for _ in range(steps):
        output = model(input_ids=token, use_cache=True, **memory_of(output))
        token = output.logits[:, -1:].argmax(-1)
    return middle - start, _now(ids.device) - middle


def _now(device: torch.device) -> float:
    if device.type in DEVICES:  # which work while Python goes on
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


def _dtype(model: nn.Module) -> str:
    """The floating-point type most of the model's numbers have."""
    counts: dict[torch.dtype, int] = {}
    for p in model.parameters():
        if p.is_floating_point():
            counts[p.dtype] = counts.get(p.dtype, 0) + p.numel()
    return str(max(counts, key=lambda dtype: counts[dtype])).removeprefix("torch.") if counts else "none"
