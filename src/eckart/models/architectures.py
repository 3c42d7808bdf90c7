"""The class of a saved model, by the architecture that its configuration names, and whether all of it was read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from eckart.errors import Refused

SHOWN = 3
"""Tensors that a message names at most."""


def class_of(config: Any, transformers: ModuleType, source: str) -> Any:
    """The class of transformers that a configuration names, or where it names none, the one for its kind of model.

    Raises:
        Refused: transformers has no such class.
    """
    names = config.architectures or []
    if not names:
        kinds = (transformers.MODEL_FOR_CAUSAL_LM_MAPPING, transformers.MODEL_MAPPING)
        usual: Any = next((kind[type(config)] for kind in kinds if type(config) in kind), None)
        if usual is None:
            raise Refused(f'{source} names no class: write one under "architectures" of its config.json')
        usual = usual[0] if isinstance(usual, tuple) else usual
        warnings.warn(
            f"{source} names no architecture; it is read as {usual.__name__}, the usual one of {config.model_type}",
            stacklevel=2,
        )
        return usual
    found: Any = getattr(transformers, names[0], None)
    if not hasattr(found, "base_model_prefix"):
        raise Refused(
            f"{source} is a {names[0]}, a class that transformers {transformers.__version__} does not have; code that "
            "comes with a model is not run"
        )
    if not isinstance(config, found.config_class):
        raise Refused(
            f"{source} says that it is a {names[0]} of the kind {config.model_type}, which do not belong together: "
            "mend architectures or model_type in its config.json"
        )
    return found


def lacks_pooler(info: Mapping[str, Any]) -> bool:
    """Whether all that is missing is the pooler, which encoders that pool otherwise are saved without."""
    missing = info["missing_keys"]
    return bool(missing) and all(key.startswith("pooler.") for key in missing)


def check_keys(info: Mapping[str, Any], kind: str, source: str) -> None:
    """Raises Refused where a class found less than it needs in the files of a model, or would leave some of it out.

    Args:
        info: what `from_pretrained` says of the loading; tied tensors and those that a class ignores are not in it.
        kind: name of the class.
        source: name of the model.
    """
    if info["missing_keys"]:
        raise Refused(f"{source} lacks weights that {kind} needs: {_some(info['missing_keys'])}")
    if info["mismatched_keys"]:
        names = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
        raise Refused(f"{source} has weights of other shapes than its config.json says: {_some(names)}")
    if info["unexpected_keys"]:
        raise Refused(
            f"{source} holds weights that {kind} has no place for, and they would be lost: "
            f"{_some(info['unexpected_keys'])}. Name the right class under architectures in its config.json; or, if "
            f"they are not needed, leave them out once: {kind}.from_pretrained(DIR).save_pretrained(NEW_DIR)"
        )


def _some(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    found = sorted(names)
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
