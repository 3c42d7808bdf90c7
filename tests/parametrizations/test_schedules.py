"""What a schedule can do: move the places of entries, renew a basis and forget moments, keep a fixed support."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import eckart
from eckart.parametrizations.contract import (
    PARAMETRIZATIONS,
    Layer,
    Schedule,
    Step,
    Structures,
    parametrization,
)
from eckart.structures import Chain, Dense, Diagonal, Masked, Scattered, Sum, low_rank
from support.reparametrizing import optimizer_of, perceptron, pictures, same, train


class Regrown(Schedule):
    """Every third step the smallest entries move to where the gradient of the whole matrix is largest."""

    def __init__(self, structures: Structures, steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self.structures = {name: s for name, s in structures.items() if isinstance(s, Scattered)}
        self.slopes: dict[str, Tensor] = {}
        for name, structure in self.structures.items():
            structure.watch = self._seen(name)

    def _seen(self, name: str) -> Callable[[Tensor], None]:
        def seen(slope: Tensor) -> None:
            self.slopes[name] = slope

        return seen

    def after_step(self, step: Step) -> None:
        if (step.done + 1) % 3:
            return
        for name, structure in self.structures.items():
            with torch.no_grad():
                count = len(structure.values) // 4
                least = structure.values.abs().topk(count, largest=False).indices
                slope = self.slopes[name].abs()
                slope[tuple(structure.places.long())] = 0
                best = slope.flatten().topk(count).indices
                places = torch.stack((best // structure.shape[1], best % structure.shape[1]))
                structure.places[:, least] = places.to(structure.places)
                structure.values[least] = 0
                step.forget(
                    structure.values, torch.zeros_like(structure.values, dtype=torch.bool).index_fill(0, least, True)
                )


class Renewed(Schedule):
    """Every third step U diag(s) V becomes its own SVD, and one drawn column starts without a memory."""

    def __init__(self, structures: Structures, steps: int, generator: torch.Generator) -> None:
        super().__init__()
        self.structures, self.generator = structures, generator
        self.state = {"rounds": torch.zeros((), dtype=torch.int64)}

    def after_step(self, step: Step) -> None:
        if (step.done + 1) % 3:
            return
        self.state["rounds"] = self.state["rounds"] + 1
        for structure in self.structures.values():
            u, s, v = structure.operands()
            with torch.no_grad():
                left, values, right = torch.linalg.svd(structure.to_dense(), full_matrices=False)
                u.weight.copy_(left), s.weight.copy_(values), v.weight.copy_(right)
            drawn = int(torch.randint(len(s.weight), (1,), generator=self.generator))
            columns = torch.arange(len(s.weight)) == drawn
            step.forget(u.weight, columns)
            step.forget(v.weight, columns[:, None])


def scattered(layer: Layer) -> Scattered:
    """A quarter of the places, drawn, each with a number that trains."""
    out, columns = layer.shape
    chosen = torch.randperm(out * columns, generator=layer.generator)[: out * columns // 4]
    places = torch.stack((chosen // columns, chosen % columns))
    return Scattered(layer.weight[tuple(places)].clone(), places, out=out, columns=columns)


def spectral(layer: Layer) -> Chain:
    """U diag(s) V, which trains in all three."""
    u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
    return Chain(Dense(u), Diagonal(s), Dense(v))


def supported(layer: Layer, *, rank: int = 2) -> Sum:
    """Low rank beside a fixed drawn support."""
    out, columns = layer.shape
    kept = torch.rand(out, columns, generator=layer.generator) < 0.1
    zero = torch.zeros(out, rank, dtype=layer.weight.dtype)
    return Sum(low_rank(zero, layer.normal(rank, columns, variance=1.0)), Masked.from_dense(layer.weight, kept))


TOYS = {"toy-scattered": (scattered, Regrown), "toy-spectral": (spectral, Renewed), "toy-supported": (supported, None)}


@pytest.fixture(params=TOYS)
def method(request: pytest.FixtureRequest) -> Iterator[str]:
    entry, schedule = TOYS[request.param]
    parametrization(request.param, paper="none", expression="", schedule=schedule)(entry)
    yield request.param
    del PARAMETRIZATIONS._cards[request.param]


def test_schedules_of_other_papers_train_and_go_on(method: str) -> None:
    def run(model: nn.Module, steps: int) -> tuple[eckart.StepHooks, torch.optim.Optimizer, list[float]]:
        result = eckart.reparametrize(model, method, seed=1)
        optimizer = optimizer_of(model)
        hooks = result.schedule(optimizer, 24)
        return hooks, optimizer, train(model, hooks, optimizer, steps)

    model = perceptron()
    whole, _, losses = run(model, 24)
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    half = perceptron()
    hooks, optimizer, _ = run(half, 11)
    again = perceptron(seed=7)
    others, fresh, _ = run(again, 0)
    again.load_state_dict(half.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    others.load_state_dict(hooks.state_dict())
    train(again, others, fresh, 13)
    assert same(again.state_dict(), model.state_dict())
    assert same(others.state_dict(), whole.state_dict())


def test_an_optimizer_forgets_just_what_it_is_told() -> None:
    model = perceptron()
    optimizer = optimizer_of(model)
    nn.functional.cross_entropy(model(pictures()[0]), pictures()[1]).backward()
    optimizer.step()
    weight = model[1].weight
    before = {name: value.clone() for name, value in optimizer.state[weight].items()}
    where = torch.zeros(64, dtype=torch.bool)
    where[3] = True
    Step(0, 1, optimizer).forget(weight, where)
    for name, value in optimizer.state[weight].items():
        expected = before[name]
        if expected.shape == weight.shape:
            assert not value[:, 3].any()
            expected[:, 3] = 0
        assert torch.equal(value, expected)
    Step(0, 1, optimizer).forget(torch.zeros(3), torch.ones(3, dtype=torch.bool))
    nested = torch.optim.SGD(model.parameters(), lr=0.1)
    nested.state[weight]["matrix0"] = {"m": torch.ones_like(weight), "basis": torch.ones(3)}
    Step(0, 1, nested).forget(weight, where)
    kept = nested.state[weight]["matrix0"]
    assert torch.equal(kept["m"] == 0, where.expand(weight.shape)) and kept["basis"].all()  # noqa: PT018
