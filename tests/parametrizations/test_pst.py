"""PST, step by step beside plain tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import eckart
from eckart.errors import Refused
from eckart.models.checkpoint import manifest, rebuild
from eckart.structures import Masked, Scored
from support import hard
from support.reparametrizing import optimizer_of, perceptron, train
from support.tiny import tiny_llama


def net_of(**options: float) -> tuple[nn.Sequential, eckart.Reparametrization]:
    net = nn.Sequential(nn.Linear(8, 6, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(hard.normal(6, 8))
    return net, eckart.reparametrize(net, "pst", **{"keep": 0.25, "rank": 2, **options})  # type: ignore[arg-type]


def test_steps_are_those_of_the_paper() -> None:
    net, made = net_of(beta=0.5, alpha1=0.3, alpha2=0.2)
    x, y = hard.normal(12, 8, seed=1), hard.normal(12, 6, seed=2)
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    u, v, a, b, r, c = leaves = [net.get_parameter(name).detach().clone() for name in names]
    assert [tuple(t.shape) for t in leaves] == [(6, 2), (2, 8), (6, 2), (2, 8), (6, 1), (1, 8)]
    assert [bool(t.any()) for t in leaves] == [True, False, True, False, False, False]
    w0 = hard.normal(6, 8)
    assert torch.equal(net[0].structure.to_dense(), w0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    hooks = made.schedule(optimizer, 10)
    kept = 48
    for done in range(1, 11):
        hooks.before_step()
        (net(x) - y).square().mean().backward()
        hooks.after_backward()
        optimizer.step()
        hooks.after_step()
        optimizer.zero_grad()
        w = w0 + 0.5 * u @ v
        score = w.abs() + 0.3 * a @ b + 0.2 * (r + c)
        mask = score >= score.flatten().sort().values[48 - kept]
        g = 2 * (x @ (mask * w).T - y).T @ x / y.numel()
        ds = g * w
        dw = mask * g + w.sign() * ds
        u, v = u - 0.05 * 0.5 * dw @ v.T, v - 0.05 * 0.5 * u.T @ dw
        a, b = a - 0.05 * 0.3 * ds @ b.T, b - 0.05 * 0.3 * a.T @ ds
        r, c = r - 0.05 * 0.2 * ds.sum(1, keepdim=True), c - 0.05 * 0.2 * ds.sum(0, keepdim=True)
        for name, expected in zip(names, (u, v, a, b, r, c), strict=True):
            torch.testing.assert_close(net.get_parameter(name).detach(), expected)
        share = 1.0 if done <= 1 else 0.25 + 0.75 * max(0.0, 1 - (done - 1) / 6) ** 3
        kept = round(48 * share)
        assert int(net[0].structure.kept) == kept
    assert kept == 12
    dense = net[0].structure.to_dense().detach()
    made.finish()
    assert isinstance(net[0].structure, Masked)
    assert net[0].structure.cost().parameters == 12
    assert torch.equal(net[0].structure.to_dense(), dense)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_end_with_just_the_share_that_is_kept(steps: int) -> None:
    net = perceptron()
    made = eckart.reparametrize(net, "pst", keep=0.2, rank=2)
    optimizer = optimizer_of(net)
    train(net, made.schedule(optimizer, steps), optimizer, steps)
    for structure in made.structures.values():
        out, columns = structure.shape
        assert int((structure.to_dense() != 0).sum()) == round(0.2 * out * columns)


def test_without_scores_the_largest_stay() -> None:
    net, made = net_of(alpha1=0.0, alpha2=0.0)
    optimizer = optimizer_of(net)
    x, y = hard.normal(12, 8, seed=1), torch.arange(12) % 6
    train(net, made.schedule(optimizer, 8), optimizer, 8, (x, y))
    structure = net[0].structure
    assert isinstance(structure, Scored)
    w = structure.matrix.to_dense().detach()
    expected = w * (w.abs() >= w.abs().flatten().sort().values[36])
    assert torch.equal(structure.to_dense().detach(), expected)


def test_what_is_frozen_is_frozen_in_a_file_too(tmp_path: Path) -> None:
    net, _ = net_of()
    eckart.save(net, tmp_path / "net")
    model = tiny_llama()
    eckart.reparametrize(model, "pst", keep=0.5, rank=2)
    model.save_pretrained(tmp_path / "model")
    again = eckart.load(tmp_path / "net", nn.Sequential(nn.Linear(8, 6, bias=False)).double())
    for one, other in ((net, again), (model, AutoModelForCausalLM.from_pretrained(tmp_path / "model"))):
        trains = {name: p.requires_grad for name, p in one.named_parameters()}
        assert trains == {name: p.requires_grad for name, p in other.named_parameters()}
        assert set(trains.values()) == {True, False}


def test_a_file_cannot_freeze_what_is_not_there() -> None:
    net, _ = net_of()
    entry = manifest(net)["modules"]["0"]
    for wrong in (["matrix.parts.2.weight"], "scores", [0]):
        with pytest.raises(Refused, match="what does not train"):
            rebuild(nn.Sequential(nn.Linear(8, 6, bias=False)), {"0": {**entry, "frozen": wrong}})


def test_wrong_options_are_refused() -> None:
    for words, options in {
        r"keep=0 is not in \(0, 1\]": {"keep": 0},
        r"rank=7 is not in 1\.\.6": {"rank": 7},
        r"alpha1=-1.* must be finite and at least 0": {"alpha1": -1.0},
        "beta=inf": {"beta": float("inf")},
    }.items():
        with pytest.raises(Refused, match=words):
            net_of(**options)
