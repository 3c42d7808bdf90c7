"""The modules that stand in a model where a dense layer stood."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.models.weights import Readable
from eckart.structures.base import StructuredMatrix


class Structured(Readable):
    """A module over a structure: what reads its `weight` finds a dense layer's.

    Attributes:
        structure: W (out, in), or (rows, dimension).
    """

    structure: StructuredMatrix

    def as_stored(self, matrix: Tensor) -> Tensor:
        """A matrix of the structure's shape in the form in which the dense layer stores its own; a view."""
        return matrix

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.structure.shape

    @property
    def stored_as(self) -> tuple[torch.dtype, torch.device]:
        return self.structure.dtype, self.structure.device

    @property
    def asks(self) -> bool:
        return any(p.requires_grad for p in self.structure.parameters())

    def stored(self) -> Tensor:
        if not self.structure.linear:
            raise Refused(
                f"{self.where or type(self).__name__}: the model multiplies by its weight instead of calling it, and "
                f"{type(self.structure).__name__} depends on its input and is no matrix: leave it out with exclude="
            )
        return self.as_stored(self.structure.to_dense())


class Multiplying(Structured):
    """A module that multiplies by its structure, as nn.Linear does by its weight."""

    @property
    def out_features(self) -> int:
        return self.structure.shape[0]

    @property
    def in_features(self) -> int:
        return self.structure.shape[1]

    def multiplied(self, x: Tensor) -> Tensor | None:
        y: Tensor = self.structure(x)
        return y


class StructuredLinear(Multiplying):
    """`y = x @ W.T + bias` with W any structure; stands in for nn.Linear.

    Attributes:
        structure: W (out, in).
        bias: (out,) or None.
    """

    def __init__(self, structure: StructuredMatrix, bias: Tensor | None = None) -> None:
        super().__init__()
        if bias is not None and tuple(bias.shape) != (structure.shape[0],):
            raise Refused(f"bias of shape {tuple(bias.shape)} does not fit a matrix of shape {structure.shape}")
        self.structure = structure
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        # From the registry, and without the hooks' machinery: at batch 1 a small product takes no longer than those.
        structure, bias = self._modules["structure"], self.bias
        y: Tensor = structure.forward(x) if bias is None else structure.affine(x, bias)  # type: ignore[union-attr,operator]
        return y


class StructuredConv1D(StructuredLinear):
    """Stands in for transformers' Conv1D, which is linear and stores its weight as (in, out)."""

    def as_stored(self, matrix: Tensor) -> Tensor:
        return matrix.T

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return self.structure.shape[::-1]

    @property
    def nf(self) -> int:
        return self.structure.shape[0]

    @property
    def nx(self) -> int:
        return self.structure.shape[1]

    def multiplied(self, x: Tensor) -> Tensor | None:
        return None


class LookUp(Structured):
    """Rows of W by index, times a scale.

    Attributes:
        scale: what the rows are multiplied by when they are read.
        padding_idx: the row of padding, for those who ask.
    """

    max_norm = None
    scale = 1.0
    padding_idx: int | None = None

    @property
    def num_embeddings(self) -> int:
        return self.structure.shape[0]

    @property
    def embedding_dim(self) -> int:
        return self.structure.shape[1]

    def forward(self, index: Tensor) -> Tensor:
        rows = self.structure.rows(index)
        return rows if self.scale == 1.0 else rows * self.scale


class StructuredEmbedding(LookUp):
    """Rows of W by index, W (rows, dimension) any structure; stands in for nn.Embedding.

    Attributes:
        structure: W (rows, dimension).
    """

    def __init__(self, structure: StructuredMatrix, scale: float = 1.0, padding_idx: int | None = None) -> None:
        super().__init__()
        self.structure = structure
        self.scale, self.padding_idx = scale, padding_idx


class Tied(Structured):
    """Reads the structure of another module, which owns the tensors."""

    def __init__(self, owner: StructuredEmbedding | StructuredLinear) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that the tensors are registered once, at their owner

    @property
    def owner(self) -> StructuredEmbedding | StructuredLinear:
        return self._owner[0]

    @property
    def structure(self) -> StructuredMatrix:  # type: ignore[override]
        return self.owner.structure


class TiedLinear(Tied, Multiplying):
    """A head `y = x @ W.T + bias` over the structure of an embedding; the bias, if any, is its own."""

    def __init__(self, owner: StructuredEmbedding | StructuredLinear, bias: Tensor | None = None) -> None:
        super().__init__(owner)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.structure(x)
        return y if self.bias is None else y + self.bias


class TiedEmbedding(Tied, LookUp):
    """Rows by index of the structure of another embedding."""

    def __init__(
        self, owner: StructuredEmbedding | StructuredLinear, scale: float = 1.0, padding_idx: int | None = None
    ) -> None:
        super().__init__(owner)
        self.scale, self.padding_idx = scale, padding_idx


def tied_by_construction(model: nn.Module) -> None:
    """Takes structured ties off the lists of those that transformers makes anew, between weights that are gone."""
    for part in model.modules():
        tied = {f"{name}.weight" for name, module in part.named_modules() if isinstance(module, Structured)}
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys") if tied else ():
            keys = getattr(part, attribute, None)
            if isinstance(keys, dict):
                setattr(part, attribute, {k: v for k, v in keys.items() if k not in tied and v not in tied})
