"""Essential sparsity: how many of the smallest weights of a whole model can go at once before it suffers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eckart.compressors._one_by_one import OneByOne
from eckart.compressors.contract import compressor
from eckart.compressors.magnitude import magnitude
from eckart.errors import Refused
from eckart.statistics.needs import Statistics

TOLERANCE = 0.01
"""By how much of the dense loss a loss may be larger and count as unharmed."""


@compressor(
    "essential-sparsity",
    paper="Jaiswal et al. 2023, arXiv 2306.03805",
    expression="Masked",
    size="percent",
    allocation="greedy",
)
def essential_sparsity(weight: Tensor, statistics: Statistics) -> OneByOne:
    """Cuts the smallest weights of the whole model off in one shot, wherever they are: one threshold for all matrices.

    A global threshold is what costs least in the sum of squares of all weights cut off. So it is what the solver makes
    of the candidates of `magnitude`, in steps of 5 % of each matrix; with `--allocation uniform` each matrix has a
    threshold of its own, and that is `magnitude`. The paper trains on the task afterwards, which is the user's.

    `knee` says how far one can go: the essential sparsity of a model is a number of the model and of the text.

    Args:
        weight: (out, in).
        statistics: not read.

    Raises:
        Refused: weight has NaN or Inf entries.
    """
    return magnitude(weight, statistics)


def knee(sparsities: Sequence[float], losses: Tensor, dense: Tensor, draws: int = 1000, seed: int = 0) -> Tensor:
    """The largest sparsity up to which the mean loss stays within 1 % of the dense one, of resampled texts.

    The paper shows its dropping point in plots and states no rule; this is the one used here.

    Args:
        sparsities: ascending, (k,).
        losses: of each sparsity and text, (k, texts).
        dense: of each text, (texts,), positive.
        draws: bootstrap samples of the texts.
        seed: of the samples.

    Returns:
        (draws + 1,), float64: of all texts as they are, then of the samples; 0 where no sparsity is unharmed.

    Raises:
        Refused: shapes that do not fit, or sparsities that do not ascend.
    """
    ascending = torch.tensor(list(sparsities), dtype=torch.float64)
    if tuple(losses.shape) != (len(ascending), *dense.shape) or dense.ndim != 1 or not len(dense):
        raise Refused(
            f"losses of {len(ascending)} sparsities and {len(dense)} texts must be of shape "
            f"{(len(ascending), len(dense))}, got {tuple(losses.shape)}"
        )
    if (ascending.diff() <= 0).any():
        raise Refused(f"sparsities must ascend, got {list(sparsities)}")
    texts = len(dense)
    drawn = torch.randint(texts, (draws, texts), generator=torch.Generator().manual_seed(seed))
    sample = torch.cat([torch.arange(texts)[None], drawn])
    whole = dense.double()[sample].mean(1)
    unharmed = losses.double()[:, sample].mean(2) <= (1 + TOLERANCE) * whole
    reached = unharmed.cumprod(0).sum(0)
    return torch.cat([torch.zeros(1, dtype=torch.float64), ascending])[reached]
