"""Small objects on a background, image by image: the steps of robust PCA unrolled, each with a small learned map."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eckart.arrays import Dense, dense, power_of_two
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import TransformerMixin, check_is_fitted
from eckart.scikit.planted import Planted

NORMAL = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""
FAR = 4.0
"""Deviations from the median of the images beyond which a pixel is taken for an object where no masks are given."""
PARTS = ("background", "object", "image")


def convolved(x: Tensor, filters: tuple[Tensor, Tensor]) -> Tensor:
    """Two convolutions (n, 1, h, w) -> (n, c, h, w) -> (n, 1, h, w) and a ReLU between, edges continued."""
    first, second = filters
    hidden = torch.relu(functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), first))
    return functional.conv2d(functional.pad(hidden, (1, 1, 1, 1), mode="replicate"), second)


def unrolled(data: Tensor, stages: list[dict[str, Any]], *, overwrite: bool = False) -> tuple[Tensor, Tensor]:
    """Objects T and background B (n, 1, h, w) of images D after the stages, each with maps L, S, M and a step e:

        B = (D - T) + L(D - T),   X = T + D - B,   T = X - e S(X),   D <- M(B + T) where it is overwritten.

    Args:
        data: D.
        stages: of each stage the filters by `PARTS`, and "step".
        overwrite: whether later stages see M(B + T) instead of the image.
    """
    seen, objects, background = data, torch.zeros_like(data), data
    for stage in stages:
        rest = seen - objects
        background = rest + convolved(rest, stage["background"])
        both = objects + seen - background
        objects = both - stage["step"] * convolved(both, stage["object"])
        if overwrite:
            seen = background + objects + convolved(background + objects, stage["image"])
    return objects, background


def soft_iou_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - the mean over images of sum p m / sum (p + m - p m), p = sigmoid(logits)."""
    p = torch.sigmoid(logits)
    shared = (p * masks).sum(dim=(1, 2, 3))
    return 1 - ((shared + 1e-6) / (p.sum(dim=(1, 2, 3)) + masks.sum(dim=(1, 2, 3)) - shared + 1e-6)).mean()


def far_from_median(images: Dense) -> Dense:
    """Pixels (n, h, w) far from the median of all images there: objects that move before a camera that stands still."""
    off = np.abs(images - np.median(images, axis=0))
    scale = NORMAL * float(np.median(off)) or float(off.mean())
    found: Dense = off > FAR * scale
    return found


def _planted(rng: np.random.Generator) -> Planted:
    def scene(n: int) -> tuple[Dense, Dense]:
        low = np.linspace(0, 1, 10)[:, None] * rng.uniform(0.5, 1, (n, 1, 1)) + rng.uniform(0, 1, (n, 1, 1))
        masks = np.zeros((n, 10, 10), bool)
        for mask in masks:
            i, j = rng.integers(0, 8, 2)
            mask[i : i + 2, j : j + 2] = True
        return low + 0.02 * rng.standard_normal((n, 10, 10)) + 0.5 * masks, masks

    (x, masks), (new, truth) = scene(16), scene(16)

    def error(fitted: Any) -> float:
        found = np.asarray(fitted.transform(new)) > 0.5
        return float(1 - (found & truth).sum() / (found | truth).sum())

    options = {"stages": 2, "channels": 4, "max_iter": 25}
    varies = {
        "order of rows": "which images are in a batch is drawn by their places",
        "order of columns": "it is of images, whose pixels have neighbours",
    }
    return Planted({"X": x, "y": masks.astype(float)}, error, 0.2, options, varies)


@estimator(
    "rpca-unfolded",
    paper="Wu, Dai, Zhang, Ding, Yang, Cheng and Peng 2025, arXiv 2508.04190",
    kind="trials",
    gives="probabilities of objects, pixel by pixel",
    takes="images (images, height, width), and masks of objects",
    planted=_planted,
)
class UnfoldedRobustPCA(TransformerMixin, Estimator):
    """Probabilities that pixels are of small objects, by unrolled steps of robust PCA with learned convolutions.

    `unrolled`, learned by Adam from masks: of overlap (soft intersection over union), and of the squared error of
    background plus objects. Nothing in it is of low rank: the background is what local filters can say of each image
    alone, in one pass; where a camera stands still and all frames are there, `rpca-ialm` and `rsvddpd` use more.

    As published each stage overwrites the image by its own sum for the next (overwrite=True), so that later stages
    never see the data; by default they do. The network of the paper is larger (32 channels, 15 convolutions a stage, a
    memory between stages and a prior of contrast), is trained on a graphics card, and has one stage number for each
    data set. Plain tensors and their gradients are used here, no module: what is learned are arrays.

    Args:
        stages: how many.
        channels: of the hidden layers.
        overwrite: whether stages hand on their own sum instead of the image.
        max_iter: epochs.
        batch_size: images of a step.
        learning_rate: of Adam.
        random_state: of the filters to begin with and the batches.

    Attributes:
        filters_: of each stage, arrays by name.
        readout_: a and b of the probabilities sigmoid(a T + b).
        unit_, middle_, spread_: images are (X / unit_ - middle_) / spread_.
        n_iter_, history_: epochs, and the mean loss of each.
    """

    def __init__(
        self,
        stages: int = 3,
        channels: int = 8,
        *,
        overwrite: bool = False,
        max_iter: int = 60,
        batch_size: int = 8,
        learning_rate: float = 1e-2,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.stages = stages
        self.channels = channels
        self.overwrite = overwrite
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> UnfoldedRobustPCA:
        """Learns from images X (images, height, width) and masks y of the same shape, 0 and 1; itself.

        Without masks those pixels are taken for objects that are far from the median of all images.
        """
        at_least_one(stages=self.stages, channels=self.channels, max_iter=self.max_iter, batch_size=self.batch_size)
        images = dense(X, "the images", ndim=3)
        if 0 in images.shape:
            raise Refused(f"images of shape {images.shape}: none is left")
        self.n_rows_, self.unit_ = images.shape[1:], power_of_two(images)
        held = images / self.unit_
        self.middle_ = float(held.mean())
        spread = float(held.std())
        self.spread_ = spread if spread > 16 * np.finfo(float).eps * abs(self.middle_) else 1.0
        masks = far_from_median(held) if y is None else dense(y, "the masks", ndim=3)
        if masks.shape != images.shape or ((masks != 0) & (masks != 1)).any():
            raise Refused(f"masks of shape {masks.shape} for images of {images.shape}: the same, of 0 and 1")
        rng = generator_from(self.random_state)
        learned = [self._begun(rng) for _ in range(self.stages)]
        readout = torch.tensor([3.0, -2.0], dtype=torch.float64).requires_grad_()
        leaves = [readout, *(leaf for stage in learned for leaf in _leaves(stage))]
        optimizer = torch.optim.Adam(leaves, lr=positive(learning_rate=self.learning_rate))
        data, truth = self._inner(images), torch.from_numpy(masks.astype(float))[:, None]
        history = []
        for _ in range(self.max_iter):
            total = 0.0
            for batch in torch.split(torch.from_numpy(rng.permutation(len(data))), self.batch_size):
                optimizer.zero_grad()
                objects, background = unrolled(data[batch], learned, overwrite=self.overwrite)
                again = (objects + background - data[batch]).square().mean()
                loss = soft_iou_loss(readout[0] * objects + readout[1], truth[batch]) + again
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(batch) / len(data)
            history.append(total)
        self.filters_ = [
            {f"{part}_{i}": each.detach().numpy() for part in PARTS for i, each in enumerate(stage[part])}
            | {"step": float(stage["step"].detach())}
            for stage in learned
        ]
        self.readout_ = readout.detach().numpy()
        self.n_iter_, self.history_ = len(history), np.array(history)
        return self

    @same_kind
    def transform(self, X: Any) -> Any:
        """Probabilities (images, height, width) that pixels are of objects."""
        objects = self._split(X)[0]
        return torch.sigmoid(self.readout_[0] * objects + self.readout_[1]).numpy()[:, 0]

    @same_kind
    def backgrounds(self, X: Any) -> Any:
        """Backgrounds (images, height, width) of images."""
        return (self._split(X)[1].numpy()[:, 0] * self.spread_ + self.middle_) * self.unit_

    def _split(self, X: Any) -> tuple[Tensor, Tensor]:
        check_is_fitted(self)
        images = dense(X, "the images", ndim=3)
        if images.shape[1:] != tuple(self.n_rows_):
            raise Refused(f"images of {images.shape[1:]} where {tuple(self.n_rows_)} were fitted")
        stages = [
            {part: tuple(torch.from_numpy(each[f"{part}_{i}"]) for i in range(2)) for part in PARTS}
            | {"step": each["step"]}
            for each in self.filters_
        ]
        return unrolled(self._inner(images), stages, overwrite=self.overwrite)

    def _inner(self, images: Dense) -> Tensor:
        return torch.from_numpy((images / self.unit_ - self.middle_) / self.spread_)[:, None]

    def _begun(self, rng: np.random.Generator) -> dict[str, Any]:
        def filters() -> tuple[Tensor, Tensor]:
            first = rng.standard_normal((self.channels, 1, 3, 3)) * (2 / 9) ** 0.5
            second = rng.standard_normal((1, self.channels, 3, 3)) * 0.1 * (1 / (9 * self.channels)) ** 0.5
            return torch.from_numpy(first).requires_grad_(), torch.from_numpy(second).requires_grad_()

        return {part: filters() for part in PARTS} | {"step": torch.tensor(0.01, dtype=torch.float64).requires_grad_()}


def _leaves(stage: dict[str, Any]) -> list[Tensor]:
    return [each for part in PARTS for each in stage[part]] + [stage["step"]]
