"""What is said of matrices whose inputs are rounded while the model runs."""

from __future__ import annotations

from collections import Counter

from torch import nn

from eckart.models.modules import Structured, Tied
from eckart.structures import input_bits


def rounded_inputs(model: nn.Module) -> list[str]:
    """A sentence for each number of bits that inputs of matrices are rounded to."""
    held = [m.structure for m in model.modules() if isinstance(m, Structured) and not isinstance(m, Tied)]
    found = Counter(bits for structure in held if (bits := input_bits(structure)) is not None)
    return [
        f"the inputs of {count} {'matrices are' if count > 1 else 'matrix is'} rounded to {bits} bits, token by token, "
        "whenever the model runs"
        for bits, count in sorted(found.items())
    ]
