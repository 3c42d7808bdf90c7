"""What GGUF says of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from eckart.errors import Refused

_BEFORE = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_AFTER = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {rf"{_BEFORE}\p{{N}}{{1,3}}{_AFTER}": "llama-bpe", rf"{_BEFORE}\p{{N}}{_AFTER}": "qwen2"}
"""The names that GGUF has for ways to split text, by their expressions."""
NORMAL, UNKNOWN, CONTROL, OF_USERS, UNUSED, BYTE = range(1, 7)
"""Kinds of tokens."""


def vocabulary(tokenizer: Any, size: int) -> dict[str, Any]:
    """The fields `tokenizer.*` of a byte-level BPE tokenizer, or of one of sentencepiece with bytes to fall back on.

    Args:
        tokenizer: of transformers.
        size: rows of the embedding. Those that no token has get a name of their own, and tokens beyond them, which no
            model reads, are left out.

    Raises:
        Refused: a tokenizer of another kind, or that splits text in a way that has no name in GGUF.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    said = json.loads(backend.to_str()) if backend is not None else {}
    model = said.get("model", {})
    if model.get("type") != "BPE":
        raise Refused(
            f"{type(tokenizer).__name__} is {model.get('type', 'no tokenizer of tokenizers')}, and GGUF is written for "
            "BPE: export --to dense, and convert the directory with the tools of llama.cpp"
        )
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    tokens, kinds = _tokens(said, size)
    fields: dict[str, Any] = {"ggml.tokens": tokens, "ggml.token_type": kinds}
    if model.get("byte_fallback"):
        fields |= {"ggml.model": "llama", "ggml.scores": _scores(tokens, merges)}
        fields["ggml.add_space_prefix"] = _prefixed(tokenizer)
    else:
        fields |= {"ggml.model": "gpt2", "ggml.pre": _split(said.get("pre_tokenizer")), "ggml.merges": merges}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        found = getattr(tokenizer, f"{name}_token_id")
        if found is not None and found < size:
            fields[f"ggml.{key}_token_id"] = found
    around = tokenizer("a").input_ids
    fields["ggml.add_bos_token"] = bool(around) and around[0] == tokenizer.bos_token_id
    fields["ggml.add_eos_token"] = bool(around) and around[-1] == tokenizer.eos_token_id
    if isinstance(tokenizer.chat_template, str):
        fields["chat_template"] = tokenizer.chat_template
    return fields


def _tokens(said: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """The tokens by their numbers, and of which kind they are."""
    vocabulary = {index: token for token, index in said["model"]["vocab"].items()}
    added = {each["id"]: each for each in said.get("added_tokens", ())}
    tokens, kinds = [], []
    for index in range(size):
        token = added[index]["content"] if index in added else vocabulary.get(index, f"[PAD{index}]")
        if token == said["model"].get("unk_token"):
            kind = UNKNOWN
        elif index in added:
            kind = CONTROL if added[index]["special"] else OF_USERS
        elif index not in vocabulary:
            kind = UNUSED
        else:
            byte = said["model"].get("byte_fallback") and len(token) == 6 and token.startswith("<0x")
            kind = BYTE if byte else NORMAL
        tokens.append(token)
        kinds.append(kind)
    return tokens, kinds


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """What sentencepiece merges by: the earlier a token is merged, the higher; single characters last."""
    place: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        place.setdefault(merge.replace(" ", ""), rank)
    return [-float(place.get(token, len(merges))) for token in tokens]


def _prefixed(tokenizer: Any) -> bool:
    """Whether text gets a space before it."""
    return bool(tokenizer.tokenize("a") and tokenizer.tokenize("a")[0].startswith("▁"))


def _split(steps: Mapping[str, Any] | None) -> str:
    """The name that GGUF has for how text is split.

    Raises:
        Refused: it has none.
    """
    steps = steps or {}
    found = [dict(each) for each in steps.get("pretokenizers", [steps])]
    last = found.pop() if found else {}
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if last.get("use_regex", True):
            if not found:
                return "gpt-2"
            if [each.get("type") for each in found] == ["Digits"] and found[0].get("individual_digits"):
                return "smollm"
        elif len(found) == 1 and found[0].get("type") == "Split" and found[0].get("behavior") == "Isolated":
            expression = found[0]["pattern"].get("Regex", "")
            if expression in SPLITS:
                return SPLITS[expression]
    raise Refused(
        f"the tokenizer splits text by {json.dumps(steps)[:200]}, for which GGUF has no name that is known here: "
        "export --to dense, and convert the directory with the tools of llama.cpp"
    )
