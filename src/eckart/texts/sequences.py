"""Text for calibration and evaluation: read, cut into token sequences, recognised again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.texts.tokenizer import Tokenizer

# Characters handed to the tokenizer at a time, and the characters set aside for one token when a long text is thinned:
# ordinary text has about four to a token, so a stretch holds several sequences to choose from.
_CHUNK = 1 << 16
_CHARACTERS_PER_TOKEN = 32
_LONGEST_WORD = 64
_SPACE = re.compile(r"\s")
_WINDOW = 32
_STRIDE = 8


def read_text(path: str | Path) -> str:
    """Text of a UTF-8 file; a `.jsonl` file gives the "text" fields of its lines, a blank line between them.

    Raises:
        Refused: the file is missing, a directory, empty, binary or not UTF-8, or a line of `.jsonl` has no text.
    """
    path = Path(path)
    if path.is_dir():
        raise Refused(f"{path} is a directory; name one text file in it")
    if not path.is_file():
        raise Refused(f"there is no text file {path}")
    data = path.read_bytes()
    if b"\0" in data:
        raise Refused(f"{path} is a binary file (NUL at byte {data.index(0)}); give plain UTF-8 text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 text (byte {error.start}: {error.reason}); convert it first") from error
    text = text.replace("\r\n", "\n")
    if path.suffix.lower() == ".jsonl":
        text = "\n\n".join(_json_texts(text, path))
    if not text.strip():
        raise Refused(f"{path} holds no text")
    return text


def _json_texts(lines: str, path: Path) -> Iterator[str]:
    # Not str.splitlines: JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(lines.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise Refused(f"{path}, line {number} is not JSON: {error}") from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise Refused(f'{path}, line {number}: no string "text" in {line[:60]!r}')
        yield text


def sequences(tokenizer: Tokenizer, text: str | Mapping[str, str], length: int, count: int, seed: int = 0) -> Tensor:
    """Contiguous, non-overlapping token sequences spread evenly over a text.

    A tokenizer that puts a token in front of every text puts it in front of every sequence, as one of its tokens; no
    other special tokens are added. Of a text much longer than needed only stretches are tokenised. Of several texts
    each gives an equal share, one that is too short gives all it has and the others more; shares are interleaved, so
    that the first rows are a mixture too.

    Args:
        tokenizer: a transformers tokenizer.
        text: one text, or texts by name.
        length: tokens in a sequence.
        count: sequences wanted; where the text holds fewer, all of them are returned.
        seed: shifts which sequences are picked; the same seed picks the same.

    Returns:
        (at most count, length), int64.

    Raises:
        Refused: `length` or `count` is below one, or a text is shorter than one sequence.
    """
    if length < 1 or count < 1:
        raise Refused(f"sequences: length and count must be at least 1, got length {length} and count {count}")
    texts = {"": text} if isinstance(text, str) else dict(text)
    if not texts:
        raise Refused("sequences: no texts given")
    front = _front(tokenizer)
    if length <= len(front):
        raise Refused(f"sequences: length {length} leaves no room behind the {len(front)} tokens at the start")
    pools = [_pool(tokenizer, body, name, length - len(front), count, seed) for name, body in texts.items()]
    shares = _shares([len(pool) for pool in pools], count)
    offset = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ranked = [
        ((i + 0.5) / share, pool[index])
        for pool, share in zip(pools, shares, strict=True)
        for i, index in enumerate(_spread(len(pool), share, offset))
    ]
    ranked.sort(key=lambda pair: pair[0])
    rows = torch.stack([row for _, row in ranked]).long()
    return torch.cat([torch.tensor(front, dtype=torch.long).expand(len(rows), -1), rows], 1)


def _front(tokenizer: Tokenizer) -> list[int]:
    """The tokens that a tokenizer puts in front of a text of its own accord."""
    whole, bare = (list(tokenizer("a", add_special_tokens=add)["input_ids"]) for add in (True, False))
    return whole[: len(whole) - len(bare)] if whole[len(whole) - len(bare) :] == bare else []


def _spread(available: int, wanted: int, offset: Tensor) -> list[int]:
    """`wanted` distinct indices, evenly spaced in range(available): floor((i + offset) available / wanted)."""
    if not wanted:
        return []
    steps = (torch.arange(wanted, dtype=torch.float64) + offset) * (available / wanted)
    picked: list[int] = steps.long().clamp_max(available - 1).tolist()
    return picked


def _shares(available: list[int], count: int) -> list[int]:
    """Equal shares of `count`, none above what is available."""
    shares = [0] * len(available)
    order = sorted(range(len(available)), key=lambda i: available[i])
    for done, i in enumerate(order):
        shares[i] = min(available[i], count // (len(order) - done))
        count -= shares[i]
    return shares


def _pool(tokenizer: Tokenizer, text: str, name: str, length: int, count: int, seed: int) -> Tensor:
    """Sequences to choose from, (n, length) int32: at least `count` of them wherever the text holds as many."""
    size = _CHARACTERS_PER_TOKEN * length
    if len(text) > size * count:
        pool, _ = _cut(tokenizer, _stretches(text, size, count, seed), length)
        if len(pool) >= count:
            return pool
    pool, tokens = _cut(tokenizer, [text], length)
    if not len(pool):
        which = f"the text {name!r}" if name else "the text"
        raise Refused(f"{which} has {tokens} tokens and one sequence needs {length}; give more text or shorten it")
    return pool


def _cut(tokenizer: Tokenizer, stretches: list[str], length: int) -> tuple[Tensor, int]:
    pool, tokens = [torch.empty(0, length, dtype=torch.int32)], 0
    for stretch in stretches:
        ids = torch.cat([torch.empty(0, dtype=torch.int32), *_tokens(tokenizer, stretch)])
        whole = len(ids) // length
        pool.append(ids[: whole * length].view(whole, length))
        tokens += len(ids)
    return torch.cat(pool), tokens


def _tokens(tokenizer: Tokenizer, text: str) -> Iterator[Tensor]:
    start = 0
    while start < len(text):
        end = _word_border(text, start + _CHUNK, start)
        # verbose=False: a chunk longer than the model's context is no mistake here.
        ids = tokenizer(text[start:end], add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        yield torch.tensor(ids, dtype=torch.int32)
        start = end


def _stretches(text: str, size: int, count: int, seed: int) -> list[str]:
    """`count` stretches of at most `size` characters, one at a random place in each of `count` equal parts."""
    room = len(text) // count - size
    shifts = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    starts = [i * len(text) // count + int(shift * room) for i, shift in enumerate(shifts.tolist())]
    # A stretch begins at the next white space: going back instead could run into the stretch before.
    spaces = [_SPACE.search(text, start, start + _LONGEST_WORD) for start in starts]
    begins = [space.start() if space else start for space, start in zip(spaces, starts, strict=True)]
    return [text[begin : start + size] for begin, start in zip(begins, starts, strict=True)]


def _word_border(text: str, end: int, start: int) -> int:
    """Where text[start:end] can be cut before white space, so that no word is split; `end` if it has none."""
    if end >= len(text):
        return len(text)
    border = max(text.rfind("\n", start + 1, end), text.rfind(" ", start + 1, end))
    return border if border > start else end


def fingerprint(text: str | Tensor) -> str:
    """16 hexadecimal digits that name a text, or token sequences (integers of any shape, which counts)."""
    if isinstance(text, str):
        data = text.encode()
    else:
        if text.is_floating_point() or text.is_complex():
            raise TypeError(f"fingerprint takes text or token numbers, got a tensor of {text.dtype}")
        data = str(tuple(text.shape)).encode() + text.detach().cpu().long().contiguous().numpy().astype("<i8").tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


def overlap(a: Tensor, b: Tensor) -> float:
    """Share of the 32-token windows of b, every eighth position of a sequence, that occur anywhere in a sequence of a.

    Args:
        a: token sequences, (n, length) or (length,), int64; for instance those of calibration.
        b: likewise, of another length if need be; for instance those of evaluation.

    Returns:
        0 for texts that share nothing, 1 where a contains b. Sequences shorter than 32 are compared by windows of the
        shorter length.

    Raises:
        Refused: a or b has no tokens, or more than two dimensions.
    """
    for name, tokens in (("a", a), ("b", b)):
        if tokens.ndim not in (1, 2) or not tokens.numel():
            raise Refused(f"overlap: {name} must be token sequences (n, length), got shape {tuple(tokens.shape)}")
    window = min(_WINDOW, a.shape[-1], b.shape[-1])
    # A random linear form modulo 2^64 tells windows apart; equal windows always get equal values.
    generator = torch.Generator().manual_seed(0)
    form = torch.randint(-(2**62), 2**62, (window,), generator=generator) * 2 + 1
    found = torch.isin(_values(b, form, _STRIDE), _values(a, form, 1))
    return float(found.double().mean())


def _values(tokens: Tensor, form: Tensor, stride: int) -> Tensor:
    windows = tokens.detach().cpu().long().unfold(-1, len(form), stride)
    return sum((windows[..., i] * form[i] for i in range(len(form))), torch.tensor(0)).flatten()
