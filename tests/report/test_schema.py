"""Schemas made from dataclasses, and the reports of 0.1.0 against them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator

from eckart.report import as_json, schema, schema_of
from eckart.report.compensation import compensation_schema
from eckart.report.schema import Rule
from eckart.report.training import training_schema

V010 = Path(__file__).parents[1] / "data" / "v0.1.0" / "reports"
SCHEMAS = {
    "report.json": schema,
    "report-auto.json": schema,
    "training.json": training_schema,
    "compensation.json": compensation_schema,
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part.

    Attributes:
        a, b: of which
            there are two.
    """

    a: int
    b: Annotated[int, Rule(above=0)] | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Of parts.

    Attributes:
        name: who; colons: too.
        kind: which.
        share: how much.
        part: the first.
        others: the rest.
        either: one or the other.
        numbers: by name.
        listed: at most two.
        notes: if any.
    """

    name: Annotated[str, Rule(shortest=1)]
    kind: Literal["one", "two"]
    share: Annotated[float, Rule(minimum=0, maximum=1)] | None
    part: Part | None
    others: Sequence[Part]
    either: Part | Sequence[str]
    numbers: Mapping[str, float]
    listed: Annotated[list[bool], Rule(longest=2)]
    notes: list[str] = field(default_factory=list)


WHOLE = Whole(
    name="w", kind="one", share=None, part=None, others=[Part(a=1)], either=Part(a=2, b=3), numbers={"x": 1}, listed=[]
)


def test_a_schema_says_what_the_class_says() -> None:
    found = schema_of(Whole, "whole")
    Draft202012Validator.check_schema(found)
    assert found["title"] == "whole"
    assert found["description"].startswith("Of parts. Fields that are not required")
    part = {"$ref": "#/$defs/Part"}
    assert found["properties"] == {
        "name": {"type": "string", "minLength": 1, "description": "Who; colons: too."},
        "kind": {"enum": ["one", "two"], "description": "Which."},
        "share": {"type": ["number", "null"], "minimum": 0, "maximum": 1, "description": "How much."},
        "part": {"oneOf": [part, {"type": "null"}], "description": "The first."},
        "others": {"type": "array", "items": part, "description": "The rest."},
        "either": {"oneOf": [part, {"type": "array", "items": {"type": "string"}}], "description": "One or the other."},
        "numbers": {"type": "object", "additionalProperties": {"type": "number"}, "description": "By name."},
        "listed": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2, "description": "At most two."},
        "notes": {"type": "array", "items": {"type": "string"}, "description": "If any."},
    }
    assert found["required"] == ["name", "kind", "share", "part", "others", "either", "numbers", "listed"]
    assert found["$defs"]["Part"]["properties"] == {
        "a": {"type": "integer", "description": "Of which there are two."},
        "b": {"type": "integer", "exclusiveMinimum": 0, "description": "Of which there are two."},
    }


def test_json_is_what_the_schema_says() -> None:
    made = as_json(WHOLE)
    assert made == {
        "name": "w",
        "kind": "one",
        "share": None,
        "part": None,
        "others": [{"a": 1}],
        "either": {"a": 2, "b": 3},
        "numbers": {"x": 1},
        "listed": [],
    }
    Draft202012Validator(schema_of(Whole, "whole")).validate(made)


@pytest.mark.parametrize("wrong", [{"more": 1}, {"share": 1.1}, {"kind": "three"}, {"notes": None}, {"others": [{}]}])
def test_anything_else_is_invalid(wrong: dict[str, Any]) -> None:
    validator = Draft202012Validator(schema_of(Whole, "whole"))
    assert not validator.is_valid({**as_json(WHOLE), **wrong})


def test_what_has_no_schema_is_named() -> None:
    @dataclass
    class Undescribed:
        """One.

        Attributes:
            other: thing.
        """

        a: int

    @dataclass
    class Unknown:
        """One.

        Attributes:
            a: thing.
        """

        a: complex

    with pytest.raises(TypeError, match=r"Undescribed\.a is not described under Attributes:"):
        schema_of(Undescribed, "")
    with pytest.raises(TypeError, match=r"complex.* has no form in JSON"):
        schema_of(Unknown, "")


@pytest.mark.parametrize(("file", "made"), SCHEMAS.items(), ids=list(SCHEMAS))
def test_reports_of_an_earlier_version_are_valid(file: str, made: Callable[[], dict[str, Any]]) -> None:
    report = json.loads((V010 / file).read_text("utf-8"))
    assert report["eckart"] == "0.1.0"
    validator = Draft202012Validator(made())
    validator.validate(report)
    assert not validator.is_valid({**report, "seconds": {}})
