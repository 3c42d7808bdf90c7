"""The schema of diagnoses: what it takes, and what it does not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from eckart.diagnostics.contract import MATRIX_SUBJECTS, columns_of
from eckart.jobs.diagnose.report import diagnosis_schema
from support.pages import diagnosis

WRITTEN = Path(__file__).parents[2] / "data" / "v0.1.0" / "diagnosis.json"
CHECK = jsonschema.Draft202012Validator(diagnosis_schema())


def problems(report: dict[str, Any]) -> list[str]:
    return [error.message for error in CHECK.iter_errors(report)]


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(diagnosis_schema())


def test_what_0_1_0_wrote_is_valid() -> None:
    report = json.loads(WRITTEN.read_text("utf-8"))
    assert report["eckart"] == "0.1.0"
    assert "columns" not in report
    assert not problems(report)


def test_every_column_of_0_1_0_is_still_one() -> None:
    report = json.loads(WRITTEN.read_text("utf-8"))
    own = {"name", "layer_type", "shape", "notes", "curve"}
    assert {name for row in report["matrices"] for name in row} - own <= set(columns_of(*MATRIX_SUBJECTS))
    own = {"layer", "tokens", "dimension"}
    assert {name for row in report["hidden_states"] for name in row} - own <= set(columns_of("hidden states"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha": "heavy"}, "'heavy' is not of type 'number', 'null'"),
        ({"rank_90": 2.5}, "2.5 is not of type 'integer', 'null'"),
        ({"cosines": [None]}, "None is not of type 'number'"),
        ({"alpha_of_nobody": 1.0}, "'alpha_of_nobody' was unexpected"),
        ({"shape": [3]}, "[3] is too short"),
    ],
)
def test_a_column_is_what_its_card_says(change: dict[str, Any], said: str) -> None:
    report = diagnosis(layers=1)
    assert not problems(report)
    report["matrices"][0] |= change
    (found,) = problems(report)
    assert said in found


def test_a_number_that_there_cannot_be_is_missing_or_null() -> None:
    report = diagnosis(layers=1)
    row = copy.deepcopy(report["matrices"][0])
    assert not problems({**report, "matrices": [{**row, "condition": None, "alpha": None, "cosines": None}]})
    assert not problems({**report, "matrices": [{k: row[k] for k in ("name", "layer_type", "shape", "notes")}]})
