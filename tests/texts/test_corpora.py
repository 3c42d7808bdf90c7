"""Texts that packages carry."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache

import pytest

from eckart.texts.corpora import CALIBRATION, CORPORA, EVALUATION, calibration_mixture, corpus, prose
from eckart.texts.sequences import overlap, sequences
from support.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def test_prose_keeps_sentences_and_drops_markup() -> None:
    page = """{{Infobox person|name={{lang|fr|Ada}}}}[[File:Ada.jpg|thumb|A [[portrait]], [http://x.org here].]]
'''Ada''' ({{IPAc-en|e}}; born [[1815]]) wrote a [[Computer program|program]]<ref>{{cite web|title=T}}</ref> of about \
{{convert|3|pages}} for the ''Analytical Engine''<ref name="a"/> &mdash; which [http://x.org was never built].
{| class="wikitable"
| A table with a nested {|
| inner table
whose cell runs on over a line of many words that nobody should ever see in the text.
|}
|}
* A list entry of many words that is long enough to be a paragraph but is none at all, being a list.
The formula <math>a^2 {{b}}</math> is missing from this paragraph, which therefore says nothing and is to be dropped.
It took about 3&times;10<sup>7</sup> steps of H<sub>2</sub>O<!-- no --> to show that this is so, she wrote in a letter.
== See also ==
This section holds sentences of its own, long enough to count as a paragraph of prose, and is dropped.
=== Deeper ===
This section holds sentences of its own, long enough to count as a paragraph of prose, and is dropped.
== Life ==
She was long dead when the first machine of this kind was at last put together and ran."""
    assert prose(page) == [
        "Ada (born 1815) wrote a program of about 3 pages for the Analytical Engine — which was never built.",
        "It took about 3\u00d710^7 steps of H2O to show that this is so, she wrote in a letter.",
        "She was long dead when the first machine of this kind was at last put together and ran.",
    ]


def need(*names: str) -> None:
    for package in {CORPORA[name].package for name in names}:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@cache
def carried(name: str) -> str:
    need(name)
    return corpus(name)


def test_wikipedia_is_clean_prose() -> None:
    text = carried("wikipedia")
    assert len(text) > 1_000_000
    for markup in ("[[", "]]", "{{", "}}", "{|", "|", "''", "<ref", "</", "&nbsp;", "://", "==", "\0"):
        assert markup not in text, markup
    paragraphs = text.split("\n\n")
    assert len(paragraphs) > 1000
    assert all(len(paragraph.split()) >= 12 for paragraph in paragraphs)
    assert all(paragraph.rstrip("\"')\u201d\u2019")[-1] in ".!?" for paragraph in paragraphs)


@pytest.mark.parametrize(
    ("name", "least"), [("news", 300_000), ("maths", 100_000), ("technical", 300_000), ("docstrings", 300_000)]
)
def test_carried_texts_are_there(name: str, least: int) -> None:
    text = carried(name)
    assert len(text) >= least
    assert "\0" not in text
    assert CORPORA[name].licence


def test_the_mixture_never_holds_the_evaluation_text() -> None:
    assert EVALUATION not in CALIBRATION
    need(*CALIBRATION, EVALUATION)
    evaluated = sequences(TOKENIZER, corpus(EVALUATION), 128, 32)
    parts = calibration_mixture()
    assert tuple(parts) == CALIBRATION
    calibrated = sequences(TOKENIZER, parts, 128, 30)
    assert overlap(calibrated, evaluated) == 0


def test_looking_a_text_up_does_not_import_its_package() -> None:
    carried("news")
    before = set(sys.modules)
    corpus("news")
    assert not {module for module in set(sys.modules) - before if module.partition(".")[0] == "gensim"}


def test_unknown_and_missing_texts_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match="unknown text 'poems'; there are wikipedia, news, maths, technical, docstrings"
    ):
        corpus("poems")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gensim, which is not installed; pip install eckart\[demo\]"):
        corpus("news")
