"""An adapter that clients train apart on data of their own, and a server puts together, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eckart.adapters.fedsvd import mean
from eckart.errors import Refused, check_type
from eckart.jobs.adapt.adapter import Adapter


class Federation:
    """One adapter's part in federated learning, as a client or as the server; what travels is lists of arrays.

    All take part with an adapter made by the same `eckart.adapt` call. In each round the server sends `arrays()`, a
    client takes them with `load`, trains, and sends `trained()`; the server puts those together with `average`. The
    lists are those of Flower's `NumPyClient` and of `parameters_to_ndarrays`, and any other transport will do. The
    method may then act on the average: `fedsvd` factors it anew. For other methods this is FedAvg, which for a `lora`
    averages both factors and not their product.

    Args:
        adapter: made by `eckart.adapt`, not merged.

    >>> import torch, eckart
    >>> def made():
    ...     net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    ...     return eckart.Federation(eckart.adapt(net, "fedsvd", rank=4))
    >>> server, clients = made(), [made(), made()]
    >>> for client in clients:
    ...     client.load(server.arrays())  # and trains client.adapter
    >>> server.average([client.trained() for client in clients], weights=[120, 80])
    """

    def __init__(self, adapter: Adapter) -> None:
        check_type("adapter", adapter, Adapter)
        self.adapter = adapter

    def arrays(self) -> list[Any]:
        """All numbers of the paths, as NumPy arrays in an order that depends on the model and the method only."""
        return [_array(tensor) for tensor in self._all().values()]

    def trained(self) -> list[Any]:
        """Those that train: what a client sends."""
        return [_array(p) for p in self._trained().values()]

    def load(self, arrays: Sequence[Any]) -> None:
        """Takes over what `arrays()` gave elsewhere.

        Raises:
            Refused: they are of another adapter, or not finite; nothing is changed then.
        """
        self._copy(self._all(), list(arrays))

    def average(self, clients: Sequence[Sequence[Any]], weights: Sequence[float] | None = None) -> None:
        """Puts the mean of what clients trained in the place of what trains here, and does what the method adds to it.

        Args:
            clients: what `trained()` gave each.
            weights: of each client, such as its number of examples; equal where there are none.

        Raises:
            Refused: no client, arrays of another adapter or not finite, weights that are no shares; nothing is changed
                then.
        """
        own, clients = self._trained(), [list(arrays) for arrays in clients]
        for i, arrays in enumerate(clients):
            if len(arrays) != len(own):
                raise Refused(f"client {i} sends {len(arrays)} arrays where {len(own)} train: send its trained()")
        means = [mean([_numbers(arrays[i]) for arrays in clients], weights) for i in range(len(own))]
        self._copy(own, means)
        if self.adapter.method.server is not None:
            self.adapter.method.server(self.adapter.paths)

    @torch.no_grad()
    def _copy(self, own: dict[str, Tensor], arrays: Sequence[Any]) -> None:
        merged = {place.merged for place in self.adapter.places.values()} - {""}
        if merged:
            raise Refused(f"adapter {min(merged)!r} is merged, and its model would not follow: call unmerge() first")
        found = [_numbers(array) for array in arrays]
        shapes, expected = [tuple(t.shape) for t in found], [tuple(t.shape) for t in own.values()]
        if shapes != expected:
            raise Refused(f"arrays of shapes {shapes[:3]}... are of another adapter, which has {expected[:3]}...")
        found = [new.to(old.dtype) for new, old in zip(found, own.values(), strict=True)]
        for name, tensor in zip(own, found, strict=True):
            if not bool(torch.isfinite(tensor).all()):
                raise Refused(f"{name} is not finite, or too large for {tensor.dtype}")
        for tensor, new in zip(own.values(), found, strict=True):
            tensor.copy_(new)

    def _all(self) -> dict[str, Tensor]:
        return {f"{n}/{leaf}": t for n, path in self.adapter.paths.items() for leaf, t in path.state_dict().items()}

    def _trained(self) -> dict[str, Tensor]:
        return {
            f"{name}/{leaf}": p
            for name, path in self.adapter.paths.items()
            for leaf, p in path.named_parameters()
            if p.requires_grad
        }


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy().copy()


def _numbers(array: Any) -> Tensor:
    """An array as a tensor, integers in float64."""
    try:
        found = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise Refused(f"{type(array).__name__} is no array of numbers that PyTorch reads: {error}") from error
    if found.is_complex():
        raise Refused(f"arrays of {found.dtype} are of no adapter")
    return found if found.is_floating_point() else found.double()
