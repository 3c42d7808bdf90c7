"""Products of compressed matrices in compiled code, where that applies; None where PyTorch is to be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from eckart.ops.native.assembly import GRAIN, Assembled, Term, assembled
from eckart.ops.native.layouts import LAYOUTS, STACK, Layout, Leaves, Options
from eckart.ops.native.library import Library, loaded
from eckart.ops.native.programs import Remembered, available, plain

SEVERAL = {"baseline": 16, "avx2": 16, "avx512": 64}
"""Vectors up to which rows are multiplied as they are decoded, by level; for more, PyTorch multiplies panels of decoded
rows."""
BFLOAT16 = 16
"""Vectors in bfloat16 from which panels are multiplied in it, where the processor can."""
PANEL, NUMBERS = 256, 1 << 20
"""Rows, and numbers, that are decoded at once: a product with fewer rows falls short of PyTorch's full speed, and each
panel of a small matrix starts all threads twice."""


class Product(Remembered):
    """Multiplies by a matrix in compiled code; one belongs to each structure that has such a layout.

    Args:
        layout: of the matrix.
    """

    __slots__ = ("layout",)

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout

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
        if not plain(x, leaves):
            return None
        if torch.compiler.is_compiling() or _get_current_dispatch_mode() is not None:
            return self._as_op(x, leaves, options)
        library = available(x)
        if library is None:
            return None
        try:
            stages = ((Term(self.layout, leaves, options),),)
            program = self.program(leaves, lambda: assembled(library, stages), self.layout.sound is not None)
            if program is None or not x.ndim or x.shape[-1] != program.columns or not x.numel():
                return None
            x.data_ptr()
        except RuntimeError:  # no address: a tensor of vmap, or another that only stands for one
            return None
        columns, most = program.columns, self.layout.most
        vectors = x.numel() // columns
        if vectors == 1:
            return self.run(library, program, x)
        if most is not None and vectors > most:
            return None
        if self.layout.by_columns is not None:
            if not self.layout.by_columns(options):
                return None
            return self._by_columns(library, program, x.detach().resolve_neg().float()).to(x.dtype)
        short = columns <= STACK
        if x.dtype == torch.bfloat16 and library.bfloat16 and vectors >= BFLOAT16 and short:
            return self._by_panels(library, program, x.detach().resolve_neg())
        if vectors > SEVERAL[library.level] or not short:
            return self._by_panels(library, program, x.detach().resolve_neg().float()).to(x.dtype)
        return self.run(library, program, x)

    def _by_panels(self, library: Library, program: Assembled, x: Tensor) -> Tensor:
        """x @ W.T, for x (..., columns) in the dtype to multiply in, a few rows of W at a time."""
        rows, columns = program.rows, program.columns
        flat = x.reshape(-1, columns)
        y = torch.empty(len(flat), rows, dtype=x.dtype, device="cpu")
        for start, panel in self._decoded(library, program, rows, columns, x.dtype):
            torch.mm(flat, panel.T, out=y[:, start : start + len(panel)])
        return y.view(*x.shape[:-1], rows)

    def _by_columns(self, library: Library, program: Assembled, x: Tensor) -> Tensor:
        """The same, a few columns of W at a time."""
        rows, columns = program.rows, program.columns
        flat = x.reshape(-1, columns)
        y = torch.zeros(len(flat), rows, dtype=x.dtype, device="cpu")
        for start, panel in self._decoded(library, program, columns, rows, x.dtype):
            y.addmm_(flat[:, start : start + len(panel)], panel)
        return y.view(*x.shape[:-1], rows)

    def _decoded(
        self, library: Library, program: Assembled, count: int, size: int, dtype: torch.dtype
    ) -> Iterator[tuple[int, Tensor]]:
        """The `count` rows of W, or of W^T, of `size` numbers: where each panel starts, and it."""
        step = max(PANEL, NUMBERS // size)
        panel = torch.empty(min(count, step), size, dtype=dtype, device="cpu")
        for start in range(0, count, step):
            stop = min(count, start + step)
            library.rows(
                library.threads,
                1 + GRAIN // size,
                library.number,
                library.layouts[self.layout.name],
                program.matrix,
                size,
                start,
                stop,
                dtype == torch.bfloat16,
                panel.data_ptr(),
            )
            yield start, panel[: stop - start]

    def _as_op(self, x: Tensor, leaves: Leaves, options: Options) -> Tensor | None:
        shape = self.layout.shape(leaves, options) if _available() else None
        most = self.layout.most
        if shape is None or x.shape[-1:] != shape[1:] or (most is not None and x.numel() > most * shape[1]):
            return None
        y: Tensor = torch.ops.eckart.multiplied(x, list(leaves), self.layout.name, list(options))
        return y


def _available() -> bool:
    return loaded() is not None


# What `torch.compiler.assume_constant_result` does, which imports the compiler into every start.
_available._dynamo_marked_constant = True  # type: ignore[attr-defined]


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
