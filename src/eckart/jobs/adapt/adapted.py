"""The module that stands around a linear layer or a convolution while adapters are trained beside it."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from eckart.adapters.contract import Start
from eckart.errors import Refused
from eckart.models.convolution import stand_in
from eckart.models.modules import StructuredLinear
from eckart.models.sites import Site
from eckart.structures import Dense, Quantized, Scaled, StructuredMatrix, Sum, geometry_of

Kept = tuple[Tensor | StructuredMatrix, ...]
"""A matrix kept to be put back; in a tuple, so that a module does not register it as a part of itself."""


class Adapted(nn.Module):
    """`y = base(x) + path(x)`, the path being that of the adapter that is active, if any.

    Where an adapter starts by taking its path out of the matrix, the base holds the rest as long as that adapter is
    active, and W again when it is not, bit for bit: what stood there is kept meanwhile, as it is while a path is
    merged. A path that is all of W is evaluated instead of the base.

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

    @property
    def weight(self) -> Tensor:
        """The base's matrix as it is now; some models look at its dtype."""
        if isinstance(self.base, StructuredLinear):
            return self.base.structure.to_dense()
        weight: Tensor = self.base.weight  # type: ignore[assignment]
        return weight

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
        path, dtype = self._path
        change = path.forward(x if x.dtype == dtype else x.to(dtype))
        if self.active in self.whole:
            return change.to(x.dtype)
        y = self.base(x)
        return y + (change if y.dtype == dtype else change.to(y.dtype))

    def add(self, name: str, start: Start, taken: StructuredMatrix | None = None) -> None:
        """Enters an adapter, inactive; a base that the adapter replaces is replaced for good.

        Args:
            name: of the adapter.
            start: what it begins with.
            taken: what was taken out of W, where that is not the path as it is now.
        """
        if start.frozen is not None:
            bias = self.bias
            self.base = stand_in(start.frozen, None if bias is None else bias.detach(), self.geometry)
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
        exact = self.beside().double() + path.to_dense().double()
        self._unmerged = kept(self.base)
        if self.active in self.whole:
            put(self.base, self._constant(path))
        elif isinstance(self.base, StructuredLinear):
            self.base.structure = merged(self.base.structure, path, self._constant)
        else:
            add_to(self.base, path, 1.0)
        self.merged, self._path = self.active, None
        error = torch.linalg.matrix_norm(dense_of(self.base).double() - exact)
        size = torch.linalg.matrix_norm(path.to_dense().double())
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

    def _evaluated(self) -> tuple[StructuredLinear, torch.dtype]:
        """What computes the product with the active path, and its dtype."""
        module = stand_in(self.path(), None, self.geometry)
        if self.active in self.whole:
            module.bias = self.bias  # type: ignore[assignment]
        return module, self.path().dtype

    def _constant(self, path: StructuredMatrix) -> StructuredMatrix:
        """A copy that does not train, in the dtype of a structure that it will be a part of."""
        kept = copy.deepcopy(path).requires_grad_(False)
        return kept.to(self.base.structure.dtype) if isinstance(self.base, StructuredLinear) else kept


def check_name(name: str) -> None:
    """Raises Refused where a name of an adapter cannot be one of a module."""
    if not re.fullmatch(r"\w+", name):
        raise Refused(f"the name of an adapter is letters, digits and _, got {name!r}")


def matrix_shape(base: nn.Module) -> tuple[int, int]:
    """(out, in) of a linear layer, or of the flattened filters of a convolution."""
    return base.structure.shape if isinstance(base, StructuredLinear) else Site("", base).shape


def dense_of(base: nn.Module) -> Tensor:
    """W (out, in) of a linear layer or a convolution."""
    return structure_of(base).to_dense().detach()


def structure_of(base: nn.Module) -> StructuredMatrix:
    """W as a structure; an ordinary matrix is dense, a view."""
    return base.structure if isinstance(base, StructuredLinear) else Dense(Site("", base).weight).requires_grad_(False)


def put(base: nn.Module, structure: StructuredMatrix) -> None:
    """Makes W that of a structure, which an ordinary matrix takes as a dense one."""
    if isinstance(base, StructuredLinear):
        base.structure = structure
        return
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    weight.data = Site("", base).stored(structure.to_dense()).to(weight.dtype).contiguous()


def kept(base: nn.Module) -> Kept:
    """W of a base as it is stored now, for `put_back`."""
    if isinstance(base, StructuredLinear):
        return (base.structure,)
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    return (weight.data,)


def put_back(base: nn.Module, before: Kept) -> None:
    """Makes W what it was when it was kept, on the device and in the dtype that the base has by now."""
    if isinstance(base, StructuredLinear):
        structure, now = before[0], next(chain(base.structure.parameters(), base.structure.buffers()))
        assert isinstance(structure, StructuredMatrix)
        base.structure = structure.to(now.device)
        return
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    assert isinstance(before[0], Tensor)
    weight.data = before[0].to(weight)


def add_to(base: nn.Module, path: StructuredMatrix, sign: float) -> None:
    """Adds a path to W or takes it out: of an ordinary matrix the sum, of a structure a sum with a last term."""
    if isinstance(base, StructuredLinear):
        base.structure = Sum(base.structure, Scaled(path, scale=sign))
        return
    weight: nn.Parameter = base.weight  # type: ignore[assignment]
    change = Site("", base).stored(path.to_dense())
    # A new tensor: the old one is kept, and may be mapped from a file.
    exact = torch.promote_types(weight.dtype, change.dtype)
    weight.data = weight.to(exact).add(change.to(exact), alpha=sign).to(weight.dtype)


def merged(
    structure: StructuredMatrix, path: StructuredMatrix, constant: Callable[[StructuredMatrix], StructuredMatrix]
) -> StructuredMatrix:
    """A structure with a path added: dense and quantized ones in their own form, others as a sum with a constant."""
    if isinstance(structure, Dense):
        return Dense((structure.weight.double() + path.to_dense().double()).to(structure.dtype))
    if isinstance(structure, Quantized):
        total = structure.to_dense().double() + path.to_dense().double()
        return Quantized.quantize(
            total.to(torch.promote_types(structure.dtype, torch.float32)),
            structure.bits,
            structure.group,
            symmetric=structure.zeros is None and structure.codebook is None,
            codebook=structure.codebook,
            dtype=structure.dtype,
        )
    return Sum(structure, constant(path))
