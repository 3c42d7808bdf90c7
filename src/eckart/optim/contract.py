"""What an optimizer of matrices is: a rule for one matrix, and the loop around it that all share. Their register."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from eckart.errors import Refused
from eckart.optim._adam import adam
from eckart.optim._moments import BITS, coded, decoded
from eckart.register import Card, Register

State = dict[str, Tensor]
"""What is remembered of a matrix, by name."""
Group = Mapping[str, Any]
"""The options of a group of parameters."""
COMMON: dict[str, Any] = {
    "rule": "matrix",
    "stacked": False,
    "bits": 32,
    "betas": (0.9, 0.999),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "maximize": False,
    "seed": 0,
}
"""What every optimizer of the family can be told, beside its own options."""
LIMITS = {"lr": (0.0, inf), "eps": (0.0, inf), "weight_decay": (0.0, inf)}
"""Where options of all optimizers may lie, the upper end excluded."""
CHOICES = {"rule": ("matrix", "adamw"), "bits": (32, BITS), "stacked": (False, True), "maximize": (False, True)}
"""What others may be."""


@dataclass(frozen=True)
class Matrix:
    """A matrix that takes a step.

    Attributes:
        weight: W (m, n) before it, in float32 or float64; not to be written to.
        grad: dL/dW, of its shape, dtype and device; not to be written to.
        state: what the rule keeps from step to step; empty before the first one. New tensors may be put in its places.
        group: the options of its group.
        step: steps taken with this one, from 1 on.
        number: of its parameter, in the order in which the optimizer was given them.
    """

    weight: Tensor
    grad: Tensor
    state: State
    group: Group
    step: int
    number: int

    def generator(self, draw: int) -> torch.Generator:
        """Of whatever is drawn for the `draw`-th time, on the CPU: the same whenever the run gets there."""
        mixed = (self.group["seed"] * 1_000_003 + self.number) * 1_000_003 + draw
        return torch.Generator().manual_seed(mixed % 2**63)


class MatrixOptimizer(torch.optim.Optimizer):
    """The loop over parameters; a paper gives `direction`, and the names of its moments.

    Everything is kept in `state` as tensors and every option in `param_groups`, so that an interrupted run goes on bit
    for bit from `state_dict()`, which `torch.load(weights_only=True)` reads. A convolution's filters are the matrix
    (out, rest). What has fewer than two dimensions, and every parameter of a group with `rule="adamw"`, is moved by
    AdamW with the group's own lr, betas, eps and weight_decay; one of three dimensions in a group with `stacked=True`
    is a stack of matrices (experts). Weights of 16 bits are moved in float32; what their rounding loses is kept in
    `lost` and added in the next step. Shards (DTensor) are refused. A `rank` above a matrix's counts as its full rank.

    Every optimizer can be told `weight_decay` (decoupled, times lr), `bits` (8 for moments in 8 bits), `seed` (of what
    is drawn), `maximize`, `rule` and `stacked`; and `betas` and `eps`, which AdamW takes as well.

    Attributes:
        MOMENTS: names of what the rule averages, which `bits=8` stores in 8 bits.
        SQUARES: those that are averages of squares and never negative.
        LIMITS: options and where they may lie, the upper end excluded.
        CHOICES: options and what they may be.
        name: of the card.
        shared: tensors that matrices of a size share, by name; made again when they are missing, not in the state.
    """

    MOMENTS: ClassVar[tuple[str, ...]] = ()
    SQUARES: ClassVar[tuple[str, ...]] = ()
    LIMITS: ClassVar[Mapping[str, tuple[float, float]]] = {}
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    name: ClassVar[str]

    def __init__(self, params: Iterable[Any], options: dict[str, Any], common: dict[str, Any]) -> None:
        self.shared: dict[str, Tensor] = {}
        unknown = set(common) - set(COMMON)
        if unknown:
            names = ", ".join([*options, *COMMON])
            raise Refused(f"{self.name} has no {', '.join(sorted(unknown))}; there are {names}")
        super().__init__(params, {**COMMON, **options, **common, "optimizer": self.name})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.shared = {}

    def direction(self, matrix: Matrix) -> Tensor:
        """What is subtracted from W, but for the rate: W <- (1 - lr weight_decay) W - lr direction.

        Args:
            matrix: its gradient and what is remembered of it.

        Returns:
            a new tensor (m, n), in the dtype of the gradient.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters with options of its own.

        Raises:
            Refused: an option that there is not, or a value out of its range; parameters that are complex or sharded.
        """
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except (TypeError, ValueError):
            del self.param_groups[-1]
            raise

    def _check(self, group: Group) -> None:
        unknown = set(group) - set(self.defaults) - {"params", "param_names", "initial_lr"}
        if unknown:
            raise Refused(f"{self.name} has no {', '.join(sorted(unknown))}; there are {', '.join(self.defaults)}")
        for option, (low, high) in {**LIMITS, **self.LIMITS}.items():
            told = group.get(option, low)
            if told is None or isinstance(told, str) or not low <= float(told) < high:
                raise Refused(f"{option}={told!r} must be a number of at least {low:g} and below {high:g}")
            if option in group and type(self.defaults[option]) is int and int(group[option]) != group[option]:
                raise Refused(f"{option}={group[option]} must be a whole number")
        for option, values in {**CHOICES, **self.CHOICES}.items():
            if group[option] not in values:
                raise Refused(f"{option}={group[option]!r} is none of {', '.join(map(repr, values))}")
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise Refused(f"betas={group['betas']} must be two numbers in [0, 1)")
        for parameter in group["params"]:
            if parameter.is_complex():
                raise Refused(f"{self.name} moves no complex parameters, and one is {parameter.dtype}")
            if hasattr(parameter, "device_mesh"):
                raise Refused(
                    f"a parameter of shape {tuple(parameter.shape)} is sharded over devices, which {self.name} does "
                    "not take: train with whole parameters, as DistributedDataParallel has them"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are.

        Args:
            closure: computes the loss and its gradients anew.

        Returns:
            what the closure returned.

        Raises:
            Refused: a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = -1
        for group in self.param_groups:
            for parameter in group["params"]:
                number += 1
                if parameter.grad is not None and parameter.numel():
                    self._move(parameter, group, number)
        return loss

    def _move(self, parameter: Tensor, group: Group, number: int) -> None:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:
            raise Refused(
                f"the gradient of a parameter of shape {tuple(parameter.shape)} is sparse, which {self.name} does not "
                "take: leave it to torch.optim.SparseAdam, or make the embedding with sparse=False"
            )
        exact = torch.promote_types(parameter.dtype, torch.float32)
        grad = parameter.grad.to(exact)
        grad = -grad if group["maximize"] else grad
        weight = parameter.detach().to(exact)
        state = self.state[parameter]
        steps = state.setdefault("step", torch.zeros((), dtype=torch.int64, device="cpu"))
        steps += 1
        step, lr, decay = int(steps), float(group["lr"]), float(group["weight_decay"])
        if group["rule"] == "adamw" or parameter.ndim < 2:
            moved = self._moved("adamw", Matrix(weight, grad, state, group, step, number))
        elif group["stacked"] and parameter.ndim > 2:
            moved = torch.empty_like(grad)
            for i in range(len(weight)):
                one = Matrix(weight[i], grad[i], state, group, step, number * 65536 + i)
                moved[i] = self._moved(f"matrix{i}", one)
        else:
            moved = self._moved("matrix0", Matrix(weight, grad, state, group, step, number))
        if moved.dtype == parameter.dtype:
            if decay:
                parameter.mul_(1 - lr * decay)
            parameter.sub_(moved, alpha=lr)
        else:
            _subtract(parameter, moved.mul_(lr).add_(weight, alpha=lr * decay), state)

    def _moved(self, name: str, whole: Matrix) -> Tensor:
        """The direction of a matrix, or of what AdamW moves, by its own part of the state; moments lie there coded."""
        own: Any = whole.state.setdefault(name, {})  # type: ignore[arg-type]
        vector, grad, group = name == "adamw", whole.grad, whole.group
        moments = (("m",), ("v",)) if vector else (self.MOMENTS, self.SQUARES)
        decoded(own, grad.dtype)
        if vector:
            found = adam(grad, own, whole.step, group["betas"], group["eps"])
        else:
            weight, flat = (x.reshape(len(x), -1) for x in (whole.weight, grad))
            found = self.direction(Matrix(weight, flat, own, group, whole.step, whole.number))
        own.update({key: x.contiguous() for key, x in own.items()})  # strides, which files lose, change roundings
        if group["bits"] == BITS:
            coded(own, *moments, whole.generator(-whole.step))
        return found.reshape(grad.shape)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called; moments keep 32 bits, which torch would round to those of the weights.

        Raises:
            Refused: it is the state of another optimizer.
        """
        for group in state_dict["param_groups"]:
            other = group.get("optimizer", "another optimizer")
            if other != self.name:
                raise Refused(f"this is the state of {other}, not of {self.name}: go on with that one")
        super().load_state_dict(dict(state_dict))
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        held = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, parameter in zip(saved, held, strict=True):
            if key in state_dict["state"]:
                self.state[parameter] = _copied(state_dict["state"][key], parameter)


def _subtract(parameter: Tensor, change: Tensor, state: State) -> None:
    """W <- W - change of a W in 16 bits, in place; what they lose of it is kept for the next step."""
    lost = state.setdefault("lost", torch.zeros_like(parameter))
    exact = parameter.to(change.dtype) + lost.to(change.dtype) - change
    parameter.copy_(exact)
    lost.copy_(exact - parameter.to(change.dtype))


def _copied(value: Any, parameter: Tensor) -> Any:
    """A copy of a state where the parameter is; what rules compute with is in the dtype that they compute in."""
    if isinstance(value, dict):
        return {name: _copied(each, parameter) for name, each in value.items()}
    if value.ndim == 0 and not value.is_floating_point():  # a count of steps
        return value.to("cpu", copy=True)
    exact = torch.promote_types(parameter.dtype, torch.float32)
    dtype = exact if value.dtype in (torch.float32, torch.float64) else value.dtype
    return value.to(parameter.device, dtype, copy=True)


@dataclass(frozen=True, kw_only=True)
class OptimizerCard(Card):
    """A published optimizer and its card; `expression` is the step that a matrix W takes.

    Attributes:
        entry: a `MatrixOptimizer`, or for what is no optimizer of matrices a function or a class of its own.
        state: what is kept of a matrix (m, n), m >= n, in words.
    """

    family = "optim"

    entry: Callable[..., Any]
    state: str

    def columns(self) -> dict[str, str]:
        return {"what it does": self.summary, "step": self.expression, "keeps": self.state, "paper": self.paper}


OPTIMIZERS = REGISTER = Register(OptimizerCard, "optimizer", 'eckart.optim.OPTIMIZERS["{name}"].entry(parameters)')
"""The cards of all optimizers, by name."""

E = TypeVar("E", bound=Callable[..., Any])


def optimizer(name: str, *, paper: str, expression: str, state: str, unmeasured: str = "") -> Callable[[E], E]:
    """Registers a class as an optimizer. See `OptimizerCard` for the arguments."""

    def register(entry: E) -> E:
        if isinstance(entry, type):
            entry.name = name  # type: ignore[attr-defined]
        OPTIMIZERS.add(
            OptimizerCard(
                name=name, paper=paper, entry=entry, expression=expression, state=state, unmeasured=unmeasured
            )
        )
        return entry

    return register
