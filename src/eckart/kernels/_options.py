"""Kernels as names and options, from which files make them again."""

from __future__ import annotations

from typing import Any

from eckart.errors import Refused
from eckart.kernels._kernel import KINDS, Kernel
from eckart.kernels.contract import KERNELS
from eckart.scikit.files import rebuilds

HELD = "parameters that are not learned"
"""What files call their names."""


def from_options(kind: str, options: dict[str, Any]) -> Kernel:
    """The kernel that `type(kernel).__name__` and `kernel.options()` describe.

    Raises:
        Refused: there is no such kernel.
    """
    if kind not in KINDS:
        list(KERNELS.values())  # imports all files
    if kind not in KINDS:
        raise Refused(f"unknown kernel {kind!r}; there are {', '.join(sorted(KINDS))}")
    held = options.get(HELD, [])
    made = KINDS[kind](**{name: value for name, value in options.items() if name != HELD})
    for name in held:
        made.get_parameter(name).requires_grad_(False)
    return made


def _described(kernel: Kernel) -> tuple[str, dict[str, Any]]:
    held = [name for name, parameter in kernel.named_parameters(recurse=False) if not parameter.requires_grad]
    return type(kernel).__name__, {**kernel.options(), **({HELD: held} if held else {})}


rebuilds("kernel", Kernel, _described, from_options)
