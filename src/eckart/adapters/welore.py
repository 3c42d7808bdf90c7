"""The thin factors that compression left train, where they are."""

from __future__ import annotations

import copy

from eckart.adapters.contract import Layer, Start, adapter
from eckart.structures.base import StructuredMatrix
from eckart.structures.compose import Chain, Sum
from eckart.structures.dense import Dense


@adapter(
    "welore",
    paper="Jaiswal et al. 2024, arXiv 2407.11239",
    expression="Chain(Dense*, Dense*)",
)
def welore(layer: Layer) -> Start | None:
    """The factors of every matrix that stands as a product of two thin ones train; all others are frozen.

    Nothing is added: the model is one that was compressed, by `eckart compress --method welore` as in the paper, which
    makes low-rank just the matrices whose singular values fall off fast, or by any other low-rank method. Of a sum with
    codes, as `--method lq-lora` and `eckart compensate` make it, the factors train and the codes stay. The rank is that
    of each matrix and `rank` is not used. Merging costs nothing.
    """
    if layer.structure is None or _product(layer.structure) is None:
        return None
    path = copy.deepcopy(layer.structure).to(layer.dtype).requires_grad_(False)
    product = _product(path)
    assert product is not None
    product.requires_grad_(True)
    return Start(path, rank=product.operands()[0].shape[1], whole=True)


def _product(structure: StructuredMatrix) -> StructuredMatrix | None:
    """Two dense factors: the structure itself, or the one term of a sum that is such; None where there are none."""
    terms = structure.operands() if isinstance(structure, Sum) else [structure]
    found = [
        term
        for term in terms
        if isinstance(term, Chain)
        and len(term.operands()) == 2
        and all(isinstance(factor, Dense) for factor in term.operands())
    ]
    return found[0] if len(found) == 1 else None
