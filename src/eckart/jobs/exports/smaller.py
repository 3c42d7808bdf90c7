"""ordinary matrices without the units that nothing reads"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.files.directories import check_target, new_directory
from eckart.jobs.exports._divergence import check_reads_tokens
from eckart.jobs.exports._ordinary import made_dense
from eckart.models import transformers as hf
from eckart.models.narrower import Narrowing, narrowings

TOKENS = 16
"""Tokens on which the smaller model has to do what the larger one does."""
OF_32_BITS, OF_16_BITS = 1e-4, 0.05
"""What rounding may change of its outputs, as a share of their spread: only weights are rounded to 16 bits, once."""


def write(source: str, out: str | Path) -> str:
    """Writes a compressed model without the units that nothing reads, which plain transformers loads without eckart.

    Its matrices are ordinary ones of fewer rows and columns, its configuration says a smaller hidden width of the MLPs
    and a smaller size of the heads, and with these its cache of keys and values is smaller. All layers have one width:
    that of the layer that needs most. What is written is loaded again and compared, in float32 whatever its dtype. In
    16 bits the entries of queries are rounded once more, because smaller heads divide scores by another number.

    Returns:
        What became smaller.

    Raises:
        Refused: no unit can go from all layers, the configuration of the architecture has no number for what can, the
            smaller model would do something else, the model does not read tokens alone, or `out` is taken.
    """
    check_target(Path(out))
    loaded = hf.load(source)
    model: Any = loaded.model
    check_reads_tokens(model)
    probe = torch.arange(TOKENS)[None] % model.config.get_text_config().vocab_size
    coarse = torch.finfo(model.dtype).eps > 1e-4
    wanted = _outputs(hf.load(source).model.float() if coarse else model, probe)
    made_dense(model)
    found = narrowings(model)
    if not found:
        raise Refused(
            f"{source} has no units that all layers can do without alike: compress it by a method that leaves units "
            "out of all of them, such as modegpt-narrow; MLPs of several widths stay as they are"
        )
    chosen, config = _expressible(model, found)
    for one in chosen:
        one.narrow(model)
    model.config = config
    with new_directory(Path(out)) as partial:
        loaded.write(partial)
        small = hf.load(str(partial)).model
        given = _outputs(small.float() if coarse else small, probe)
        if not (given - wanted).square().mean().sqrt() <= (OF_16_BITS if coarse else OF_32_BITS) * wanted.std():
            raise Refused(
                f"{type(model).__name__} with {' and '.join(map(str, chosen))} does something else than "
                f"{source} (outputs differ by {float((given - wanted).abs().max()):.2g}): export --to dense"
            )
    return "; ".join(map(str, chosen))


def _outputs(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = next(iter(model(input_ids=tokens).values()))
    return found.double()


def _expressible(model: Any, found: Sequence[Narrowing]) -> tuple[Sequence[Narrowing], Any]:
    """The most of what can be smaller that a configuration of the architecture can say, and that configuration."""
    for count in range(len(found), 0, -1):
        for chosen in combinations(found, count):
            config = copy.deepcopy(model.config)
            for one in chosen:
                for name, value in one.fields.items():
                    setattr(config, name, value)
            if _fits(model, chosen, config):
                return chosen, config
    raise Refused(
        f"{type(model.config).__name__} has no number for {' or '.join(map(str, found))}: load the model with eckart "
        "as it is, or export --to dense"
    )


def _fits(model: Any, chosen: Sequence[Narrowing], config: Any) -> bool:
    """Whether the tensors of an architecture have the shapes that narrowing would leave."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for one in chosen:
        for name, shape in one.narrowed(model).items():
            shapes[f"{name}.weight"] = shape
            if f"{name}.bias" in shapes:
                out = one.cuts[name].rows
                shapes[f"{name}.bias"] = shapes[f"{name}.bias"] if out is None else (len(out),)
    try:
        with torch.device("meta"):
            skeleton: nn.Module = type(model)(copy.deepcopy(config))
    except (ValueError, TypeError):  # numbers that do not divide each other, where these are checked
        return False
    return shapes == {name: tuple(p.shape) for name, p in skeleton.named_parameters()}
