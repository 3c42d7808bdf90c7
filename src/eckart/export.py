"""Compressed models in other formats."""

from __future__ import annotations

from pathlib import Path

from eckart.models import hf
from eckart.models.modules import StructuredEmbedding, StructuredLinear, TiedLinear
from eckart.models.output import new_directory
from eckart.models.sites import dense_module, set_module


def to_dense_directory(source: str, out: str | Path) -> None:
    """Writes a compressed model with ordinary matrices, which plain transformers loads without eckart.

    Tied matrices stay tied. The file grows back to the size of the original; what was lost stays lost.

    Raises:
        ValueError: `source` is not a model that eckart compressed, or `out` is taken.
    """
    model, tokenizer = hf.load_model(source)
    structured = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, StructuredLinear | StructuredEmbedding | TiedLinear)
    ]
    if not structured:
        raise ValueError(f"{source} has no structured matrices; it is dense already")
    with new_directory(Path(out)) as partial:
        tied = [(name, module) for name, module in structured if isinstance(module, TiedLinear)]
        owners = {id(module): name for name, module in structured}
        for name, module in structured:
            set_module(model, name, dense_module(module))
        for name, module in tied:
            head, owner = model.get_submodule(name), model.get_submodule(owners[id(module._owner[0])])
            head.weight = owner.weight
        hf.write_model(model, tokenizer, partial)
