"""An adapter trained by clients and a server."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch import nn

import eckart
from eckart.errors import Refused
from support.one_layer import normal, steps, stirred


def made(method: str, **options: object) -> eckart.Federation:
    net = nn.Sequential(nn.Linear(36, 24, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(normal(24, 36, seed=1))
    return eckart.Federation(eckart.adapt(net, method, rank=3, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["fedsvd", "lora", "svfit"])
def test_rounds_of_clients_and_a_server(method: str) -> None:
    server, clients = made(method), [made(method), made(method)]
    for turn in range(2):
        for i, client in enumerate(clients):
            client.load(server.arrays())
            assert all(map(numpy.array_equal, client.arrays(), server.arrays()))
            steps(client.adapter.model, client.adapter, 2 + i)
        sent = [client.trained() for client in clients]
        server.average(sent, [1, 3])
        if method == "fedsvd":
            b, a = server.adapter.paths["0"].parameters()
            torch.testing.assert_close(a @ a.T, torch.eye(3), rtol=0, atol=1e-6)
            expected = torch.as_tensor(0.25 * sent[0][0] + 0.75 * sent[1][0]) @ torch.as_tensor(clients[0].arrays()[1])
            torch.testing.assert_close((b @ a).detach(), expected, rtol=1e-4, atol=1e-6)
        else:
            for found, first, second in zip(server.trained(), *sent, strict=True):
                numpy.testing.assert_allclose(found, 0.25 * first + 0.75 * second, rtol=1e-5)
        assert turn == 1 or any(abs(array).max() > 0 for array in server.trained())


def test_arrays_are_copies_and_wrong_ones_change_nothing() -> None:
    server = made("fedsvd", alpha=6.0)
    stirred(server.adapter.paths["0"])
    before = server.arrays()
    before[0][:] = 7
    now = server.arrays()
    assert not (now[0] == 7).any()
    nan = [array * float("nan") for array in now]
    for words, act in {
        "are of another adapter": lambda: server.load(now[:1]),
        "is not finite": lambda: server.load([now[0], nan[1]]),
        "client 1 trained is not finite": lambda: server.average([now[:1], nan[:1]]),
        "client 0 sends 2 arrays where 1 train": lambda: server.average([now]),
        "of another adapter": lambda: server.average([[now[0][:2]]]),
        "there is no client": lambda: server.average([]),
    }.items():
        with pytest.raises(eckart.Refused, match=words):
            act()
        assert all(map(numpy.array_equal, server.arrays(), now))


def test_what_no_adapter_holds_is_refused_and_changes_nothing() -> None:
    server = made("fedsvd")
    before, shapes = server.arrays(), [a.shape for a in server.trained()]
    huge = [numpy.full(shape, 1e300) for shape in shapes]
    for arrays, said in (
        (huge, "too large for torch.float32"),
        ([numpy.ones(shape, complex) for shape in shapes], "complex128"),
        ([object()] * len(shapes), "no array of numbers"),
    ):
        with pytest.raises(Refused, match=said):
            server.average([arrays])
    for weights in (3, ["a"], [0.0]):
        with pytest.raises(Refused, match="weights="):
            server.average([server.trained()], weights)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="adapter"):
        eckart.Federation(None)  # type: ignore[arg-type]
    server.adapter.merge()
    with pytest.raises(Refused, match="is merged"):
        server.load(before)
    server.adapter.unmerge()
    assert all((a == b).all() for a, b in zip(before, server.arrays(), strict=True))
    ones, zeros = ([numpy.full(shape, value, int) for shape in shapes] for value in (1, 0))
    server.average([ones, zeros])
    lora = made("lora")
    lora.average(client for client in ([numpy.full(a.shape, v, int) for a in lora.trained()] for v in (1, 0)))
    assert all((a == 0.5).all() for a in lora.trained())
