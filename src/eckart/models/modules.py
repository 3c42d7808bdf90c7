"""The modules that stand in a model where a dense layer stood."""

from __future__ import annotations

from torch import Tensor, nn

from eckart.errors import Refused
from eckart.structures.base import StructuredMatrix


class StructuredLinear(nn.Module):
    """`y = x @ W.T + bias` with W any structure; stands in for nn.Linear and transformers' Conv1D.

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

    @property
    def out_features(self) -> int:
        return self.structure.shape[0]

    @property
    def in_features(self) -> int:
        return self.structure.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        # From the registry, and without the hooks' machinery: at batch 1 a small product takes no longer than those.
        y: Tensor = self._modules["structure"].forward(x)  # type: ignore[union-attr]
        bias = self.bias
        return y if bias is None else y + bias


class StructuredEmbedding(nn.Module):
    """Rows of W by index, W (rows, dimension) any structure; stands in for nn.Embedding.

    Attributes:
        structure: W (rows, dimension).
    """

    def __init__(self, structure: StructuredMatrix) -> None:
        super().__init__()
        self.structure = structure

    @property
    def num_embeddings(self) -> int:
        return self.structure.shape[0]

    @property
    def embedding_dim(self) -> int:
        return self.structure.shape[1]

    def forward(self, index: Tensor) -> Tensor:
        return self.structure.rows(index)


class Tied(nn.Module):
    """Reads the structure of another module, which owns the tensors."""

    def __init__(self, owner: StructuredEmbedding | StructuredLinear) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that the tensors are registered once, at their owner

    @property
    def owner(self) -> StructuredEmbedding | StructuredLinear:
        return self._owner[0]

    @property
    def structure(self) -> StructuredMatrix:
        return self.owner.structure


class TiedLinear(Tied):
    """A head `y = x @ W.T + bias` over the structure of an embedding; the bias, if any, is its own."""

    def __init__(self, owner: StructuredEmbedding | StructuredLinear, bias: Tensor | None = None) -> None:
        super().__init__(owner)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.structure(x)
        return y if self.bias is None else y + self.bias


class TiedEmbedding(Tied):
    """Rows by index of the structure of another embedding."""

    def forward(self, index: Tensor) -> Tensor:
        return self.structure.rows(index)


def tied_by_construction(model: nn.Module) -> None:
    """Takes structured ties off the lists of those that transformers makes anew, between weights that are gone."""
    for part in model.modules():
        tied = {f"{name}.weight" for name, module in part.named_modules() if isinstance(module, Tied)}
        for attribute in ("_tied_weights_keys", "all_tied_weights_keys") if tied else ():
            keys = getattr(part, attribute, None)
            if isinstance(keys, dict):
                setattr(part, attribute, {k: v for k, v in keys.items() if k not in tied and v not in tied})
