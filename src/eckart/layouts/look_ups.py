"""What an embedding multiplies its rows by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eckart.errors import Refused


def scale_of(embedding: Any) -> float:
    """The number that a scaled embedding multiplies its rows by when they are read; 1 for an ordinary one.

    Raises:
        Refused: it is a tensor without numbers, on the meta device, and stands nowhere else.
    """
    scale = getattr(embedding, "embed_scale", 1.0) if type(embedding) is not nn.Embedding else 1.0
    if not isinstance(scale, Tensor):
        return float(scale)
    if scale.is_meta:
        known = getattr(embedding, "scalar_embed_scale", None)
        if not isinstance(known, int | float):
            raise Refused(
                f"the scale of a {type(embedding).__name__} on the meta device is not known: load it with values"
            )
        scale = torch.tensor(known, dtype=torch.float32, device="cpu")
    # As such layers do, which multiply in the dtype of their weight.
    return float(scale.to(embedding.weight.dtype))
