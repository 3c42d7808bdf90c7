"""What every structure is: a matrix W of shape (out, in) stored as something smaller than out x in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.ops.native.programs import Recipe


@dataclass(frozen=True)
class Cost:
    """What a matrix costs to store and to apply.

    Attributes:
        parameters: stored values (entries of float leaves, or codes); indices and scales of codes are not values.
        bytes: bytes of all leaves as a file stores them, indices, scales and padding included.
        macs: multiply-adds to apply the matrix to one vector.
    """

    parameters: int
    bytes: int
    macs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.bytes + other.bytes, self.macs + other.macs)


Spec = dict[str, Any]
KINDS: dict[str, type[StructuredMatrix]] = {}
S = TypeVar("S", bound="type[StructuredMatrix]")


class _Register(Protocol):
    def __call__(self, cls: S) -> S: ...


def structure(kind: str) -> _Register:
    """Class decorator that names a structure in files: `@structure("dense")`."""

    def register(cls: S) -> S:
        if kind in KINDS:
            raise Refused(f"structure kind {kind!r} is taken by {KINDS[kind].__name__}")
        cls.kind = kind
        KINDS[kind] = cls
        return cls

    return register


class StructuredMatrix(nn.Module):
    """A matrix W of shape (out, in), applied as `x @ W.T`.

    A subclass takes its leaves (tensors) and children (structures) as constructor arguments, checks that their
    shapes fit, calls `super().__init__((out, in))` and registers float leaves with `self.leaf(name, tensor)`.
    Values are never read in a constructor, so that every structure can be built on the meta device; what only the
    values can tell (an index out of range) belongs in `check_values`.

    Attributes:
        kind: the name of the structure in files.
        shape: (out, in).
    """

    kind: ClassVar[str]

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        out, columns = shape
        if out < 1 or columns < 1:
            raise Refused(f"{type(self).__name__} needs a shape of at least (1, 1), got {tuple(shape)}")
        self.shape = (int(out), int(columns))

    def leaf(self, name: str, tensor: Tensor) -> None:
        """Registers a tensor: a trainable Parameter if it is floating point, else a buffer."""
        if isinstance(tensor, nn.Parameter):
            self.register_parameter(name, tensor)
        elif tensor.is_floating_point():
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)

    def leaves(self) -> dict[str, Tensor]:
        """The tensors of this node alone, by name, without those of its children."""
        named = {**self._parameters, **self._buffers}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def options(self) -> dict[str, Any]:
        """Constructor arguments besides leaves and children, as JSON values."""
        return {}

    def operands(self) -> list[StructuredMatrix]:
        """The children, in constructor order."""
        return []

    @property
    def linear(self) -> bool:
        """Whether it is a matrix: what drops some of its work depending on the input is none, and has no dense form."""
        return all(child.linear for child in self.operands())

    def check_linear(self) -> None:
        """Raises Refused that names the part which depends on its input, where there is one."""
        if self.linear:
            return
        for part in self.modules():
            if isinstance(part, StructuredMatrix) and not part.linear and all(c.linear for c in part.operands()):
                raise Refused(
                    f"{type(part).__name__} depends on its input: it has no matrix to be written out, looked up in or "
                    "merged into"
                )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first float leaf; float32 where there is none."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    @property
    def device(self) -> torch.device:
        """The device of the first leaf; cpu where there is none."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def forward(self, x: Tensor) -> Tensor:
        """`x @ W.T`: (..., in) -> (..., out)."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def affine(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x @ W.T + bias`, bias (out,)."""
        return self.forward(x) + bias

    def recipe(self) -> Recipe | None:
        """How compiled code multiplies by it, as one matrix or several; None where it does not."""
        return None

    def to_dense(self) -> Tensor:
        """W as a dense (out, in) tensor in the structure's dtype; Refused where it is no matrix, see `linear`."""
        self.check_linear()
        columns: Tensor = self(torch.eye(self.shape[1], dtype=self.dtype, device=self.device))
        return columns.T

    def rows(self, index: Tensor) -> Tensor:
        """W[index]: integer index (...) -> (..., in). Structures that can pick rows without forming W override this."""
        return self.to_dense()[index]

    def cost(self) -> Cost:
        """What this matrix costs; a leaf-only structure whose macs are its float entries need not override it."""
        own = self.leaves().values()
        values = sum(t.numel() for t in own if t.is_floating_point())
        total = Cost(values, sum(t.numel() * t.element_size() for t in own), values)
        for child in self.operands():
            total = total + child.cost()
        return total

    def check_values(self) -> None:
        """Raises Refused where a loaded value is impossible (an index out of range); recursive."""
        for child in self.operands():
            child.check_values()

    def spec(self) -> Spec:
        """JSON description: kind, shape, leaves' shapes and dtypes, options, children. `from_spec` reverses it."""
        spec: Spec = {"kind": self.kind, "shape": list(self.shape)}
        if leaves := self.leaves():
            spec["leaves"] = {n: [str(t.dtype).removeprefix("torch."), *t.shape] for n, t in leaves.items()}
        if options := self.options():
            spec["options"] = options
        if operands := self.operands():
            spec["children"] = [child.spec() for child in operands]
        return spec

    def extra_repr(self) -> str:
        return f"{self.shape[0]}x{self.shape[1]}, {self.cost().bytes} bytes"
