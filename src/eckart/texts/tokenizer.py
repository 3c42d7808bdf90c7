"""What is asked of a tokenizer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol


class Tokenizer(Protocol):
    """The part of a tokenizer of transformers that is used here; its own tokenizers fit, and so may others."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text; None where there is none."""

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills up short texts; None where there is none."""

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, truncation: bool = False, verbose: bool = True
    ) -> Mapping[str, list[int]]:
        """A mapping in which `input_ids` are the tokens of a text."""

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> object:
        """Writes the tokenizer's files into a directory."""
