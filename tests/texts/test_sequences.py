"""Text: reading, cutting in sequences, recognising."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from eckart.texts.sequences import _stretches, fingerprint, overlap, read_text, sequences
from support.tiny import TEXT, tiny_tokenizer

TOKENIZER = tiny_tokenizer()

# Every place in this text is told apart from every other.
NUMBERED = " ".join(f"word{i:06d}" for i in range(20_000))


def test_plain_text_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffÉtude\r\nno. 1".encode())
    assert read_text(path) == "Étude\nno. 1"
    assert read_text(str(path)) == read_text(path)


def test_json_lines_give_their_text_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\u2028two", "id": 1}\n\n{"text": "three"}\n', encoding="utf-8")
    assert read_text(path) == "one\u2028two\n\nthree"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\t ", "holds no text"),
        ("a.txt", b"abc\0def", r"binary file \(NUL at byte 3\)"),
        ("a.txt", b"abc\xff\xfe", "not UTF-8 text .byte 3"),
        ("a.jsonl", b'{"text": "a"}\nnot json\n', "line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', 'line 2: no string "text"'),
        ("a.jsonl", b'["text"]\n', 'line 1: no string "text"'),
        ("a.jsonl", b'{"text": 1}\n', 'line 1: no string "text"'),
        ("a.jsonl", b"\n\n", "holds no text"),
    ],
)
def test_what_is_not_text_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        read_text(path)
    assert str(path) in str(error.value)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no text file"):
        read_text(tmp_path / "absent.txt")
    with pytest.raises(ValueError, match="is a directory"):
        read_text(tmp_path)


def test_all_sequences_are_the_tokens_in_order() -> None:
    ids = TOKENIZER(TEXT, add_special_tokens=False)["input_ids"]
    rows = sequences(TOKENIZER, TEXT, 7, 10_000, seed=3)
    assert rows.dtype == torch.int64
    assert rows.shape == (len(ids) // 7, 7)
    assert rows.flatten().tolist() == ids[: rows.numel()]


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 300), count=st.integers(1, 40), seed=st.integers(0, 5), words=st.integers(400, 20_000))
def test_sequences_are_pieces_of_the_text_in_order_and_apart(length: int, count: int, seed: int, words: int) -> None:
    text = NUMBERED[: 11 * words]
    rows = sequences(TOKENIZER, text, length, count, seed)
    assert rows.shape[1] == length
    assert len(rows) <= count
    end = 0
    for row in rows:
        piece = TOKENIZER.decode(row, clean_up_tokenization_spaces=False)
        # Pieces shorter than a word may occur anywhere: the first place after the last piece will do.
        start = text.find(piece, end)
        assert start >= end
        end = start + len(piece)
    assert torch.equal(rows, sequences(TOKENIZER, text, length, count, seed))


@pytest.mark.parametrize("count", [3, 10])
def test_sequences_are_spread_over_the_whole_text(count: int) -> None:
    rows = sequences(TOKENIZER, NUMBERED, 40, count, seed=1)
    assert len(rows) == count
    places = [NUMBERED.find(TOKENIZER.decode(row)) / len(NUMBERED) for row in rows]
    assert all(i / count - 0.05 <= place <= (i + 1) / count for i, place in enumerate(places))
    assert not torch.equal(rows, sequences(TOKENIZER, NUMBERED, 40, count, seed=2))


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 3000), count=st.integers(1, 60), seed=st.integers(0, 99))
def test_stretches_of_a_long_text_do_not_meet(size: int, count: int, seed: int) -> None:
    end = 0
    for stretch in _stretches(NUMBERED, size, count, seed):
        assert len(stretch) <= size
        start = NUMBERED.find(stretch, end)
        assert start >= end
        end = start + len(stretch)


def test_a_long_text_is_not_tokenised_whole() -> None:
    seen = []

    def counting(text: str, **options: object) -> object:
        seen.append(len(text))
        return TOKENIZER(text, **options)

    text = NUMBERED * 20
    assert sequences(counting, text, 16, 4).shape == (4, 16)
    assert sum(seen) < len(text) / 100


def test_a_thinned_text_that_gives_too_few_is_taken_whole() -> None:
    def words(text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}

    # One token in a hundred characters: four stretches of 32 characters a token hold not one sequence.
    text = ("x" * 99 + " ") * 400
    assert sequences(words, text, 10, 4).shape == (4, 10)


def test_long_text_gives_no_warning(caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder) -> None:
    assert sequences(TOKENIZER, NUMBERED, 2000, 4).shape == (4, 2000)
    assert not caplog.records
    assert not [w for w in recwarn if "length" in str(w.message)]


def test_a_short_text_is_refused_with_both_numbers() -> None:
    tokens = len(TOKENIZER("a b c", add_special_tokens=False)["input_ids"])
    with pytest.raises(ValueError, match=f"the text has {tokens} tokens and one sequence needs 64"):
        sequences(TOKENIZER, "a b c", 64, 2)
    with pytest.raises(ValueError, match="the text 'short' has"):
        sequences(TOKENIZER, {"long": TEXT, "short": "a"}, 16, 2)
    for length, count in ((0, 1), (1, 0), (-3, 2)):
        with pytest.raises(ValueError, match=f"length {length} and count {count}"):
            sequences(TOKENIZER, TEXT, length, count)


def test_several_texts_give_equal_shares_in_turn() -> None:
    texts = {"a": "a" * 4000, "b": "b" * 4000, "c": "c" * 40}
    rows = sequences(TOKENIZER, texts, 10, 24)
    letters = [TOKENIZER.decode(row)[0] for row in rows]
    few = len(TOKENIZER(texts["c"], add_special_tokens=False)["input_ids"]) // 10
    assert len(rows) == 24
    assert letters.count("c") == min(few, 8)
    assert letters.count("a") + letters.count("b") == 24 - letters.count("c")
    assert abs(letters.count("a") - letters.count("b")) <= 1
    assert abs(letters[:12].count("a") - letters[:12].count("b")) <= 1


def test_fingerprints_name_texts_and_tokens() -> None:
    assert fingerprint("étude") == hashlib.sha256("étude".encode()).hexdigest()[:16]
    ids = torch.arange(12).view(3, 4)
    assert fingerprint(ids) == fingerprint(ids.clone()) == fingerprint(ids.T.contiguous().T)
    assert len({fingerprint(t) for t in (ids, ids.view(4, 3), ids.flatten(), ids + 1)}) == 4
    with pytest.raises(TypeError, match="float32"):
        fingerprint(torch.rand(3))


def naive_overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    windows = {tuple(row[i : i + 32]) for row in a.tolist() for i in range(len(row) - 31)}
    asked = [tuple(row[i : i + 32]) for row in b.tolist() for i in range(0, len(row) - 31, 8)]
    return sum(window in windows for window in asked) / len(asked)


def test_overlap_agrees_with_a_set_of_windows() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(5, (6, 100), generator=generator)
    b = torch.randint(5, (7, 80), generator=generator)
    assert overlap(a, b) == 0
    b[2, 10:70] = a[4, 31:91]
    b[5] = a[0, :80]
    assert 0 < overlap(a, b) < 1
    assert overlap(a, b) == pytest.approx(naive_overlap(a, b))
    assert overlap(a, a) == overlap(a, a[2]) == overlap(a[2], a[2]) == 1


def test_overlap_finds_one_text_cut_in_two_ways() -> None:
    calibration = sequences(TOKENIZER, NUMBERED, 256, 10_000)
    assert overlap(calibration, sequences(TOKENIZER, NUMBERED, 100, 20, seed=4)) > 0.7
    assert overlap(calibration, sequences(TOKENIZER, NUMBERED.replace("word", "term"), 100, 20)) == 0
    assert overlap(torch.tensor([1, 2, 3]), torch.tensor([[9, 9, 1, 2, 3]])) == 0
    assert overlap(torch.tensor([9, 9, 1, 2, 3]), torch.tensor([1, 2, 3])) == 1
    with pytest.raises(ValueError, match="got shape"):
        overlap(torch.empty(0, 4, dtype=torch.int64), calibration)


def test_a_token_that_a_tokenizer_puts_in_front_stands_in_front_of_every_sequence() -> None:
    plain, fronted = tiny_tokenizer(), tiny_tokenizer()
    start = TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    fronted.backend_tokenizer.post_processor = start
    assert fronted("a").input_ids[0] == 0
    bare, rows = sequences(plain, TEXT * 9, 15, 4), sequences(fronted, TEXT * 9, 16, 4)
    assert (rows[:, 0] == 0).all()
    assert torch.equal(rows[:, 1:], bare)
    with pytest.raises(ValueError, match="length 1 leaves no room"):
        sequences(fronted, TEXT, 1, 1)
