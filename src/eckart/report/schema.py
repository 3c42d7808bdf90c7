"""JSON Schemas of reports, and their JSON, both made from dataclasses."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DRAFT = "https://json-schema.org/draft/2020-12/schema"
NOTE = "Fields that are not required may be added in later versions; names and meanings stay."


@dataclass(frozen=True)
class Rule:
    """What a schema says of a value beyond its type, as in `Annotated[float, Rule(minimum=0)]`.

    Attributes:
        minimum, maximum: of a number.
        above: a number is larger than this.
        shortest, longest: of a text or a list.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    shortest: int | None = None
    longest: int | None = None

    def keywords(self, kind: str) -> dict[str, Any]:
        """As keywords of a JSON Schema, for a value of that JSON type."""
        length = "Items" if kind == "array" else "Length"
        found = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "exclusiveMinimum": self.above,
            f"min{length}": self.shortest,
            f"max{length}": self.longest,
        }
        return {word: value for word, value in found.items() if value is not None}


def schema_of(kind: type[DataclassInstance], title: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `as_json` makes of a dataclass.

    A field without a default is required, and null where its type takes None; a field with a default may be missing,
    and is never null. Descriptions are those under `Attributes:` in the docstrings. Dataclasses inside become `$defs`.

    Raises:
        TypeError: a field has no description, or a type that JSON has not.
    """
    definitions: dict[str, Any] = {}
    found = _object(kind, definitions)
    found["description"] += f" {NOTE}"
    return {"$schema": DRAFT, "title": title, **found, "$defs": definitions}


def as_json(report: DataclassInstance) -> dict[str, Any]:
    """A report as JSON values; fields that have their default are left out.

    Dataclasses inside it are turned into JSON too, whether in lists, mappings or fields; all else stays as it is.
    """
    return {f.name: _value(getattr(report, f.name)) for f in fields(report) if not _is_default(f, report)}


def descriptions(kind: type) -> dict[str, str]:
    """What the `Attributes:` section of a docstring says of each field; `a, b: text` says it of both."""
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.split(r"\n(?=    \S)", "\n" + section)
    pairs = [" ".join(entry.split()).partition(": ") for entry in entries if entry.strip()]
    return {name.strip(): text[:1].upper() + text[1:] for names, _, text in pairs for name in names.split(",")}


def _is_default(field: Field[Any], report: DataclassInstance) -> bool:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    value = getattr(report, field.name)
    return default is not MISSING and bool(value == default or (default == () and not value))


def _value(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(value)
    if isinstance(value, Mapping):
        return {name: _value(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each) for each in value]
    return value


def _object(kind: type[DataclassInstance], definitions: dict[str, Any]) -> dict[str, Any]:
    said, hints = descriptions(kind), get_type_hints(kind, include_extras=True)
    properties, required = {}, []
    for field in fields(kind):
        if not said.get(field.name):
            raise TypeError(f"{kind.__name__}.{field.name} is not described under Attributes:")
        needed = field.default is MISSING and field.default_factory is MISSING
        required += [field.name] * needed
        hint = hints[field.name]
        properties[field.name] = {**_schema(hint if needed else _without_none(hint), definitions)}
        properties[field.name]["description"] = said[field.name]
    summary = inspect.cleandoc(kind.__doc__ or "").split("\n")[0]
    described = {"type": "object", "description": summary, "properties": properties}
    return {**described, "required": required, "additionalProperties": False}


_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def _schema(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in _NAMES:
        return {"type": _NAMES[hint]}
    if is_dataclass(hint) and isinstance(hint, type):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # one that holds itself ends here
            definitions[hint.__name__] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin is Annotated:
        found = _schema(arguments[0], definitions)
        for rule in arguments[1:]:
            found |= rule.keywords(str(found.get("type")))
        return found
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return _union([_schema(each, definitions) for each in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    raise TypeError(f"{hint} has no form in JSON; reports hold numbers, texts, lists, mappings and dataclasses")


def _union(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One schema for several; a simple type and null are written as one."""
    null = {"type": "null"}
    others = [one for one in each if one != null]
    if len(others) == 1 and null in each and isinstance(others[0].get("type"), str):
        return {**others[0], "type": [others[0]["type"], "null"]}
    return {"oneOf": list(each)}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    left = tuple(each for each in get_args(hint) if each is not type(None))
    return left[0] if len(left) == 1 else Union[left]  # noqa: UP007  (of a tuple)
