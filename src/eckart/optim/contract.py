"""What an optimizer of matrices is: a rule for one matrix, and the loop around it that all share. Their register."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
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
    is a stack of matrices (experts). Weights of 16 bits are moved in float32, and what their rounding loses is kept
    in `lost`, of their dtype, and added in the next step.

    Attributes:
        MOMENTS: names of what the rule averages, which `bits=8` stores in 8 bits.
        name: of the card.
    """

    MOMENTS: ClassVar[tuple[str, ...]] = ()
    name: ClassVar[str]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        common = {"rule": "matrix", "stacked": False, "bits": 32, "maximize": False, "seed": 0}
        adamw = {"betas": (0.9, 0.999), "eps": 1e-8}
        super().__init__(params, {**common, **adamw, **defaults, "optimizer": self.name})

    def direction(self, matrix: Matrix) -> Tensor:
        """What is subtracted from W, but for the rate: W <- (1 - lr weight_decay) W - lr direction.

        Args:
            matrix: its gradient and what is remembered of it.

        Returns:
            a new tensor (m, n), in the dtype of the gradient.
        """
        raise NotImplementedError

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters with options of its own, checked."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        unknown = set(group) - set(self.defaults) - {"params", "param_names", "initial_lr"}
        if unknown:
            del self.param_groups[-1]
            raise Refused(f"{self.name} has no {', '.join(sorted(unknown))}; there are {', '.join(self.defaults)}")
        if group["rule"] not in ("matrix", "adamw"):
            raise Refused(f"rule={group['rule']!r} is neither 'matrix' nor 'adamw'")
        if group["bits"] not in (32, BITS):
            raise Refused(f"bits={group['bits']} of moments: there are 32 and {BITS}")
        for option in ("lr", "eps", "weight_decay"):
            if not 0 <= float(group.get(option, 0)) < float("inf"):
                raise Refused(f"{option}={group[option]} must be finite and at least 0")
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise Refused(f"betas={group['betas']} must be in [0, 1)")

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
                if parameter.grad is not None:
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
        steps = state.setdefault("step", torch.zeros((), dtype=torch.float32, device="cpu"))
        steps += 1
        step, lr = int(steps), float(group["lr"])
        if group["rule"] == "adamw" or parameter.ndim < 2:
            with self._moments(state, "adamw", ("m", "v"), weight, grad, group, step, number) as vector:
                moved = adam(grad, vector.state, step, group["betas"], group["eps"])
        else:
            stacked = group["stacked"] and parameter.ndim > 2
            parts = list(zip(weight, grad, strict=True)) if stacked else [(weight, grad)]
            found = []
            for i, (w, g) in enumerate(parts):
                flat = w.reshape(len(w), -1), g.reshape(len(g), -1)
                with self._moments(state, f"matrix{i}", self.MOMENTS, *flat, group, step, number * 65536 + i) as matrix:
                    found.append(self.direction(matrix).reshape(g.shape))
            moved = torch.stack(found) if stacked else found[0]
        _subtract(parameter, weight * (lr * group["weight_decay"]) + lr * moved, state)

    @contextmanager
    def _moments(
        self,
        state: dict[str, Any],
        name: str,
        moments: Sequence[str],
        weight: Tensor,
        grad: Tensor,
        group: Group,
        step: int,
        number: int,
    ) -> Iterator[Matrix]:
        """A matrix with its own part of the state, whose moments lie there in 8 bits between two steps."""
        own = state.setdefault(name, {})
        matrix = Matrix(weight, grad, own, group, step, number)
        if group["bits"] == BITS:
            decoded(own, moments)
        yield matrix
        if group["bits"] == BITS:
            coded(own, moments, matrix.generator(-step))

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was called; tensors keep their dtypes, which torch would change to the weights'.

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
                self.state[parameter] = _copied(state_dict["state"][key], parameter.device)


def _subtract(parameter: Tensor, change: Tensor, state: State) -> None:
    """W <- W - change, in place; what 16 bits lose of it is kept for the next step."""
    if change.dtype == parameter.dtype:
        parameter.sub_(change)
        return
    lost = state.setdefault("lost", torch.zeros_like(parameter))
    exact = parameter.to(change.dtype) + lost.to(change.dtype) - change
    parameter.copy_(exact)
    lost.copy_(exact - parameter.to(change.dtype))


def _copied(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _copied(each, device) for name, each in value.items()}
    return value.to("cpu" if value.ndim == 0 else device, copy=True)


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
