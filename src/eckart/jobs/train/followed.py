"""Spectra of some matrices of a model while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eckart.report.learning import Spectra

MOST = 16
"""Matrices that are followed."""


class Followed:
    """The spectra of up to sixteen matrices, spread over the model, whenever they are looked at.

    Attributes:
        spectra: one entry for each look.
    """

    def __init__(self, model: nn.Module) -> None:
        matrices = [p for p in model.parameters() if p.ndim == 2 and p.requires_grad and min(p.shape) > 1]
        self._matrices = matrices[:: max(1, len(matrices) // MOST)][:MOST]
        self.spectra: list[Spectra] = []

    @torch.no_grad()
    def look(self, step: int) -> None:
        """Adds an entry, unless the last one is of that step."""
        if self.spectra and self.spectra[-1].step == step:
            return
        norms, ranks = [0.0], [0.0]
        for matrix in self._matrices:
            squares = torch.linalg.svdvals(matrix.detach().cpu().float()).double().square()
            if squares.any():
                norms.append(float(squares[0]) ** 0.5)
                ranks.append(float(squares.sum() / squares[0]))
        count = max(1, len(norms) - 1)
        self.spectra.append(Spectra(step=step, norm=sum(norms) / count, stable_rank=sum(ranks) / count))

    def state(self) -> Tensor:
        """All entries, (looks, 3), float64."""
        rows = [[each.step, each.norm, each.stable_rank] for each in self.spectra]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)

    def go_on(self, state: Tensor) -> None:
        """Puts entries back."""
        self.spectra = [Spectra(step=int(i), norm=n, stable_rank=r) for i, n, r in state.tolist()]
