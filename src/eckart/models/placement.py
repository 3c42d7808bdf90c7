"""Where the modules of a saved model are in another class of it: a base model, or one with another head."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from eckart.errors import Refused


class Placement:
    """The names that the modules of a saved model have in a model, as transformers maps those of tensors.

    Args:
        model: a model of transformers: names lose its `base_model_prefix`, or gain it, where it has them so.
        saved: the names in the saved model.
    """

    def __init__(self, model: Any, saved: Iterable[str]) -> None:
        self._model = model
        self._prefix = f"{model.base_model_prefix}." if model.base_model_prefix else ""
        same = type(model).__name__ in (model.config.architectures or ())
        based = bool(self._prefix) and any(name.startswith(self._prefix) for name in saved)
        self._has_heads = based and not same
        self._existing: set[str] = set()
        self._ignored = () if same else tuple(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())

    def _there(self, name: str) -> str | None:
        """The name in the model; None for a part that its class does not have, such as another head.

        Raises:
            Refused: a name of the part that all classes of the model share, which this one lacks.
        """
        for there in (name, name.removeprefix(self._prefix), f"{self._prefix}{name}"):
            if there in self._existing:
                return there
        is_head = self._has_heads and not name.startswith(self._prefix)
        if is_head or any(re.search(pattern, f"{name}.weight") for pattern in self._ignored):
            return None
        raise Refused(f"the checkpoint names a module {name!r} that {type(self._model).__name__} does not have")

    def sources(self, names: Iterable[str]) -> dict[str, str]:
        """Of the names in the model that these have, the ones in the saved model.

        What the class does not have, such as another head, is left out.

        Raises:
            Refused: a name of the part that all classes of the model share, which this one lacks.
        """
        self._existing = {name for name, _ in self._model.named_modules(remove_duplicate=False)}
        return {there: name for name in names if (there := self._there(name)) is not None}

    def modules(self, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """The entries of a manifest under the names in the model, and what they are tied to likewise.

        Raises:
            Refused: as above, or none of them is in the model.
        """
        sources = self.sources(entries)
        if entries and not sources:
            raise Refused(
                f"{type(self._model).__name__} has none of the compressed matrices of the checkpoint, such as "
                f"{next(iter(entries))!r}: load it with the class that it was saved from"
            )
        placed = {there: dict(entries[name]) for there, name in sources.items()}
        for entry in placed.values():
            if isinstance(entry.get("to"), str):
                entry["to"] = self._there(entry["to"])
        return placed
