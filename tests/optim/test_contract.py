"""What every optimizer of the register has to do, whatever its rule is."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from eckart.errors import Refused
from eckart.optim import _moments, state_bytes
from eckart.optim.adam_s import pattern
from eckart.optim.contract import MatrixOptimizer
from support.together import CLASSES, both, optim
from support.together import small as made
from tests.support.elsewhere import elsewhere, moved

each_optimizer = pytest.mark.parametrize("name", CLASSES)
SHAPES = {
    "scalar": (),
    "vector": (5,),
    "row": (1, 8),
    "tall": (6, 4),
    "wide": (4, 12),
    "filters": (4, 2, 2, 4),
    "depthwise": (6, 1, 2, 2),
    "empty": (0, 4),
}
FEW = {name: SHAPES[name] for name in ("vector", "tall", "filters")}


def parameters(dtype: torch.dtype = torch.float32, **shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in (shapes or SHAPES).values()]


def steps(optimizer: MatrixOptimizer, held: list[nn.Parameter], first: int, count: int, sign: float = 1.0) -> None:
    """Steps along gradients that depend on the number of the step only."""
    for step in range(first, first + count):
        generator = torch.Generator().manual_seed(100 + step)
        for p in held:
            p.grad = (sign * torch.randn(p.shape, generator=generator)).to(p.dtype).to(p.device)
        optimizer.step()


def tensors(held: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a state, by their places in it."""
    if isinstance(held, Tensor):
        yield name, held
    else:
        for key, each in held.items():
            yield from tensors(each, f"{name}/{key}")


def by_torch(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def by_safetensors(state: dict[str, Any]) -> dict[str, Any]:
    flat = {name: x.contiguous() for name, x in tensors(state["state"])}
    loaded = safetensors.torch.load(safetensors.torch.save(flat))
    nested: dict[Any, Any] = {}
    for name, x in loaded.items():
        number, *path, last = name[1:].split("/")
        place = nested.setdefault(int(number), {})
        for key in path:
            place = place.setdefault(key, {})
        place[last] = x
    return {"state": nested, "param_groups": json.loads(json.dumps(state["param_groups"]))}


@each_optimizer
@pytest.mark.parametrize("bits", [32, 8])
def test_an_interrupted_run_goes_on_bit_for_bit(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_moments, "LEAST", 4)
    whole = parameters(**FEW, stack=(2, 5, 4))
    optimizer = made(name, [{"params": whole, "stacked": True}], bits=bits, weight_decay=0.01)
    steps(optimizer, whole, 0, 4)
    state, held = optimizer.state_dict(), [p.detach().clone() for p in whole]
    if bits == 8:
        assert any(x.dtype in (torch.int8, torch.uint8) for _, x in tensors(state["state"]))
    others = []
    for loaded in (by_torch(state), by_safetensors(state)):
        parted = [nn.Parameter(p.clone()) for p in held]
        again = made(name, [{"params": parted, "stacked": True}], bits=bits, lr=1.0)
        again.load_state_dict(loaded)
        steps(again, parted, 4, 20)
        others.append(parted)
    steps(optimizer, whole, 4, 20)
    for parted in others:
        assert all(torch.equal(a, b) for a, b in zip(whole, parted, strict=True))


@each_optimizer
def test_a_state_that_is_loaded_into_other_dtypes_keeps_its_own(name: str) -> None:
    held = parameters()
    optimizer = made(name, held)
    steps(optimizer, held, 0, 4)
    state = optimizer.state_dict()
    for dtype in (torch.bfloat16, torch.float64):
        other = parameters(dtype)
        again = made(name, other)
        again.load_state_dict(copy.deepcopy(state))
        for (place, before), (same, after) in zip(
            tensors(state["state"]), tensors(again.state_dict()["state"]), strict=True
        ):
            assert place == same
            if dtype == torch.bfloat16:
                assert before.dtype == after.dtype
            assert torch.equal(before.double(), after.double())
        steps(again, other, 4, 4)
        assert all(torch.isfinite(p).all() for p in other)


@each_optimizer
def test_weights_of_16_bits_move_under_tiny_steps(name: str) -> None:
    def moved(dtype: torch.dtype, lr: float) -> list[Tensor]:
        held = [nn.Parameter(p.detach().bfloat16().to(dtype)) for p in parameters(a=(6, 8), b=(6,))]
        starts = [p.detach().clone() for p in held]
        optimizer = made(name, held, lr=lr, **({"decay": 0.0} if name == "adam-s" else {}))
        for step in range(200):
            for i, p in enumerate(held):
                drawn = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
                noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 + step))
                p.grad = (drawn + 0.1 * noise).to(torch.bfloat16).to(dtype)
            optimizer.step()
        return [p.detach().double() - start.double() for p, start in zip(held, starts, strict=True)]

    far = [float(each.norm()) for each in moved(torch.float64, 1e-6)]
    for i, size in enumerate(far):
        lr = 1e-6 * 0.05 * float(parameters(a=(6, 8), b=(6,))[i].detach().norm()) / size
        exact, narrow = moved(torch.float64, lr)[i], moved(torch.bfloat16, lr)[i]  # a step is a 4000th of the weights
        assert float((narrow - exact).norm()) < 0.1 * float(exact.norm())


@each_optimizer
def test_groups_have_options_of_their_own(name: str) -> None:
    first, second, vector = parameters(a=(6, 4), b=(4, 8), c=(4, 4))
    optimizer = made(name, [{"params": [first], "lr": 0.0}])
    optimizer.add_param_group({"params": [second], "lr": torch.tensor(0.02)})
    optimizer.add_param_group({"params": [vector], "rule": "adamw", "lr": 0.03, "weight_decay": 0.1})
    adamw = nn.Parameter(vector.detach().clone())
    reference = torch.optim.AdamW([adamw], lr=0.03, weight_decay=0.1, betas=optimizer.defaults["betas"])
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    starts = first.detach().clone(), second.detach().clone()
    for step in range(4):
        steps(optimizer, [first, second, vector], step, 1)
        assert vector.grad is not None
        adamw.grad = vector.grad.clone()
        reference.step()
        reference.param_groups[0]["lr"] *= 0.5
        schedule.step()
    assert torch.equal(first, starts[0])
    assert not torch.equal(second, starts[1])
    torch.testing.assert_close(vector, adamw)


@each_optimizer
def test_bad_options_are_refused_and_leave_no_group_behind(name: str) -> None:
    held = parameters(a=(6, 4))
    optimizer = made(name, held)
    bad = [
        {"lr": -1.0},
        {"lr": "a"},
        {"lr": None},
        {"rule": "sgd"},
        {"bits": 4},
        {"betas": (0.9, 1.0)},
        {"weight_decay": float("nan")},
        {"lro": 1},
    ]
    bad += [{option: low - 1} for option, (low, _) in optimizer.LIMITS.items()]
    bad += [{option: "?"} for option in optimizer.CHOICES]
    bad += [{"rank": 1.5}] if "rank" in optimizer.defaults else []
    for option in bad:
        with pytest.raises(Refused, match=f"{next(iter(option))}"):
            optimizer.add_param_group({"params": parameters(b=(4, 4)), **option})
    with pytest.raises(Refused, match="complex64"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2, dtype=torch.complex64))]})
    assert len(optimizer.param_groups) == 1


@each_optimizer
def test_a_gradient_of_zeros_decays_and_none_does_nothing(name: str) -> None:
    held, still = parameters(), nn.Parameter(torch.ones(4, 4))
    still_decay = {"decay": 0.0} if name == "adam-s" else {}
    optimizer = made(name, [*held, still], weight_decay=0.5, **still_decay)
    starts = [p.detach().clone() for p in held]
    for _ in range(4):
        for p in held:
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for p, start in zip(held, starts, strict=True):
        torch.testing.assert_close(p.detach(), start * (1 - 0.01 * 0.5) ** 4)
    assert torch.equal(still, torch.ones(4, 4))
    assert still not in optimizer.state


@each_optimizer
def test_a_gradient_that_is_not_finite_stops_nothing(name: str) -> None:
    held = parameters(**FEW)
    optimizer = made(name, held)
    for value in (float("nan"), 1.0, float("inf"), 0.0, 1.0, 1.0, 1.0):
        for p in held:
            p.grad = torch.full_like(p, value)
        optimizer.step()
    for place, x in tensors(optimizer.state_dict()["state"]):
        if place.rpartition("/")[2] in ("basis", "L", "R", "Q_L", "Q_R", "gradients", "packed", "grid"):
            assert torch.isfinite(x).all(), place


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 4, sparse=True)
    optimizer = made("muon", table.parameters())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(Refused, match=r"shape \(5, 4\) is sparse"):
        optimizer.step()


@each_optimizer
def test_every_shape_moves_and_strides_do_not_matter(name: str) -> None:
    held = parameters()
    plain, strided = [[nn.Parameter(p.detach().clone()) for p in held] for _ in range(2)]
    for p in strided:
        if p.ndim == 2:
            p.data = torch.empty_strided(p.shape, (1, len(p) + 1)).copy_(p.data)
        elif p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    for each in (plain, strided):
        steps(made(name, each), each, 0, 5)
    for p, q, start in zip(plain, strided, held, strict=True):
        assert torch.isfinite(p).all()
        assert p.numel() == 0 or not torch.equal(p, start)
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    column = nn.Parameter(torch.ones(5, 1))
    if name == "adam-s":
        with pytest.raises(Refused, match=r"shape \(5, 1\) has no whole groups of 4 columns"):
            steps(made(name, [column]), [column], 0, 1)
    else:
        steps(made(name, [column]), [column], 0, 3)
        assert not torch.equal(column, torch.ones(5, 1))


@each_optimizer
def test_a_stack_is_so_many_matrices(name: str) -> None:
    (stack,) = parameters(a=(2, 5, 4))
    one, other = (nn.Parameter(each.clone()) for each in stack.detach())
    apart, together = made(name, [one, other]), made(name, [{"params": [stack], "stacked": True}])
    for step in range(5):
        steps(together, [stack], step, 1)
        assert stack.grad is not None
        one.grad, other.grad = stack.grad.unbind()
        apart.step()
    if name not in ("apollo", "apollo-mini", "dion"):  # which draw for each matrix by its number
        torch.testing.assert_close(stack.detach(), torch.stack([one, other]).detach())
    else:
        torch.testing.assert_close(stack.detach()[0], one.detach())


@each_optimizer
def test_gradients_closures_and_random_numbers_are_left_alone(name: str) -> None:
    held = parameters()
    optimizer = made(name, held)
    steps(optimizer, held, 0, 1)
    kept, random = [p.grad.clone() for p in held if p.grad is not None], torch.get_rng_state()

    def closure() -> float:
        assert torch.is_grad_enabled()
        return 3.5

    assert optimizer.step(closure) == 3.5
    assert all(torch.equal(p.grad, g) for p, g in zip(held, kept, strict=True) if p.grad is not None)
    assert torch.equal(torch.get_rng_state(), random)


@each_optimizer
def test_maximize_is_the_other_sign_and_a_copy_goes_the_same_way(name: str) -> None:
    up, down = parameters(), parameters()
    climbing, falling = made(name, up, maximize=True), made(name, down)
    steps(climbing, up, 0, 3)
    steps(falling, down, 0, 3, sign=-1.0)
    assert all(torch.equal(a, b) for a, b in zip(up, down, strict=True))
    copied, optimizer = copy.deepcopy((down, falling))
    steps(optimizer, copied, 3, 4)
    steps(falling, down, 3, 4)
    assert all(torch.equal(a, b) for a, b in zip(copied, down, strict=True))


def test_the_state_of_another_optimizer_is_refused() -> None:
    held = parameters()
    other = torch.optim.AdamW(held)
    with pytest.raises(Refused, match="state of another optimizer, not of muon"):
        made("muon", held).load_state_dict(other.state_dict())
    with pytest.raises(Refused, match="state of galore, not of muon"):
        made("muon", held).load_state_dict(made("galore", held).state_dict())


@each_optimizer
def test_moments_of_8_bits_go_nearly_the_same_way(name: str) -> None:
    start = torch.randn(72, 64, generator=torch.Generator().manual_seed(2)) / 8
    target = torch.randn(72, 64, generator=torch.Generator().manual_seed(3)) / 8
    found = []
    for bits in (32, 8):
        p = nn.Parameter(start.clone())
        optimizer = (
            made(name, [p], bits=bits, rank=64) if "rank" in made(name, [p]).defaults else made(name, [p], bits=bits)
        )
        for _ in range(8):
            p.grad = p.detach() - target
            optimizer.step()
        found.append(p.detach() - start)
    assert float((found[1] - found[0]).norm() / found[0].norm()) < 0.15


@each_optimizer
def test_a_loss_falls_compiled_and_accumulated_alike(name: str) -> None:
    x, y = (torch.randn(32, 8, generator=torch.Generator().manual_seed(i)) for i in (4, 5))
    found = []
    for compiled, parts in ((False, 1), (True, 1), (False, 2)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))
        run = torch.compile(net, backend="eager") if compiled else net
        optimizer = (
            made(name, net.parameters(), rank=8)
            if "rank" in made(name, net.parameters()).defaults
            else made(name, net.parameters())
        )
        losses = []
        for _ in range(30):
            for a, b in zip(x.chunk(parts), y.chunk(parts), strict=True):
                loss = (run(a) - b).square().mean() / parts
                loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
            optimizer.zero_grad()
        assert losses[-1] < losses[0]
        found.append([p.detach() for p in net.parameters()])
    for p, q, r in zip(*found, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
        if name != "soap":  # whose eigenvectors without a gradient are any
            torch.testing.assert_close(p, r, rtol=0.02, atol=0.02)


RATES = {"galore": 1.0, "fira": 1.0, "q-galore": 1.0, "mfac": 1.0}
"""Of a quadratic; 0.2 for the others."""


@each_optimizer
def test_a_quadratic_is_solved(name: str) -> None:
    weight, target = (torch.randn(8, 12, generator=torch.Generator().manual_seed(i)) for i in (6, 7))
    if name == "adam-s":
        target = target * pattern(target)
    p, rate = nn.Parameter(weight), RATES.get(name, 0.2)
    told = {"rank": 4, "total": 300} if name != "apollo-mini" else {}
    optimizer = made(name, [p], lr=rate, **{k: v for k, v in told.items() if k in made(name, [p]).defaults})
    first = float((p.detach() - target).square().mean())
    for step in range(300):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / 300)
        p.grad = p.detach() - target
        optimizer.step()
    assert float((p.detach() - target).square().mean()) < 1e-3 * first


@each_optimizer
def test_a_state_takes_the_bytes_of_its_file(name: str) -> None:
    held = parameters(a=(64, 96), b=(96, 64), c=(300,))
    optimizer = made(name, held, bits=8)
    steps(optimizer, held, 0, 2)
    flat = {key: x.contiguous() for key, x in tensors(optimizer.state_dict()["state"])}
    assert state_bytes(optimizer)["state"] == sum(x.numel() * x.element_size() for x in flat.values())
    file = len(safetensors.torch.save(flat))
    assert file - 4096 < state_bytes(optimizer)["state"] < file


@each_optimizer
@pytest.mark.parametrize("bits", [32, 8])
def test_a_device_that_is_not_there(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_moments, "LEAST", 4)
    here = parameters(**FEW)
    steps(made(name, here, bits=bits), here, 0, 5)
    with elsewhere() as device, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = [nn.Parameter(moved(p.detach())) for p in parameters(**FEW)]
        optimizer = made(name, there, bits=bits)
        steps(optimizer, there, 0, 2)
        again = made(name, there, bits=bits)
        again.load_state_dict(optimizer.state_dict())
        steps(again, there, 2, 3)
        for place, x in tensors(again.state_dict()["state"]):
            assert x.device == (device if x.ndim or x.is_floating_point() else torch.device("cpu")), place
        for p, q in zip(here, there, strict=True):
            torch.testing.assert_close(q.detach().cpu(), p.detach(), rtol=1e-4, atol=1e-5)


def test_two_processes_stay_together_as_one_would_with_the_whole_batch(tmp_path: Path) -> None:
    first, second = both("optim", tmp_path)
    for name, expected in optim(None).items():
        for key, p in expected.items():
            assert torch.equal(first[name][key], second[name][key]), name
            if name != "soap":  # whose eigenvectors without a gradient are any
                torch.testing.assert_close(first[name][key], p, rtol=1e-6, atol=1e-8, msg=f"{name}, {key}")
