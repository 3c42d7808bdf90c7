"""Results in short: a line at the prompt, a table in a notebook, whatever large things they hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

import eckart
from eckart.jobs.evaluate.quality import evaluate
from eckart.report.shown import Glance, Shown
from support.tiny import VOCABULARY, tiny_llama

IDS = torch.randint(VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0))


def compression() -> Any:
    return eckart.compress(tiny_llama(), "kfac", keep=0.7, of="linear-parameters", calibration=IDS)


def compensation() -> Any:
    return eckart.compensate(compression().model, tiny_llama(), 2, calibration=IDS)


def removed() -> Any:
    adapter = eckart.adapt(tiny_llama(), rank=2)
    adapter.remove()
    return adapter


def pairs() -> Any:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(40, width, generator=generator) for width in (6, 5))
    return eckart.embeddings(first, second)


RESULTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "compression": (compression, ["linear parameters", "bytes", "before", "kfac", "left dense"]),
    "adapter": (lambda: eckart.adapt(tiny_llama(), rank=2), ["rank", "trained numbers", "active"]),
    "removed adapter": (removed, ["removed"]),
    "diagnosis": (lambda: eckart.diagnose(tiny_llama()), ["mean", "least", "most", "stable rank"]),
    "compensation": (compensation, ["branches", "mean error of outputs"]),
    "embeddings": (pairs, ["40 pairs"]),
    "evaluation": (lambda: evaluate(tiny_llama(), IDS, tiny_llama(seed=1)), ["perplexity", "same next token"]),
}


class Balanced(HTMLParser):
    """Refuses tags that are not closed in their order, and scripts or styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("table", "caption", "thead", "tbody", "tr", "th", "td", "p")
        assert not attrs
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_short(name: str) -> None:
    make, parts = RESULTS[name]
    result = make()
    assert isinstance(result, Shown)
    line, page = repr(result), result._repr_html_()
    assert len(line) < 400
    assert "\n" not in line
    assert len(page) < 4000
    assert not re.search(r"tensor\(|Parameter containing|\x1b", line + page)
    Balanced(page)
    for part in parts:
        assert part in page


def test_what_a_result_is_called_is_no_markup() -> None:
    glance = Glance("<b>", [("<i>", "a & b")], notes=["<script>"])
    Balanced(glance.html())
    assert "&lt;script&gt;" in glance.html()
    assert glance.line() == "<<b>; <i> a & b>"
