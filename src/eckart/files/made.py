"""What eckart made itself and may therefore remove: nothing else ever is."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from eckart.errors import Refused
from eckart.files.atomic import TEMPORARY
from eckart.files.json import read_json

STATE = "job.json"
"""In a directory that eckart builds: its mark, and what the run that builds it was asked for."""
OUTPUT = "output"
"""Directory of what is built."""
FINISHED = "finished"
"""Directory of what need not be done again after an interruption."""
STORED = "eckart"
"""Key in the header of every safetensors file there."""
MARK = "work in progress of eckart, 6f1d4c0e92b7"
"""Under "maker" in the state; nobody else writes it."""

_WRITTEN = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|checkpoint\.safetensors")
_KNOWN = """
    adapter.json adapter.safetensors adapter_config.json adapter_model.safetensors compensation.json config.json
    diagnosis.json eckart.json evaluation.json generation_config.json model.safetensors model.safetensors.index.json
    report.html report.json train.json training.json README.md
    model.gguf model.onnx model.onnx.data plain.safetensors
    fit.json estimator.safetensors scores.csv components.csv predictions.csv low_rank.npy sparse.npy
    added_tokens.json audio_tokenizer_config.json chat_template.jinja chat_template.json preprocessor_config.json
    processor_config.json special_tokens_map.json tokenizer.json tokenizer_config.json video_preprocessor_config.json
    bpe.codes byte_maps.json dict.txt emoji.json entity_vocab.json merges.txt normalizer.json prophetnet.tokenizer
    sentencepiece.bpe.model sentencepiece.model source.spm spiece.model spm.model spm_char.model target.spm
    target_vocab.json tekken.json tokenizer.model vocab-src.json vocab-tgt.json vocab.json vocab.txt
    word_pronunciation.json word_shape.json
    modules.json sentence_bert_config.json config_sentence_transformers.json pytorch_model.bin
"""
_NAMES = frozenset(_KNOWN.split())
"""Of files that eckart writes, and that it has transformers write, or copies."""
_LONGEST = 100_000_000
"""Bytes of a header that any reader of safetensors takes."""
_TEMPLATES = "additional_chat_templates"
_PART = re.compile(r"\d+_[A-Z]\w*")
"""Of a model of sentence-transformers, such as 1_Pooling."""


def read_state(directory: Path) -> dict[str, Any] | None:
    """What the state of a directory says; None where eckart did not begin it, or it is not there.

    Raises:
        Refused: the state is damaged.
    """
    file = directory / STATE
    if directory.is_symlink() or not _is_file(file):
        return None
    return read_json(file)


def foreign(directory: Path) -> str | None:
    """Something in a directory that eckart cannot prove to have made, or the directory itself; None if all is its own.

    An empty directory, and one that is not there, hold nothing that could be lost.

    Returns:
        A path, to be named to the user.
    """
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        return str(directory)
    if not directory.exists():
        return None
    own = set(_own(directory))
    return next((str(path) for path in sorted(directory.rglob("*")) if path not in own), None)


def remove_made(directory: Path, *, keep_finished: bool = False) -> None:
    """Removes what eckart made in a directory that it builds, and the directory if nothing else is in it.

    Args:
        directory: where a job is built; its state says so.
        keep_finished: leave the state and what is finished.
    """
    if directory.is_symlink() or not directory.is_dir():
        return
    kept = {directory / STATE, directory / FINISHED} if keep_finished else set()
    # The state goes last: without it, what is left could not be told from files of others.
    for path in sorted(_own(directory), key=lambda p: (p.name == STATE, -len(p.parts))):
        if path in kept or path.parent in kept:
            continue
        with suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
    if not keep_finished:
        with suppress(OSError):
            directory.rmdir()


def _own(directory: Path) -> Iterator[Path]:
    """What eckart made in a directory that it builds, files and directories, by state, place, name and kind."""
    if not _marked(directory):
        return
    for path in directory.iterdir():
        if _is_directory(path) and path.name == OUTPUT:
            yield path
            yield from _written(path)
        elif _is_directory(path) and path.name == FINISHED:
            yield path
            yield from filter(_stored, path.iterdir())
        elif _is_file(path) and _untemporary(path.name) == STATE:
            yield path


def _written(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        name = _untemporary(path.name)
        if _is_file(path) and (name in _NAMES or _WRITTEN.fullmatch(name)):
            yield path
        elif _is_directory(path) and path.name == _TEMPLATES:
            yield path
            yield from (file for file in path.iterdir() if _is_file(file) and file.suffix == ".jinja")
        elif _is_directory(path) and _PART.fullmatch(path.name):
            yield path
            yield from (file for file in path.iterdir() if _is_file(file) and file.name in _NAMES)


def _stored(file: Path) -> bool:
    """Whether a file is one that a run finished, or was writing when it ended."""
    if not _is_file(file) or not _untemporary(file.name).endswith(".safetensors"):
        return False
    if file.name != _untemporary(file.name):
        return True
    # The header as it is: the numbers behind it may have been cut off.
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(length, _LONGEST))
    try:
        return STORED in json.loads(header)["__metadata__"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _marked(directory: Path) -> bool:
    """Whether a directory holds the state of eckart, or nothing but the beginning of one that was being written."""
    try:
        state = read_state(directory)
    except Refused:
        return False
    if state is not None:
        return state.get("maker") == MARK
    found = list(directory.iterdir())
    start = json.dumps({"maker": MARK}, indent=1)[:-2].encode()
    for path in found:
        if path.name in (OUTPUT, FINISHED) and _is_directory(path) and not any(path.iterdir()):
            continue
        if not _is_file(path) or path.name == STATE or _untemporary(path.name) != STATE:
            return False
        head = path.read_bytes()[: len(start)]
        if head != start[: len(head)]:
            return False
    return True


def _untemporary(name: str) -> str:
    """The name that a file gets when it is whole."""
    found = TEMPORARY.fullmatch(name)
    return found["name"] if found else name


def _is_file(path: Path) -> bool:
    """Whether a path is an ordinary file itself, no link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
