"""The filters of a convolution in a model."""

from __future__ import annotations

from torch import Tensor

from eckart.models.sites import Site


def filters(site: Site) -> Tensor:
    """The weight as its module holds it: (out, in, height, width) for a convolution, (out, in) for any other.

    The filters of a sequence have one row.
    """
    held = site.module.weight
    assert isinstance(held, Tensor)
    if held.ndim == 3:
        return held.detach().unsqueeze(-2)
    return held.detach() if held.ndim > 2 else site.weight
