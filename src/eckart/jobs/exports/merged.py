"""an adapter added to the matrices of its model, which stays as it is otherwise"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.jobs.adapt.load import base_of_directory, is_adapter, load_adapter
from eckart.jobs.exports.contract import Lossy
from eckart.models import transformers as hf
from eckart.models.sharing import sharing, untie

SAME = 1e-3
"""By how much outputs may differ for the roundings of another order of sums."""
LOST = 0.1
"""Errors beyond this are said to be a loss; rounding to 16 bits stays below."""


def write(source: str, out: str | Path) -> str:
    """Writes the model that an adapter is for, with what the adapter changes in its matrices.

    A compressed model stays compressed: codes are rounded anew, and where there are no entries to add the change to,
    as in factors, it becomes a term of a sum. Rounding codes again may lose as much as the adapter changed, and is said
    to. Where the adapter changes a head that is tied to the embedding, all that is tied gets tensors of its own, and
    the model is larger by them. What is written can be exported to any other format.

    Returns:
        The largest error of a matrix, ||merged - (W + change)||_F / ||change||_F, and what was untied.

    Raises:
        Refused: `source` is not there, or no adapter, of eckart or of PEFT, or does not name its model; the adapter
            depends on its input and has no matrix; a model does something else where words are not tied; or `out` is
            taken.
    """
    check_target(Path(out))
    if not Path(source).exists():
        raise Refused(f"there is no directory {source}")
    if not is_adapter(source):
        raise Refused(f"{source} is no adapter; export --to dense turns a model into ordinary matrices")
    loaded = hf.load(base_of_directory(source))
    adapter = load_adapter(loaded.model, source)
    tied = [name for name, place in adapter.places.items() if sharing(loaded.model, place.base)]
    if tied:
        _untie(loaded.model, tied[0])
    errors = adapter.merge()
    adapter.remove()
    with new_directory(Path(out)) as partial:
        loaded.write(partial)
    worst = max(errors, key=errors.__getitem__)
    said = f"relative error of merging: at most {errors[worst]:.2e} of the change ({worst})"
    said += "".join(f"; {name} has a matrix of its own now" for name in tied)
    if errors[worst] <= LOST:
        return said
    return Lossy(f"{said}: keep the adapter beside its model, or merge it into one that is not quantized")


@torch.no_grad()
def _untie(model: Any, name: str) -> None:
    """Unties a model, which must not change what it computes; some scale what they hand to a tied head."""
    if model.main_input_name != "input_ids":
        raise Refused(f"{name} is tied, and a {type(model).__name__} reads no tokens to try it on untied")
    inputs = dict(model.dummy_inputs)
    if model.config.is_encoder_decoder:
        inputs.setdefault("decoder_input_ids", inputs["input_ids"])
    before = model(**inputs).logits
    untie(model)
    if not (model(**inputs).logits - before).norm() <= SAME * before.norm():
        raise Refused(
            f"{name} is tied to the embedding, and a {type(model).__name__} computes otherwise where it is not: leave "
            f"{name} out of the adapter"
        )
