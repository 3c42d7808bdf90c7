"""What is a matrix to be moved by a rule, and how many bytes a state takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eckart import optim
from eckart.errors import Refused
from eckart.structures.block_diagonal import BlockDiagonal
from eckart.structures.compose import Chain
from eckart.structures.dense import Dense


class Net(nn.Module):
    """Of everything one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.filters = nn.Conv1d(8, 8, 3)
        self.experts = nn.Parameter(torch.zeros(3, 8, 8))
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.factors = Chain(Dense(torch.zeros(8, 2)), Dense(torch.zeros(2, 8)))
        self.blocks = BlockDiagonal(torch.zeros(2, 4, 4))
        self.hidden = nn.Linear(8, 8)
        self.gate = nn.Linear(8, 1)
        self.norm = nn.LayerNorm(8)
        self.still = nn.Linear(8, 8).requires_grad_(False)
        self.out = nn.Linear(8, 11)


def split(net: nn.Module, **told: object) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of each group."""
    made = optim.groups(net, {"rank": 2}, {"lr": 0.5}, show=False, **told)  # type: ignore[arg-type]
    found = {}
    for group in made:
        kind = group.get("rule", "matrix") + (" stacked" if group.get("stacked") else "")
        found.setdefault(kind, []).extend(tuple(p.shape) for p in group["params"])
    return found


def test_everything_is_in_the_group_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    net = Net()
    assert split(net) == {
        "matrix": [(8, 8, 3), (8, 2), (2, 8), (8, 8)],
        "matrix stacked": [(3, 8, 8), (2, 4, 4)],
        "adamw": [(11, 8), (11, 8), (1, 1, 8), (8,), (8,), (1, 8), (1,), (8,), (8,), (11,)],
    }
    assert capsys.readouterr().out == ""
    made = optim.groups(net, {"rank": 2, "lr": 0.1}, {"lr": 0.5, "weight_decay": 0.2})
    assert "stacks of matrices: 2 tensors, 224 numbers" in capsys.readouterr().out
    assert [group["weight_decay"] for group in made if group.get("rule")] == [0.2, 0.2, 0.0]
    assert sum(len(group["params"]) for group in made) == sum(p.requires_grad for p in net.parameters())
    for name in ("galore", "muon"):
        known = {} if name == "galore" else {"lr": 0.1}
        optim.OPTIMIZERS[name].entry(optim.groups(net, known, show=False))


def test_a_head_is_found_or_said_and_patterns_take_out() -> None:
    net = Net()
    assert (11, 8) in split(net, head="")["matrix"]
    assert (8, 8) not in split(net, head="hidden")["matrix"]
    assert (11, 8) in split(net, head="hidden")["matrix"]
    assert "matrix stacked" not in split(net, exclude=["experts", "blocks*"])
    with pytest.raises(Refused, match="head='nowhere'"):
        split(net, head="nowhere")
    with pytest.raises(Refused, match="requires_grad=False"):
        split(nn.Linear(2, 2).requires_grad_(False))
    assert split(nn.Linear(4, 4))["matrix"] == [(4, 4)]


def test_a_tied_matrix_counts_once_as_an_embedding() -> None:
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 9, bias=False), nn.Embedding(9, 6))
    net[2].weight = net[1].weight
    assert split(net) == {"matrix": [(6, 6)], "adamw": [(9, 6), (6,)]}


def test_bytes_of_torch_s_own_and_of_what_is_shared() -> None:
    held = [nn.Parameter(torch.ones(16, 8)) for _ in range(3)]
    adamw, dct = torch.optim.AdamW(held), optim.DctAdamW(held, rank=2)
    for each in (adamw, dct):
        for p in held:
            p.grad = torch.ones_like(p)
        each.step()
    assert optim.state_bytes(adamw) == {"state": 3 * (2 * 16 * 8 * 4 + 4), "shared": 0}
    # Moments (16, 2) twice, two indices of 8 bytes and counts of 4, a count of steps of 8.
    assert optim.state_bytes(dct) == {"state": 3 * (2 * 16 * 2 * 4 + 2 * 8 + 2 * 4 + 8), "shared": 8 * 8 * 4}
    adamw.state[held[0]]["projector"] = object()
    with pytest.raises(Refused, match="holds a object"):
        optim.state_bytes(adamw)


def test_a_split_by_hand_that_leaves_something_out_is_refused() -> None:
    net = Net()
    made = optim.groups(net, show=False)
    optim.check_groups(net, made)
    first, second = optim.Muon(made[:1]), torch.optim.AdamW(made[1:])
    optim.check_groups(net, [*first.param_groups, *second.param_groups])
    for left in range(len(made)):
        with pytest.raises(Refused, match=r"no group holds .*requires_grad_\(False\)"):
            optim.check_groups(net, made[:left] + made[left + 1 :])
    with pytest.raises(Refused, match=r"no group holds table\.weight, filters\.weight, filters\.bias and \d+ more, wh"):
        optim.check_groups(net, [{"params": [net.experts, net.token]}])
    with pytest.raises(Refused, match=r"two groups hold filters\.weight"):
        optim.check_groups(net, [*made, made[0]])
    net.hidden = nn.Linear(8, 8)
    with pytest.raises(Refused, match=r"no parameter of the model, of shape \(8, 8\), \(8,\): make them anew"):
        optim.check_groups(net, made)
    tied = nn.Sequential(nn.Linear(6, 9, bias=False), nn.Embedding(9, 6))
    tied[1].weight = tied[0].weight
    optim.check_groups(tied, optim.groups(tied, show=False))
