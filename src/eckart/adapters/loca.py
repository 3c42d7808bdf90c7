"""A few coefficients of the cosine transform of the change train, and so do their places in the spectrum."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from eckart.adapters.contract import Frozen, Layer, Paths, Start, adapter, check_rank
from eckart.structures.compose import Chain
from eckart.structures.scattered import Scattered, slopes
from eckart.structures.transforms import Cosine

TURN = 10
"""Steps for the values before the places have as many, and so on."""
MOVING = 0.5
"""Part of the steps after which the places stay."""
MOVE = 0.5
"""Root mean square of what the places of a matrix move in a step, in positions."""


def numbers(out: int, columns: int, rank: int) -> int:
    return min(rank * (out + columns), out * columns)


class Moves:
    """Values and places take turns. While places have theirs, values stay as they are, and the other way round.

    Places move along their slopes as real numbers, and stand at the nearest integers.
    """

    def __init__(self, paths: Paths, steps: int, frozen: Frozen) -> None:
        self._last = int(MOVING * steps)
        self._spectra = {n: m for n, path in paths.items() for m in path.modules() if isinstance(m, Scattered)}
        self._values: dict[str, Tensor] = {}
        self._slopes: dict[str, Tensor] = {}
        self.state = {
            "done": torch.tensor(0),
            **{f"{name}/places": matrix.places.to(matrix.dtype) for name, matrix in self._spectra.items()},
        }

    @property
    def state(self) -> dict[str, Tensor]:
        return self._state

    @state.setter
    def state(self, state: dict[str, Tensor]) -> None:
        self._state = state
        self._prepare(int(state["done"]))

    @torch.no_grad()
    def step(self, done: int) -> None:
        if self._turn_of_places(done):
            for name, matrix in self._spectra.items():
                matrix.values.copy_(self._values[name])
                if name in self._slopes:
                    self._move(self._state[f"{name}/places"], matrix, self._slopes[name])
        self._state["done"] = torch.tensor(done)
        self._prepare(done)

    def _turn_of_places(self, step: int) -> bool:
        return step <= self._last and (step - 1) // TURN % 2 == 1

    def _prepare(self, done: int) -> None:
        turn = self._turn_of_places(done + 1)
        self._slopes = {}
        self._values = {n: m.values.detach().clone() for n, m in self._spectra.items()} if turn else {}
        for name, matrix in self._spectra.items():
            matrix.watch = partial(self._seen, name, matrix) if turn else None

    def _seen(self, name: str, matrix: Scattered, gradient: Tensor) -> None:
        slope = slopes(gradient, matrix.values.detach(), matrix.places.long())
        self._slopes[name] = self._slopes[name] + slope if name in self._slopes else slope

    @staticmethod
    def _move(position: Tensor, matrix: Scattered, slope: Tensor) -> None:
        size = slope.square().mean().sqrt()
        if size > 0:
            position -= MOVE / size * slope
            limits = torch.tensor(matrix.shape, dtype=position.dtype, device=position.device)[:, None] - 1
            position.copy_(torch.minimum(position.clamp_min(0), limits))
            matrix.places.copy_(position.round())


@adapter(
    "loca",
    paper="Du 2025, arXiv 2502.06820",
    expression="Sum(Dense, Chain(Cosine, Scattered*, Cosine))",
    parameters=numbers,
    scaled=True,
    schedule=Moves,
)
def loca(layer: Layer) -> Start:
    """W + (alpha / r) C^T S D: S has r (out + in) values, zero at the start, and C, D are cosine transforms (DCT-II).

    The places of the values are drawn evenly, and during the first half of the steps they have every other ten steps:
    they move against their slopes, which are central differences of the gradient of the spectrum. A step's length is
    scaled to half a position in the root mean square over a matrix; the paper has a rate to tune instead.
    """
    rank, (out, columns) = check_rank(layer), layer.weight.shape
    drawn = torch.randperm(out * columns, generator=layer.generator)[: numbers(out, columns, rank)]
    places = torch.stack([drawn // columns, drawn % columns])
    values = torch.zeros(len(drawn), dtype=layer.dtype)
    spectrum = Scattered(values, places, out=out, columns=columns)
    return Start(Chain(Cosine(out, adjoint=True), spectrum, Cosine(columns)))
