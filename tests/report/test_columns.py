"""Columns on the page: what a report says of them is how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from eckart.report import render
from support.browser import Page, drawn, in_browser
from support.pages import diagnosis


@in_browser
@pytest.mark.parametrize("said", [True, False])
def test_a_column_the_page_has_never_heard_of(tmp_path: Path, said: bool) -> None:
    """It is in the table, the facts and the colours, in words of its own where the file has them."""
    strange = diagnosis(layers=6)
    for i, row in enumerate(strange["matrices"]):
        row["row_imbalance"] = 1.5 + i
    of = {"title": "uneven <rows>", "about": "How uneven they are", "kind": "number", "unit": "", "place": "map"}
    strange["columns"]["matrices"]["row_imbalance"] = {"diagnostic": "rows", **of, "mean": True, "extremes": True}
    for layer in strange["hidden_states"]:
        layer["spread"] = 2.0 + layer["layer"]
    strange["columns"]["hidden_states"]["spread"] = {**of, "title": "spread of states"}
    if not said:
        del strange["columns"]
    dom = drawn(render(strange), tmp_path, "#map=row_imbalance&sort=-row_imbalance")
    page = Page(dom)
    assert "data-error" not in dict(page.elements)["html"]
    (sorted_by,) = [a for tag, a in page.elements if tag == "th" and a.get("aria-sort") == "descending"]
    assert sorted_by["data-column"] == "row_imbalance"
    labels = [str(a["aria-label"]) for tag, a in page.elements if tag == "button" and "data-group" in a]
    assert "layer 2 q_proj: " + ("uneven <rows> 15.50" if said else "row imbalance 15.50") in labels
    assert ("Uneven &lt;rows&gt;" if said else "Row imbalance") in dom
    assert ("Spread of states" if said else "Spread") + " of the hidden states, layer by layer" in dom
    if said:
        assert any(a.get("title") == "How uneven they are" for tag, a in page.elements if tag == "dt")
        assert "mean; most: lm_head" in dom
