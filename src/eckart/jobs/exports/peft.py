"""what compensate added, or an adapter, as a LoRA"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.files.directories import check_target
from eckart.files.json import read_json
from eckart.jobs.adapt.host import host
from eckart.jobs.adapt.load import is_adapter
from eckart.jobs.adapt.peft import write_lora
from eckart.jobs.compensate.directory import COMPENSATION
from eckart.jobs.exports._ordinary import skeleton_of
from eckart.models import transformers as hf
from eckart.models.convolution import StructuredConv2d
from eckart.models.modules import StructuredLinear
from eckart.structures import Chain, Dense, StructuredMatrix, Sum


def write(source: str, out: str | Path) -> str:
    """Writes the low-rank branches of a compensated model as a LoRA adapter in the layout of PEFT.

    The adapter belongs on the model that `compensate` was given, with ordinary matrices, as `export --to dense` writes
    it, or in any other format with the same values. Factors go in as they are: the scale is 1.

    Raises:
        Refused: there are no such branches, biases were fitted with them, or `out` is taken.
    """
    check_target(Path(out))
    if is_adapter(source):
        raise Refused(f"{source} is an adapter in the layout of PEFT already")
    model: Any
    model = hf.load(source).model
    found = {n: low_rank_terms(m.structure) for n, m in model.named_modules() if isinstance(m, StructuredLinear)}
    found = {name: terms for name, terms in found.items() if terms}
    if not found:
        raise Refused(f"{source} has no low-rank branches beside its matrices; eckart compensate adds them")
    if images := [name for name in found if isinstance(model.get_submodule(name), StructuredConv2d)]:
        raise Refused(f"{images[0]} is a convolution, whose branch no LoRA adapter holds: export --to dense")
    notes = Path(source) / COMPENSATION
    matrices = read_json(notes).get("matrices", []) if notes.is_file() else []
    if rebiased := [entry["name"] for entry in matrices if entry.get("bias")]:
        raise Refused(
            f"the biases of {len(rebiased)} matrices ({rebiased[0]}) were fitted with the branches and do not fit into "
            "an adapter: compensate a model whose compression added no biases, or export --to dense"
        )
    factors = {
        name: (torch.cat([left for left, _ in terms], 1), torch.cat([right for _, right in terms]))
        for name, terms in found.items()
    }
    _, skeleton = skeleton_of(model, [])
    belongs = host(skeleton, factors)
    belongs.check(factors)
    write_lora(factors, Path(out), belongs)
    return ""


def low_rank_terms(structure: StructuredMatrix) -> list[tuple[Tensor, Tensor]]:
    """The factors (out, r) and (r, in) of each product of two dense ones that is added to the first term of a sum."""
    if not isinstance(structure, Sum):
        return []
    terms = []
    for other in structure.operands()[1:]:
        factors = other.operands()
        if isinstance(other, Chain) and len(factors) == 2 and all(isinstance(factor, Dense) for factor in factors):
            left, right = (factor.to_dense().detach() for factor in factors)
            terms.append((left, right))
    return terms
