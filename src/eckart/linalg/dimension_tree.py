"""What a tensor is without each of its modes in turn, where the halves of the modes share their work."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from torch import Tensor


def visit_modes(
    node: Tensor,
    sizes: tuple[int, ...],
    modes: range,
    contract: Callable[[Tensor, range, range], Tensor],
    update: Callable[[int, Tensor], None],
) -> None:
    """Goes to each mode in order with the tensor contracted over all others, as they are then (Phan et al. 2013).

    The tensor itself is read twice instead of once for each mode: the second half of the modes is contracted for all of
    the first, and then, when these are new, the first half for all of the second; so on within the halves.

    Args:
        node: the tensor, contracted over all modes but `modes`.
        sizes: of all modes.
        modes: those that are left, in order.
        contract: of a node, its modes and those of its first or last modes that are to go, what is left.
        update: told a mode and its node.
    """
    if len(modes) == 1:
        update(modes[0], node)
        return
    cuts = range(modes.start + 1, modes.stop)
    cut = min(cuts, key=lambda at: prod(sizes[modes.start : at]) + prod(sizes[at : modes.stop]))
    first, last = range(modes.start, cut), range(cut, modes.stop)
    visit_modes(contract(node, modes, last), sizes, first, contract, update)
    visit_modes(contract(node, modes, first), sizes, last, contract, update)
