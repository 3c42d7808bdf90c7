"""What a model of transformers is for: what it reads, what it gives, and by what it is judged."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from eckart.errors import Refused

READS = {
    "input_ids": "text",
    "pixel_values": "image",
    "input_features": "sound",
    "input_values": "sound",
}
"""What stands behind the tensors that models take first, by their names."""

_CLASSIFIER = re.compile(r"For(Sequence|Image|Audio)Classification$")


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        kind: name of its class.
        reads: text, image, sound, in the order in which they are asked for.
        writes: it goes on with a text; judged by the perplexity of one.
        answers: a decoder writes an answer to what an encoder has read; judged by the perplexity of known ones.
        labels: it picks one of several labels; judged by how often that is the right one.
    """

    kind: str
    reads: tuple[str, ...]
    writes: bool = False
    answers: bool = False
    labels: bool = False

    @property
    def wanted(self) -> str:
        """What to calibrate on, in words."""
        if self.reads == ("text",):
            return "a text file" + ", or .jsonl of prompt and response" * self.answers
        if len(self.reads) > 1:
            return f".jsonl with {' and '.join(self.reads)} in each line"
        return {"image": "a folder of images", "sound": "a folder of .wav files"}[self.reads[0]]


def task_of(model: nn.Module) -> Task:
    """The task of a model, from its class and its configuration.

    Raises:
        Refused: it is no model of transformers, or reads what cannot be made from files.
    """
    kind, config = type(model).__name__, getattr(model, "config", None)
    main: Any = getattr(model, "main_input_name", None)
    if config is None or main not in READS:
        raise Refused(
            f"{kind} reads {main or 'what only its author knows'}, which is not made from files here: give batches of "
            "it to the functions of eckart in Python"
        )
    taken = inspect.signature(model.forward).parameters
    labels = bool(_CLASSIFIER.search(kind)) and (getattr(config, "num_labels", 0) or 0) > 1
    encodes = bool(getattr(config, "is_encoder_decoder", False)) and "decoder_input_ids" in taken
    generates: Any = getattr(type(model), "can_generate", bool)
    writes = bool(generates()) and not encodes and main == "input_ids"
    reads = {READS[main]: None} | ({} if writes or encodes else {READS[name]: None for name in taken if name in READS})
    return Task(kind, tuple(reads), writes=writes, answers=encodes and not labels, labels=labels)


def writes(model: nn.Module) -> bool:
    """Whether a model goes on with text, as language models do."""
    try:
        return task_of(model).writes
    except Refused:
        return False


def check_writes(task: Task, what: str) -> None:
    """Raises Refused where a model that goes on with text is needed for something."""
    if not task.writes:
        raise Refused(f"{what} needs a model that goes on with text, and {task.kind} does not: leave it out")
