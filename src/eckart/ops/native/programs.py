"""Programs that are made once and run again, for one matrix or for several multiplied in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from eckart.ops.native.assembly import ON_STACK, Assembled, Term, assembled
from eckart.ops.native.layouts import FLOATS, STACK, Layout, Leaves, Options
from eckart.ops.native.library import Library, loaded


class Remembered:
    """A program and the tensors that it was made for; it is made anew when one of them is another or lies elsewhere.

    Nothing that could be trained is copied.
    """

    __slots__ = ("_like", "_program", "_seen")

    def __init__(self) -> None:
        self._like: Tensor | None = None
        self._seen: list[tuple[Tensor | None, int, object, object, object, int]] | None = None
        self._program: Assembled | None = None

    def program(self, leaves: Leaves, make: Callable[[], Assembled | None], indexed: bool) -> Assembled | None:
        """The program for these tensors.

        Args:
            leaves: all that it reads.
            make: assembles it.
            indexed: whether integers among them are indices, to be looked at whenever they are written to.

        Raises:
            RuntimeError: one of them has no address.
        """
        seen = self._seen
        if seen is not None:
            for leaf, (old, address, dtype, shape, stride, version) in zip(leaves, seen, strict=True):
                if leaf is not old:
                    break
                if leaf is None:
                    continue
                if (
                    leaf.data_ptr() != address
                    or leaf.dtype != dtype
                    or leaf.shape != shape
                    or leaf.stride() != stride
                    or (version and _version(leaf) != version)
                ):
                    break
            else:
                return self._program
        self._like = None
        self._program = make()
        self._seen = [_lie(leaf, indexed) for leaf in leaves]
        return self._program

    def run(self, library: Library, program: Assembled, x: Tensor) -> Tensor:
        """The product with x (..., columns), which has an address and one value at least, in its dtype.

        Args:
            library: the compiled library.
            program: what `program` gave.
            x: (..., columns).
        """
        if not x.is_contiguous() or x.is_neg():
            x = x.resolve_neg().contiguous()
        dtype, vectors, needed = x.dtype, x.numel() // program.columns, program.scratch
        # Made like another, which takes half the time: that one is a number that is said to be as large.
        like = self._like
        if like is None or like.dtype is not dtype or like.shape[:-1] != x.shape[:-1]:
            like = torch.empty(1, dtype=dtype, device="cpu").expand(*x.shape[:-1], program.rows)
            self._like = like
        y = torch.empty_like(like, memory_format=torch.contiguous_format)
        if dtype is not torch.float32:
            needed += program.columns + program.rows
        on_stack = needed * vectors <= ON_STACK
        room = None if on_stack else torch.empty(needed * vectors, dtype=torch.float32, device="cpu")
        library.multiply(
            library.threads,
            library.number,
            program.address,
            vectors,
            x.data_ptr(),
            y.data_ptr(),
            FLOATS[dtype],
            None if room is None else room.data_ptr(),
        )
        return y


def _lie(leaf: Tensor | None, indexed: bool) -> tuple[Tensor | None, int, object, object, object, int]:
    """A tensor, and all that says which bytes it is made of and how."""
    if leaf is None:
        return None, 0, None, None, None, 0
    version = _version(leaf) if indexed else 0
    return leaf, leaf.data_ptr(), leaf.dtype, leaf.shape, leaf.stride(), version


def _version(leaf: Tensor) -> int:
    """A number that grows when indices are written to; 0 for a tensor that holds none.

    Tensors that were made in inference mode do not count what is written to them, and are looked at once.
    """
    return 0 if leaf.is_floating_point() or leaf.is_inference() else leaf._version + 1


def plain(x: Tensor, leaves: Leaves) -> bool:
    """Whether C may multiply: on the CPU, in a dtype among `FLOATS`, with no autocast, gradient or tangent wanted."""
    return not (
        not x.is_cpu
        or x.dtype not in FLOATS
        or torch.is_autocast_enabled("cpu")
        or forward_ad._current_level >= 0
        or (torch.is_grad_enabled() and (x.requires_grad or any(t is not None and t.requires_grad for t in leaves)))
    )


def available(x: Tensor) -> Library | None:
    """The library, where nothing traces and x is a tensor like any other."""
    if torch._C._is_tracing() or type(x) not in (Tensor, nn.Parameter):
        return None
    return loaded()


class Part(NamedTuple):
    """A `Term` whose tensors are looked up: each is `table[name]`, so that one that was put in its place is found."""

    layout: Layout
    tables: tuple[tuple[Mapping[str, Tensor | None], str], ...]
    options: Options
    source: int = -1


Recipe = tuple[tuple[Part, ...], ...]
"""The parts of each stage."""


class Program(Remembered):
    """Multiplies by all matrices of a recipe in one call; one belongs to each structure that has such a recipe."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[Program], tuple[()]]:
        return Program, ()  # copies have tensors of their own

    def __call__(self, x: Tensor, recipe: Recipe, leaves: Leaves, bias: Tensor | None) -> Tensor | None:
        """`x @ W.T + bias` in x's dtype, for a few vectors x (..., columns); None where PyTorch is to be used instead.

        That is where `products.Product` gives None, and where something is compiled, exported or watched. Sums and
        what one stage hands to the next are float32; the outcome is rounded once.

        Args:
            x: (..., columns).
            recipe: of W.
            leaves: the tensors of all its parts, one after another, and the bias.
            bias: (rows,) or None.
        """
        if not plain(x, leaves) or _get_current_dispatch_mode() is not None:
            return None
        library = available(x)
        if library is None:
            return None

        def make() -> Assembled | None:
            rest = iter(leaves)
            stages = [
                [Term(p.layout, [next(rest) for _ in p.tables], p.options, p.source) for p in parts] for parts in recipe
            ]
            return assembled(library, stages, bias)

        try:
            program = self.program(leaves, make, True)
            if program is None or not x.ndim or x.shape[-1] != program.columns or not x.numel():
                return None
            x.data_ptr()
        except RuntimeError:  # no address: a tensor of vmap, or another that only stands for one
            return None
        if program.widest > STACK and x.numel() > program.columns:
            return None
        return self.run(library, program, x)
