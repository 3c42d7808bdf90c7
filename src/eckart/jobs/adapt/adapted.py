"""The module that stands around a linear layer or a convolution while adapters are trained beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eckart.adapters.contract import Start
from eckart.errors import Refused
from eckart.jobs.adapt.bases import (
    Kept,
    add_to,
    dense_of,
    kept,
    kept_still,
    matrix_shape,
    merged,
    put,
    put_back,
    structure_of,
    structure_of_kept,
)
from eckart.models.convolution import stand_in
from eckart.models.modules import StructuredLinear
from eckart.models.saved_form import SavedForm
from eckart.models.sites import Site
from eckart.models.weights import Readable
from eckart.structures import StructuredMatrix, Sum, geometry_of

OF_LAYERS = frozenset(
    """in_channels out_channels kernel_size stride padding dilation groups padding_mode transposed output_padding
    nf nx""".split()  # noqa: SIM905
)
"""What convolutions and transformers' Conv1D say of themselves, which an adapter beside them does not change."""


class Adapted(Readable, SavedForm):
    """`y = base(x) + path(x)`, the path being that of the adapter that is active, if any.

    Where an adapter starts by taking its path out of the matrix, the base holds the rest as long as that adapter is
    active, and W again when it is not, bit for bit: what stood there is kept meanwhile, as it is while a path is
    merged. A path that is all of W is evaluated instead of the base. It is saved as the sum of the base and the path
    that is active, or as the base alone.

    Attributes:
        base: nn.Linear, transformers' Conv1D, nn.Conv2d or StructuredLinear, its convolution included.
        geometry: where the patches lie that W meets; None for a linear layer.
        paths: by adapter, what trains.
        taken: by adapter, what was taken out of W; nothing for those that leave W as it is.
        trains: by adapter, the leaves of its path that train.
        replaced: the adapters that put something else in the place of W.
        whole: the adapters whose path is all of W.
        active: name of an adapter or "".
        merged: the active adapter, once its path was added to the base, or "".
        reached: whether the model has computed with the active path.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.geometry = geometry_of(base)
        self.paths = nn.ModuleDict()
        self.taken = nn.ModuleDict()
        self.active = self.merged = ""
        self.trains: dict[str, list[str]] = {}
        self.replaced: set[str] = set()
        self.whole: set[str] = set()
        # W without any adapter while one took its path out of it, and what stood there before a path was merged.
        self._whole: Kept = ()
        self._unmerged: Kept = ()
        self._path: tuple[StructuredLinear, torch.dtype] | None = None
        self.reached = False
        self.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]

    def __getattr__(self, name: str) -> Any:
        if name in OF_LAYERS:
            return getattr(self.base, name)
        return super().__getattr__(name)

    @property
    def weight(self) -> Tensor:
        """The base's weight, or the sum of it and the active path, which is made when someone computes with it."""
        if self._path is not None:
            return super().weight
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    @property
    def stored_shape(self) -> tuple[int, ...]:
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return tuple(weight.shape)

    @property
    def stored_as(self) -> tuple[torch.dtype, torch.device]:
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight.dtype, weight.device

    def stored(self) -> Tensor:
        path = self.path()
        if not path.linear:
            raise Refused(
                f"{self.where}: the model multiplies by its weight instead of calling it, and the path of "
                f"{self.active!r} depends on its input and is no matrix: leave it out with exclude="
            )
        self.reached = True
        dtype, _ = self.stored_as
        total = path.to_dense().to(dtype)
        if self.active not in self.whole:
            total = dense_of(self.base) + total
        return (
            self.base.as_stored(total) if isinstance(self.base, StructuredLinear) else Site("", self.base).stored(total)
        )

    @property
    def bias(self) -> Tensor | None:
        bias: Tensor | None = self.base.bias  # type: ignore[assignment]
        return bias

    @property
    def shape(self) -> tuple[int, int]:
        return matrix_shape(self.base)

    @property
    def in_features(self) -> int:
        return self.shape[1]

    @property
    def out_features(self) -> int:
        return self.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        if self._path is None:
            y: Tensor = self.base(x)
            return y
        self.reached = True
        path, dtype = self._path
        change = path.forward(x if x.dtype == dtype else x.to(dtype))
        if self.active in self.whole:
            return change.to(x.dtype)
        y = self.base(x)
        return y + change if y.dtype == dtype else (y + change).to(y.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Adapted:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._path is not None:
            self._path = self._evaluated()  # in the dtype that the path has now
        return self

    def add(self, name: str, start: Start, taken: StructuredMatrix | None = None) -> None:
        """Enters an adapter, inactive, on the device of W; a base that the adapter replaces is replaced for good.

        Args:
            name: of the adapter.
            start: what it begins with.
            taken: what was taken out of W, where that is not the path as it is now.
        """
        device = structure_of(self.base).device
        for each in (start.path, start.frozen, taken):
            if each is not None:
                each.to(device)
        if start.frozen is not None:
            bias = self.bias
            self.base = stand_in(start.frozen, None if bias is None else bias.detach(), self.base)
            self.base.requires_grad_(False)
            self.replaced.add(name)
        self.paths[name] = start.path
        self.trains[name] = [leaf for leaf, p in start.path.named_parameters() if p.requires_grad]
        if start.whole:
            self.whole.add(name)
        if start.split or taken is not None:
            self.taken[name] = self._constant(start.path if taken is None else taken)

    def remove(self, name: str) -> None:
        if self.active == name:
            self.activate("")
        del self.paths[name], self.trains[name]
        self.whole.discard(name)
        if name in self.taken:
            del self.taken[name]

    @torch.no_grad()
    def activate(self, name: str) -> None:
        """Switches to an adapter, or to none for ""."""
        if name == self.active:
            return
        if self.merged:
            self.unmerge()
        if self._whole:
            put_back(self.base, self._whole)
            self._whole = ()
        if name in self.taken:
            self._whole = kept(self.base)
            add_to(self.base, self.taken[name], -1.0)  # type: ignore[arg-type]
        self.active = name
        self._path = self._evaluated() if name else None

    def train_only(self, name: str) -> None:
        """Asks for gradients of what trains in one adapter, and of nothing in the others."""
        for other, leaves in self.trains.items():
            for leaf in leaves:
                self.paths[other].get_parameter(leaf).requires_grad_(other == name)

    @torch.no_grad()
    def merge(self) -> float:
        """Adds the active path to the base, so that none has to be evaluated.

        Returns:
            ||W_merged - (W + path)||_F / ||path||_F: rounding for an ordinary matrix; zero for a base of a structure
            that the path can only be added to as a term; what the second quantization costs for a quantized base.
        """
        path = self.path()
        exact = self.beside().cpu().double() + path.to_dense().cpu().double()
        self._unmerged = kept(self.base)
        if self.active in self.whole:
            put(self.base, self._constant(path))
        elif isinstance(self.base, StructuredLinear):
            self.base.structure = merged(self.base.structure, path, self._constant)
        else:
            add_to(self.base, path, 1.0)
        self.merged, self._path = self.active, None
        error = torch.linalg.matrix_norm(dense_of(self.base).cpu().double() - exact)
        size = torch.linalg.matrix_norm(path.to_dense().cpu().double())
        return float(error / size) if size > 0 else 0.0

    def unmerge(self) -> None:
        """Puts back what stood there before the path was merged, bit for bit."""
        put_back(self.base, self._unmerged)
        self._unmerged, self.merged = (), ""
        self._path = self._evaluated()

    def keep_merged(self) -> None:
        """Leaves the merged path where it is for good: it is no adapter's any more."""
        self._whole, self._unmerged = (), ()
        self.active = self.merged = ""

    def saved(self) -> nn.Module:
        """The base, or what stands in for a layer with the sum of its matrix and the active path."""
        if self._path is None:
            return self.base
        path = self.path()
        whole = path if self.active in self.whole else Sum(structure_of(self.base), path)
        return stand_in(whole, self.bias, self.base)

    def place(self, key: str) -> tuple[str, Callable[[Tensor], Tensor]]:
        """Where `key` of what is saved is here, and what brings its tensor into the form that it has here."""
        in_path = "structure." if self.active in self.whole else "structure.parts.1."
        in_base = "structure.parts.0."
        if self._path is not None and key.startswith(in_path):
            return f"paths.{self.active}.{key.removeprefix(in_path)}", _as_it_is
        if self._path is not None and key.startswith(in_base) and isinstance(self.base, StructuredLinear):
            return f"base.structure.{key.removeprefix(in_base)}", _as_it_is
        if self._path is not None and key.startswith(in_base):
            return "base.weight", Site("", self.base).stored
        return f"base.{key}", _as_it_is

    def path(self) -> StructuredMatrix:
        """The path of the active adapter."""
        path = self.paths[self.active]
        assert isinstance(path, StructuredMatrix)
        return path

    @torch.no_grad()
    def beside(self) -> Tensor:
        """What stands beside the active path, (out, in): W without it."""
        w = dense_of(self.base)
        return torch.zeros_like(w) if self.active in self.whole else w

    def without(self) -> StructuredMatrix:
        """W as it is without any adapter."""
        before = self._whole or self._unmerged
        return structure_of_kept(self.base, before) if before else structure_of(self.base)

    def _evaluated(self) -> tuple[StructuredLinear, torch.dtype]:
        """What computes the product with the active path, and its dtype."""
        module = stand_in(self.path(), None, self.base)
        if self.active in self.whole:
            module.bias = self.bias  # type: ignore[assignment]
        return module, self.path().dtype

    def _constant(self, path: StructuredMatrix) -> StructuredMatrix:
        """A copy that does not train, in the dtype of a structure that it will be a part of."""
        kept = copy.deepcopy(path).requires_grad_(False)
        return kept.to(self.base.structure.dtype) if isinstance(self.base, StructuredLinear) else kept


def _loaded(module: Adapted, _: object) -> None:
    if module._whole and not module.merged:
        taken = module.taken[module.active]
        assert isinstance(taken, StructuredMatrix)
        module._whole = kept_still(module.base, module._whole, taken)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
