"""Texts and prompts with responses as token ids and labels, in padded batches."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.texts.sequences import read_text, sequences
from eckart.texts.tokenizer import Tokenizer

IGNORED = -100
"""The label of a token that is given, not predicted."""
_HALVES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """One sequence.

    Attributes:
        ids: tokens (n,), int64.
        labels: the same, `IGNORED` where nothing is to be learned.
    """

    ids: Tensor
    labels: Tensor


def read_examples(
    source: str | Path, tokenizer: Tokenizer, length: int, seed: int = 0, most: int = 1 << 16
) -> list[Example]:
    """Training data from a file.

    A `.jsonl` file has a JSON object a line: `{"prompt", "response"}`, of which only the response is learned, or
    `{"text"}`. Any other file is text, cut into sequences of `length` tokens.

    Args:
        source: the file.
        tokenizer: a transformers tokenizer; its token for the end of a text closes each response.
        length: tokens of an example at most; longer ones are cut.
        seed: of which sequences of a long text are taken.
        most: sequences that are taken of a text.

    Raises:
        Refused: no such file or no UTF-8, a line that is neither, a prompt that leaves no room for its response, an
            example with no token to predict, or no example.
    """
    path = check_examples(source)
    if path.suffix.lower() != ".jsonl":
        rows = sequences(tokenizer, read_text(path), length, most, seed)
        return [Example(row, row) for row in rows]
    examples = [_example(record, tokenizer, length, f"{path}, line {number}") for number, record in records_of(path)]
    if not examples:
        raise Refused(f"{path} holds no example")
    return examples


def check_examples(source: str | Path) -> Path:
    """The file of a name; Refused where there is none."""
    path = Path(source)
    if not path.is_file():
        raise Refused(f"{path} is a directory; name one file in it" if path.is_dir() else f"there is no file {path}")
    return path


def records_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file of JSON lines, with the numbers of their lines; Refused for a line that is none."""
    check_examples(path)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8: {error}") from error
    # Not str.splitlines: JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise Refused(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise Refused(f"{path}, line {number} is no JSON object: {line[:60]!r}")
        yield number, record


def _example(record: dict[str, Any], tokenizer: Tokenizer, length: int, where: str) -> Example:
    words = {key: record.get(key) for key in ("text", "prompt", "response")}
    if any(isinstance(word, str) and _HALVES.search(word) for word in words.values()):
        raise Refused(f"{where}: half of a surrogate pair, which is no character")
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    if isinstance(text := words["text"], str):
        ids = (tokenizer(text)["input_ids"] + end)[:length]
        return _checked(ids, ids, where)
    if not (isinstance(words["prompt"], str) and isinstance(words["response"], str)):
        raise Refused(f'{where}: neither a string "text" nor strings "prompt" and "response" in {list(record)}')
    given = tokenizer(words["prompt"])["input_ids"]
    learned = tokenizer(words["response"], add_special_tokens=False)["input_ids"] + end
    if len(given) >= length:
        raise Refused(
            f"{where}: the prompt has {len(given)} tokens, which leaves no room for a response within {length}: raise "
            "--length"
        )
    ids = (given + learned)[:length]
    return _checked(ids, ([IGNORED] * len(given) + learned)[:length], where)


def _checked(ids: list[int], labels: list[int], where: str) -> Example:
    """An example; Refused where no token follows another one and is to be learned."""
    if all(label == IGNORED for label in labels[1:]):
        raise Refused(f"{where}: nothing to learn in its {len(ids)} tokens: the first is never predicted")
    return Example(torch.tensor(ids), torch.tensor(labels))


def collate(examples: Sequence[Example], padding: int = 0) -> dict[str, Tensor]:
    """A batch for `model(**batch)`: input_ids, attention_mask and labels, (examples, longest)."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = [example.ids for example in examples]
    return {
        "input_ids": pad(ids, batch_first=True, padding_value=padding),
        "attention_mask": pad([torch.ones_like(each) for each in ids], batch_first=True),
        "labels": pad([example.labels for example in examples], batch_first=True, padding_value=IGNORED),
    }


def batches(examples: Sequence[Example], size: int, padding: int) -> list[dict[str, Tensor]]:
    """All examples in order, `size` a batch."""
    return [collate(examples[i : i + size], padding) for i in range(0, len(examples), size)]
