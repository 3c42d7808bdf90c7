"""Products of compressed matrices in compiled code, where that applies; None where PyTorch is to be used.

A layout is a file `name.c` with two functions, listed in `layouts.h`, and a file `name.py` with a `Layout`, which
checks everything before an address leaves Python. `products.h` says what the functions do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from eckart.ops.native.library import Library, loaded

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The number of each float type in C."""
Leaves = Sequence[Tensor | None]
Options = Sequence[int]

SEVERAL = 64
"""Vectors up to which rows are multiplied as they are decoded; for more, PyTorch multiplies panels of decoded rows."""
BFLOAT16 = 16
"""Vectors in bfloat16 from which panels are multiplied in it, where the processor can."""
STACK = 1 << 14
"""Columns of two rows that fit the stack of a thread."""
PANEL = 256
"""Rows that are decoded at once; a product with fewer falls short of PyTorch's full speed."""
GRAIN = 1 << 17
"""Entries of W that are worth a thread."""


@dataclass(frozen=True)
class Layout:
    """How a matrix W (rows, columns) lies in memory.

    Attributes:
        name: its name in C.
        shape: `(leaves, options)` -> (rows, columns), where C may see these tensors: types, devices, strides, shapes
            and indices are checked here and nowhere else. None where C does not apply.
        describe: `(leaves, options)` -> W as C sees it, for leaves that passed.
        reference: `(x, leaves, options)` -> the product, by PyTorch.
        most: the most vectors that it is for.
        sound: `(leaves, options)` -> whether C stays within the tensors, for leaves that passed; asked again whenever
            one that holds indices was written to. None where no value decides on what is read.
    """

    name: str
    shape: Callable[[Leaves, Options], tuple[int, int] | None]
    describe: Callable[[Leaves, Options], ctypes.Structure]
    reference: Callable[[Tensor, Leaves, Options], Tensor]
    most: int | None = None
    sound: Callable[[Leaves, Options], bool] | None = None


LAYOUTS: dict[str, Layout] = {}
"""All layouts by name."""


def layout(found: Layout) -> Layout:
    """Enters a layout."""
    LAYOUTS[found.name] = found
    return found


def lies(tensor: Tensor | None, dtypes: torch.dtype | Sequence[torch.dtype], *shape: int) -> bool:
    """Whether a tensor lies in the CPU's memory as C reads it: row after row, of that dtype and shape (-1: any)."""
    return (
        tensor is not None
        and tensor.is_cpu
        and (tensor.dtype == dtypes if isinstance(dtypes, torch.dtype) else tensor.dtype in dtypes)
        and tensor.ndim == len(shape)
        and all(size in (-1, found) for size, found in zip(shape, tensor.shape, strict=True))
        and tensor.is_contiguous()
    )


def holding(described: ctypes.Structure, *tensors: Tensor) -> ctypes.Structure:
    """A matrix as C sees it, with tensors that live as long as it does."""
    described.tensors = tensors
    return described


class Product:
    """Multiplies by a matrix in compiled code; one belongs to each structure that has such a layout.

    It remembers how C sees the tensors that it was last called with, and looks again when one of them is another or
    lies elsewhere. Nothing that could be trained is copied.

    Args:
        layout: of the matrix.
    """

    __slots__ = ("_described", "_seen", "layout")

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._seen: tuple[tuple[object, ...], ...] = ()
        self._described: tuple[ctypes.Structure, int, int] | None = None

    def __reduce__(self) -> tuple[type[Product], tuple[Layout]]:
        return Product, (self.layout,)  # copies have tensors of their own

    def __call__(self, x: Tensor, leaves: Leaves, options: Options) -> Tensor | None:
        """`x @ W.T` (..., rows) in x's dtype, for x (..., columns); None where PyTorch is to be used instead.

        That is where a gradient is wanted, where something lies elsewhere than in the memory of the CPU, in a dtype not
        among `FLOATS` or under autocast, and where there is no library. Sums are float32, rounded once. What is
        compiled, exported or watched sees one op, `eckart::multiplied`.

        Args:
            x: (..., columns).
            leaves: the tensors of W.
            options: the numbers that belong to them.
        """
        if not x.is_cpu or x.dtype not in FLOATS or torch.is_autocast_enabled("cpu"):
            return None
        if forward_ad._current_level >= 0:  # tangents are carried along
            return None
        if torch.is_grad_enabled() and (x.requires_grad or any(t is not None and t.requires_grad for t in leaves)):
            return None
        if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
            return self._as_op(x, leaves, options)
        library = loaded()
        if (
            library is None
            or self.layout.name not in library.layouts  # it is older than the layout
            or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
            or type(x) not in (Tensor, nn.Parameter)
        ):
            return None
        try:
            described = self._look(leaves, options)
            if described is None or not x.ndim or x.shape[-1] != described[2] or not x.numel():
                return None
            x.data_ptr()
        except RuntimeError:  # no address: a tensor of vmap, or another that only stands for one
            return None
        structure, rows, columns = described
        vectors = x.numel() // columns
        if self.layout.most is not None and vectors > self.layout.most:
            return None
        if x.dtype == torch.bfloat16 and library.bfloat16 and vectors >= BFLOAT16 and columns <= STACK:
            return self._by_panels(library, structure, rows, x.detach().resolve_neg())
        flat = x.detach().resolve_neg().float()
        if vectors > 1 and (vectors > SEVERAL or columns > STACK):
            return self._by_panels(library, structure, rows, flat).to(x.dtype)
        flat = flat.contiguous()
        y = torch.empty(*x.shape[:-1], rows, dtype=torch.float32, device="cpu")
        library.multiply(
            library.threads,
            1 + GRAIN // columns,
            library.number,
            library.layouts[self.layout.name],
            ctypes.addressof(structure),
            rows,
            columns,
            flat.data_ptr(),
            vectors,
            y.data_ptr(),
        )
        return y.to(x.dtype)

    def _look(self, leaves: Leaves, options: Options) -> tuple[ctypes.Structure, int, int] | None:
        """W as C sees it, rows and columns; None where C does not apply."""
        seen = self._seen
        if seen and all(leaf is old[0] and self._lie(leaf) == old for leaf, old in zip(leaves, seen, strict=True)):
            return self._described
        shape, sound = self.layout.shape(leaves, options), self.layout.sound
        if any(leaf is not None and leaf.is_neg() for leaf in leaves):
            shape = None  # its bytes are those of something else
        if shape is not None and sound is not None and not sound(leaves, options):
            shape = None
        self._described = None if shape is None else (self.layout.describe(leaves, options), *shape)
        self._seen = tuple(self._lie(leaf) for leaf in leaves)
        return self._described

    def _lie(self, leaf: Tensor | None) -> tuple[object, ...]:
        """A tensor, and all that says which bytes it is made of and how."""
        if leaf is None:
            return (None,)
        return leaf, leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride(), self._version(leaf)

    def _version(self, leaf: Tensor | None) -> int:
        """A number that grows when indices are written to; 0 for a tensor that holds none.

        Tensors that were made in inference mode do not count what is written to them, and are looked at once.
        """
        if leaf is None or self.layout.sound is None or leaf.is_floating_point():
            return 0
        return 1 if leaf.is_inference() else leaf._version + 1

    def _by_panels(self, library: Library, structure: ctypes.Structure, rows: int, x: Tensor) -> Tensor:
        """x @ W.T, for x (..., columns) in the dtype to multiply in."""
        columns = x.shape[-1]
        flat = x.reshape(-1, columns)
        y = torch.empty(len(flat), rows, dtype=x.dtype, device="cpu")
        panel = torch.empty(min(rows, PANEL), columns, dtype=x.dtype, device="cpu")
        for start in range(0, rows, PANEL):
            stop = min(rows, start + PANEL)
            library.rows(
                library.threads,
                1 + GRAIN // columns,
                library.number,
                library.layouts[self.layout.name],
                ctypes.addressof(structure),
                columns,
                start,
                stop,
                x.dtype == torch.bfloat16,
                panel.data_ptr(),
            )
            torch.mm(flat, panel[: stop - start].T, out=y[:, start:stop])
        return y.view(*x.shape[:-1], rows)

    def _as_op(self, x: Tensor, leaves: Leaves, options: Options) -> Tensor | None:
        shape = self.layout.shape(leaves, options) if _available() else None
        most = self.layout.most
        if shape is None or x.shape[-1:] != shape[1:] or (most is not None and x.numel() > most * shape[1]):
            return None
        y: Tensor = torch.ops.eckart.multiplied(x, list(leaves), self.layout.name, list(options))
        return y


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _available() -> bool:
    return loaded() is not None


@torch.library.custom_op("eckart::multiplied", mutates_args=())
def _op(x: Tensor, leaves: Sequence[Tensor | None], layout: str, options: Sequence[int]) -> Tensor:
    known = LAYOUTS[layout]
    y = Product(known)(x, leaves, options)
    return known.reference(x, leaves, options) if y is None else y


@_op.register_fake
def _(x: Tensor, leaves: Sequence[Tensor | None], layout: str, options: Sequence[int]) -> Tensor:
    shape = LAYOUTS[layout].shape(leaves, options)
    assert shape is not None  # checked before the op was called
    return x.new_empty(*x.shape[:-1], shape[0])
