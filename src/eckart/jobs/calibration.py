"""What a model is calibrated on: a text by name or file, what the model itself writes, token ids, or any batches."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eckart.errors import Refused, check_type
from eckart.files.tensors import read_safetensors, sealed, write_safetensors
from eckart.models.own_text import own_text
from eckart.progress import Progress, silent
from eckart.statistics.batches import Batch, described
from eckart.statistics.fingerprint import model_fingerprint, sources
from eckart.texts.corpora import CORPORA, calibration_mixture, corpus
from eckart.texts.records import holds_records
from eckart.texts.sequences import fingerprint, read_text, sequences
from eckart.texts.tokenizer import Tokenizer

Calibration = str | Sequence[str] | Mapping[str, str] | Tensor | Sequence[Batch]

SELF, MIXTURE = "self", "mixture"
WANTED = "give text, texts, token ids (sequences, length), or a list of batches: tensors, or mappings of tensors"
OWN_SHARE = {SELF: 1.0, MIXTURE: 0.5}
"""How much of a calibration the model writes itself."""


def check_sampling(samples: int, length: int, seed: int) -> None:
    """Raises Refused for calibration sequences that there cannot be."""
    for name, value in (("samples", samples), ("length", length), ("seed", seed)):
        check_type(name, value, int)
    if samples < 1 or length < 2:
        raise Refused(f"samples={samples} and length={length} must be at least 1 and 2")
    if not 0 <= seed < 2**63:
        raise Refused(f"seed={seed} is not in 0..2^63 - 1")


Body = str | Mapping[str, str] | Path
"""A text, texts by name, or the place of records, which are read once it is known what a model reads."""


def body_of(source: str) -> str | Path:
    """What is to be read, by the name of a text, a file or a folder; Refused where it is none of them."""
    return Path(source) if holds_records(source) and os.path.exists(source) else text_of(source)


def text_of(source: str, others: Sequence[str] = ()) -> str:
    """A text by file or by name; Refused that lists the names where it is neither, `others` among them."""
    if source in CORPORA:
        return corpus(source)
    if not os.path.exists(source):
        names = ", ".join([*CORPORA, *others])
        raise Refused(f"there is no text file {source!r}, and no text of that name; there are {names}")
    return read_text(source)


def calibration_body(source: str) -> Body:
    """What is read to calibrate on, before a model is needed; "" for "self"."""
    return Path(source) if holds_records(source) and os.path.exists(source) else calibration_text(source)


def calibration_text(source: str) -> str | dict[str, str]:
    """What is read for `calibration_tokens`, before a model is needed; "" for "self"."""
    if source == SELF:
        return ""
    return calibration_mixture() if source == MIXTURE else text_of(source, (SELF, MIXTURE))


def calibration_tokens(
    source: str,
    text: str | Mapping[str, str],
    model: nn.Module,
    tokenizer: Tokenizer,
    samples: int,
    length: int,
    seed: int,
    cache: Path | None = None,
    progress: Progress = silent,
    identity: str | None = None,
) -> Tensor:
    """Token sequences (at most samples, length), int64, of a text or of the model's own.

    Args:
        source: a file, a name in `CORPORA`, "self" for what the model writes, or "mixture": half of it the model's
            own, half of it texts of several kinds.
        text: what the source holds; "" for "self".
        model, tokenizer: a causal language model and its tokenizer.
        samples, length, seed: see `sequences` and `own_text`.
        cache: directory that keeps what the model wrote; None for nowhere.
        progress: told of the phase "write text".
        identity: `model_fingerprint(model)`, where that is known already.

    Raises:
        Refused: a text that is too short.
    """
    own = round(samples * OWN_SHARE.get(source, 0.0))
    parts = []
    if own:
        parts.append(_kept_text(model, own, length, seed, cache, progress, identity))
    if own < samples:
        parts.append(sequences(tokenizer, text, length, samples - own, seed))
    # Alternating, so that every batch is a mixture.
    ranks = torch.cat([(torch.arange(len(part)) + 0.5) / len(part) for part in parts])
    return torch.cat(parts)[ranks.argsort(stable=True)]


def _kept_text(
    model: nn.Module, count: int, length: int, seed: int, cache: Path | None, progress: Progress, identity: str | None
) -> Tensor:
    """What the model writes, from the cache if it is there."""

    def tell(done: int, total: int) -> None:
        progress("write text", done, total)

    if cache is None:
        return own_text(model, count, length, seed, on_progress=tell)
    request = [identity or model_fingerprint(model), count, length, seed, sources("eckart.models.own_text")]
    file = cache / f"written-{hashlib.sha256(json.dumps(request).encode()).hexdigest()[:32]}.safetensors"
    if file.is_file():
        with suppress(Refused, KeyError):  # damaged: they are written again
            tensors, metadata = read_safetensors(file)
            if metadata["name"] == file.name:
                return tensors["tokens"]
    tokens = own_text(model, count, length, seed, on_progress=tell)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors({"tokens": tokens}, file, {"name": file.name, **sealed({"tokens": tokens})})
    return tokens


def check_is_text(text: str) -> None:
    """Raises Refused for a text that is a name: of a text that only the command line knows, or of a file."""
    if text in (SELF, MIXTURE, *CORPORA):
        raise Refused(
            f"calibration={text!r} is a name that the command line knows: here None lets the model write its own text, "
            "and eckart.texts.corpora.corpus(name) gives the others"
        )
    if "\n" not in text and os.path.isfile(text):
        raise Refused(f"calibration={text!r} is the name of a file: give its text, Path({text!r}).read_text()")


def check_tokens(name: str, tokens: Tensor) -> None:
    """Raises Refused for a tensor that is no token ids (sequences, length)."""
    if tokens.ndim != 2 or tokens.is_floating_point() or not tokens.numel():
        raise Refused(
            f"{name} is one tensor of {described(tokens)}: token ids must be integers (sequences, length); inputs of "
            f"any other kind go into a list of batches, {name}=[batch, ...]"
        )


def as_batch(batch: Any, position: int) -> Batch:
    """A batch as it is; Refused where no model can be called with it, with what can be."""
    this = f"calibration batch {position} is a {type(batch).__name__}"
    if isinstance(batch, Mapping):
        strange = next((name for name, value in batch.items() if isinstance(value, str | list | np.ndarray)), None)
        if strange is not None:
            kind = type(batch[strange]).__name__
            raise Refused(
                f"calibration batch {position} holds {strange!r}, which is a {kind} and no tensor: give what the "
                f"tokenizer or the processor makes of it with return_tensors='pt', or leave {strange!r} out"
            )
    elif isinstance(batch, tuple | list):
        held = ", ".join(type(each).__name__ for each in batch[:4])
        raise Refused(
            f"{this} of {len(batch)} ({held}), and a model is called with one tensor, or a mapping of them: where the "
            "inputs come first, calibration=[batch[0] for batch in loader]"
        )
    elif isinstance(batch, np.ndarray):
        raise Refused(f"{this} of NumPy: torch.from_numpy(batch) makes a tensor of it")
    elif not isinstance(batch, Tensor):
        raise Refused(f"{this}: {WANTED}")
    found: Batch = batch
    return found


def as_batches(
    calibration: Calibration | None,
    tokenizer: Tokenizer | None,
    samples: int,
    length: int,
    seed: int,
    tokens_a_batch: int = 1024,
) -> tuple[list[Batch], dict[str, Any]]:
    """Calibration data as batches the model can be called with, and what to call it in a report."""
    if calibration is None:
        return [], {"tokens": 0, "fingerprint": ""}
    if isinstance(calibration, str):
        check_is_text(calibration)
    if isinstance(calibration, Mapping) and any(isinstance(value, Tensor) for value in calibration.values()):
        raise Refused(f"calibration is one batch, of {', '.join(calibration)}: put it into a list, calibration=[batch]")
    if isinstance(calibration, str | Mapping) or (
        isinstance(calibration, Sequence) and len(calibration) and all(isinstance(t, str) for t in calibration)
    ):
        if tokenizer is None:
            raise Refused("calibration text needs a tokenizer: pass tokenizer=, or token ids instead of text")
        text = calibration if isinstance(calibration, str | Mapping) else "\n\n".join(map(str, calibration))
        calibration = sequences(tokenizer, text, length, samples, seed)
    if isinstance(calibration, Tensor):
        check_tokens("calibration", calibration)
        info = {"tokens": calibration.numel(), "fingerprint": fingerprint(calibration)}
        return list(torch.split(calibration, max(1, tokens_a_batch // calibration.shape[1]))), info
    if not isinstance(calibration, Iterable):
        raise Refused(f"calibration={calibration!r:.80} is a {type(calibration).__name__}: {WANTED}")
    batches = [as_batch(batch, position) for position, batch in enumerate(calibration)]
    if not batches:
        raise Refused(f"calibration is empty: {WANTED}")
    return batches, {"tokens": 0, "fingerprint": ""}
