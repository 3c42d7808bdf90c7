"""Adam's moments and its step, which many rules take somewhere else than at W."""

from __future__ import annotations

import torch
from torch import Tensor


def adam(
    grad: Tensor,
    state: dict[str, Tensor],
    step: int | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
) -> Tensor:
    """m / (sqrt(v) + eps) of the averages m of g and v of g^2, both divided by what their zero start leaves out.

    Args:
        grad: g, of any shape.
        state: `m` and `v`, of its shape; made in the first step, averaged in place.
        step: from 1 on; or steps of each entry, of a shape that broadcasts to that of g.
        betas: what stays of m and of v in a step.
        eps: added to the root.

    Returns:
        a new tensor of the shape of g. (Kingma and Ba 2015, Algorithm 1.)
    """
    if "m" not in state:
        state["m"], state["v"] = torch.zeros_like(grad), torch.zeros_like(grad)
    m = state["m"].lerp_(grad, 1 - betas[0])
    v = state["v"].mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    left = (1 - betas[1] ** step) ** 0.5
    root = v.sqrt().add_(eps * left)  # both corrections in the one factor behind it: a pass less over all entries
    return torch.div(m, root, out=root).mul_(left / (1 - betas[0] ** step))
