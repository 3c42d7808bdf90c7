"""Products of Jacobians by three routes against Jacobians that are computed in full."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.linalg.jacobian_products import columns_of_layers, gram_of_layers, jacobian_gram


class Tokens(nn.Module):
    """A linear layer that sees three places of each input, and is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.reshape(len(x), 3, 4)
        return self.head(self.inner(self.inner(y).tanh()).tanh().mean(1))


def full(module: nn.Module, x: Tensor, names: list[str]) -> Tensor:
    """(n, o, P), one gradient after the other."""
    leaves = [dict(module.named_parameters())[name] for name in names]
    rows = []
    for one in x:
        gradients = [torch.autograd.grad(f, leaves, retain_graph=True) for f in module(one[None]).reshape(-1)]
        rows.append(torch.stack([torch.cat([g.flatten() for g in each]) for each in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["mlp", "tokens", "filters"])
def test_all_routes_are_the_product_of_jacobians(kind: str) -> None:
    torch.manual_seed(0)
    module: nn.Module = {
        "mlp": lambda: nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2, bias=False)),
        "tokens": Tokens,
        "filters": lambda: nn.Sequential(nn.Unflatten(1, (1, 12)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(20, 2)),
    }[kind]().double()
    x, z = (torch.randn(n, 12, dtype=torch.float64) for n in (5, 3))
    every = [name for name, _ in module.named_parameters()]
    for names in (every, every[-1:]):
        expected = torch.einsum("nop,mqp->nmoq", full(module, x, names), full(module, z, names))
        for route in ("auto", "jacobian", "products"):
            found = jacobian_gram(module, x, z, names=names, outputs="all", route=route, tile=2)
            torch.testing.assert_close(found, expected)
            mean = jacobian_gram(module, x, z, names=names, route=route, tile=2)
            torch.testing.assert_close(mean, expected.diagonal(dim1=2, dim2=3).mean(2))
            summed = jacobian_gram(module, x, z, names=names, outputs="sum", route=route)
            torch.testing.assert_close(summed, expected.sum((2, 3)) / 2)
            torch.testing.assert_close(jacobian_gram(module, x, z, names=names, outputs=1), expected[:, :, 1, 1])
    if kind == "filters":
        with pytest.raises(Refused, match="route='jacobian'"):
            jacobian_gram(module, x, route="layers")


def test_columns_are_those_of_the_matrix() -> None:
    pairs = [(torch.randn(6, s, 3, dtype=torch.float64), torch.randn(6, s, 2, dtype=torch.float64)) for s in (1, 4)]
    whole = gram_of_layers(pairs, pairs)
    diagonal, column = columns_of_layers(pairs)
    torch.testing.assert_close(diagonal, whole.diagonal())
    torch.testing.assert_close(torch.stack([column(i) for i in range(6)], 1), whole)


def test_what_has_no_such_jacobian_is_refused() -> None:
    x = torch.randn(4, 3)
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    with pytest.raises(Refused, match=r"eval\(\)"):
        jacobian_gram(net, x)
    net.eval()
    for wrong in ({"names": ["2.weight"]}, {"outputs": 2}, {"outputs": "max"}, {"tile": 0}, {"route": "fast"}):
        with pytest.raises(Refused):
            jacobian_gram(net, x, **wrong)
    with pytest.raises(Refused, match="needed"):
        jacobian_gram(nn.Conv1d(3, 2, 1), torch.randn(4, 3, 5))
