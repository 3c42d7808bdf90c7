"""`eckart methods`: tables of families, and cards."""

from __future__ import annotations

import json

import pytest

from eckart.cli.app import main
from eckart.register import FAMILIES, register_of


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", ["60", "200"])
def test_a_family_is_a_table(
    family: str, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert main(["methods", family]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert set(register_of(family)) <= {word for line in lines for word in line.split()}


def test_all_families_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {family: [entry["name"] for entry in found[family]] for family in found} == {
        family: list(register_of(family)) for family in FAMILIES
    }


def test_a_card_is_printed_with_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    card = register_of("adapters")["lora"]
    assert main(["methods", "lora"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert card.paper in shown
    assert next(iter(card.measured.values())) != []
    for rows in card.measured.values():
        for row in rows:
            assert " ".join(row.split()) in shown
    assert main(["methods", "lora", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["methods"]
    assert (entry["name"], entry["family"], entry["measured"]) == ("lora", "adapters", card.measured)


def test_a_name_that_two_families_have_is_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "welore", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["methods"]
    assert [entry["family"] for entry in found] == ["compressors", "adapters"]


def test_unknown_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "lorax"]) == 2
    assert "unknown method 'lorax'; did you mean 'lora'? there are adalora, " in capsys.readouterr().err


@pytest.mark.parametrize(("wrong", "family"), [("compressor", "compressors"), ("Adapter", "adapters")])
def test_a_family_that_is_meant_is_offered(wrong: str, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", wrong]) == 2
    assert f"did you mean {family!r}?" in capsys.readouterr().err
