"""What a model's name means: a directory here, or a repository of the Hugging Face hub that can be reached."""

from __future__ import annotations

import difflib
from pathlib import Path

from eckart.errors import Refused

NEAR = 0.75
"""How alike the name of a directory here and a name must be for the name to be taken as a slip of the pen."""
SECONDS = 10
"""How long the hub may take to answer whether it has a model."""


def check_name(source: str) -> None:
    """Raises Refused for a name of no directory that is meant as one: what follows would ask the hub for it."""
    path = Path(source)
    meant = path.is_absolute() or source[:1] in (".", "~") or "\\" in source or source.count("/") > 1
    if meant or source.endswith("/") or ("/" in source and path.parent.is_dir()):
        raise Refused(f"there is no directory {source}{_slip(path)}")
    if slip := _slip(path):
        raise Refused(f"there is no directory {source}{slip}")


def _slip(path: Path) -> str:
    """The directory beside a path that is called nearly so, as a question; "" where there is none."""
    try:
        names = [each.name for each in path.expanduser().parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    found = difflib.get_close_matches(path.name, names, 1, NEAR)
    return f": did you mean {path.parent / found[0]}?" if found else ""


def reachable(source: str) -> bool:
    """Whether the hub answers for a model, or else an earlier download is to be read.

    Raises:
        Refused: neither, after one attempt.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    unknown = f"there is no directory {source}, and the hub"
    try:
        kept = isinstance(try_to_load_from_cache(source, "config.json"), str)
    except HFValidationError as error:
        raise Refused(f"{unknown} can have no model of that name: {error}") from error
    try:
        get_hf_file_metadata(hf_hub_url(source, "config.json"), timeout=SECONDS)
    except GatedRepoError as error:
        raise Refused(f"{source} is given on request only: ask for it on its page at huggingface.co") from error
    except RepositoryNotFoundError as error:
        raise Refused(f"{unknown} has no model of that name") from error
    except Exception as error:  # of whatever library fetches for the hub
        if not kept:
            why = " ".join(str(error).split()) or type(error).__name__
            raise Refused(f"{unknown} cannot be asked for a model of that name: {why}") from error
        return False
    return True
