"""Which values of categorical features a factorization machine needs: a gate for each, open or closed in the end."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from eckart.arrays import Dense, back, number
from eckart.errors import Refused
from eckart.estimators.contract import estimator
from eckart.scikit.base import Estimator, at_least_one, generator_from, positive, same_kind
from eckart.scikit.door import ClassifierMixin
from eckart.scikit.planted import Planted

FIRST = 0.5
"""The gates' logits to begin with."""
START = 0.01
"""Standard deviation of the embeddings to begin with."""


class Weights(NamedTuple):
    """Of a factorization machine: bias (), weights (V,) and embeddings (V, k) of all values of all features."""

    bias: Tensor
    linear: Tensor
    embedding: Tensor


def machine(codes: Tensor, weights: Weights, gates: Tensor) -> Tensor:
    """Logits (n,): b + sum_f g w + sum_{f < h} <g e_f, g e_h> of each row's values (n, features), by their gates.

    Args:
        codes: of the values, 0..V-1; V stands for one that is not known, whose gate is zero.
        weights: of V values.
        gates: (V,), by which weights and embeddings are multiplied: the selection of an interaction is that of both of
            its values (Lyu et al. 2023, section 3.2).
    """
    known = codes < len(gates)
    at = torch.where(known, codes, 0)
    share = torch.where(known, gates[at], 0.0)
    e = weights.embedding[at] * share[..., None]
    pairs = (e.sum(dim=1).square() - e.square().sum(dim=1)).sum(dim=1) / 2
    return weights.bias + (weights.linear[at] * share).sum(dim=1) + pairs


def soft_gates(logits: Tensor, sharpness: float) -> Tensor:
    """sigmoid(t g) / sigmoid(g_0): 1 to begin with at t = 1, and a step in the end (equation 9)."""
    return torch.sigmoid(sharpness * logits) / torch.sigmoid(torch.tensor(FIRST, dtype=logits.dtype))


def _planted(rng: np.random.Generator) -> Planted:
    # Of two features half of the values decide, the others and a third feature do not.
    x = rng.integers(0, 6, (600, 3)).astype(float)
    effect = np.array([2.0, -2.0, 2.0, 0.0, 0.0, 0.0])
    y = (rng.random(600) < 1 / (1 + np.exp(-effect[x[:, 0].astype(int)] - effect[x[:, 1].astype(int)]))).astype(int)
    useful = np.array([1, 1, 1, 0, 0, 0] * 2 + [0] * 6, bool)
    return Planted(
        {"X": x, "y": y},
        lambda fitted: np.mean(fitted.kept_ != useful),
        0.25,
        {"penalty": 4.0, "max_iter": 8},
        {
            "order of rows": "which samples are in a batch is drawn by their places",
            "order of columns": "embeddings begin at random, value by value",
        },
    )


@estimator(
    "optfs",
    paper="Lyu, Tang, Liu, Chen, He and Liu 2023, arXiv 2301.10909",
    kind="classifier",
    gives="which values of features are kept, probabilities of two classes",
    takes="categories as numbers, each column a feature",
    planted=_planted,
)
class GatedFeatureValues(ClassifierMixin, Estimator):
    """A factorization machine on few values of categorical features: those whose gates stay open under a penalty.

    Weights and gates are learned together, the gates sharper epoch by epoch (`soft_gates`); then those below a half
    close for good, weights go back to where they began and are learned once more.

    As published each open gate costs the same: a value that is seen seldom closes as nothing holds it open, so compare
    with method="frequency", which keeps values by their counts alone. With penalize="use" a gate pays by how often its
    value is seen; on ratings of films that kept more values for the same area under the curve.

    Args:
        n_components: of the embeddings.
        method: "gates"; "frequency", the most frequent values, `keep` of them; or "all".
        keep: of "frequency".
        penalty: with "sum" what a value has to bring, in nats of all samples together; with "use" in nats a sample,
            were all gates open.
        penalize: "sum", over all values; or "use", the mean of the gates that samples and features go through.
        sharpness: t of the last epoch.
        max_iter: epochs, of each of both trainings.
        batch_size: samples of a step.
        learning_rate: of Adam.
        decay: of the weights' squares, in nats a sample.
        random_state: of embeddings and batches.

    Attributes:
        classes_: both classes.
        categories_: values of each feature, in order.
        kept_: of all of them, one feature behind the other, which are kept.
        bias_, linear_, embedding_: of those that are kept; zero elsewhere.
        n_iter_, history_: epochs, and the mean loss of each in both trainings.
    """

    def __init__(
        self,
        n_components: int = 4,
        *,
        method: Literal["gates", "frequency", "all"] = "gates",
        keep: float = 0.5,
        penalty: float = 1.0,
        penalize: Literal["sum", "use"] = "sum",
        sharpness: float = 200.0,
        max_iter: int = 12,
        batch_size: int = 64,
        learning_rate: float = 0.05,
        decay: float = 1e-5,
        random_state: int | np.random.Generator | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.method = method
        self.keep = keep
        self.penalty = penalty
        self.penalize = penalize
        self.sharpness = sharpness
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.decay = decay
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> GatedFeatureValues:
        """Chooses values and fits categories X (samples, features) and two classes y (samples,); itself.

        Args:
            X: (samples, features).
            y: (samples,).
            sample_weight: (samples,), not negative: of each sample's loss, and how often its values count.
        """
        from sklearn.utils.multiclass import check_classification_targets, type_of_target

        table, target = self._table(X, fit=True, y=y)
        check_classification_targets(target)
        if type_of_target(target, input_name="y", raise_unknown=True) != "binary":
            raise Refused("Only binary classification is supported: y has more than two classes")
        at_least_one(n_components=self.n_components, max_iter=self.max_iter, batch_size=self.batch_size)
        if self.method not in ("gates", "frequency", "all") or self.penalize not in ("sum", "use"):
            raise Refused(
                f"method={self.method!r}, penalize={self.penalize!r}: gates, frequency or all, and sum or use"
            )
        if not (
            0 < number(self.keep) <= 1
            and 0 <= number(self.penalty) < np.inf
            and 0 <= number(self.decay) < np.inf
            and 1 <= number(self.sharpness) < np.inf
        ):
            raise Refused(
                f"keep={self.keep!r:.40}, penalty={self.penalty!r:.40}, decay={self.decay!r:.40}, "
                f"sharpness={self.sharpness!r:.40}: in (0, 1], two not negative, at least 1, and none infinite"
            )
        table, target, weights = self._weighted(table, target, sample_weight)
        self.classes_, labels = np.unique(target, return_inverse=True)
        if len(self.classes_) < 2:
            raise Refused(f"y has one class only, {self.classes_[0]!r}: samples of two classes are needed")
        self.categories_ = [np.unique(column) for column in table.T]
        codes, truth = torch.from_numpy(self._codes(table)), torch.from_numpy(labels.astype(float))
        size = sum(map(len, self.categories_))
        weight = torch.ones(len(codes), dtype=truth.dtype) if weights is None else torch.from_numpy(weights)
        counts = torch.bincount(codes.flatten(), weight.repeat_interleave(codes.shape[1]), minlength=size)
        rng = generator_from(self.random_state)
        begun = START * torch.from_numpy(rng.standard_normal((size, self.n_components)))
        self.history_ = np.zeros((0,))
        kept = torch.ones(size, dtype=torch.bool)
        if self.method == "gates":
            _, logits = self._train(codes, truth, weight, begun, counts, rng, None)
            kept = logits > 0
        elif self.method == "frequency":
            kept = torch.zeros(size, dtype=torch.bool)
            kept[torch.argsort(counts, descending=True, stable=True)[: max(1, round(self.keep * size))]] = True
        weights, _ = self._train(codes, truth, weight, begun, counts, rng, kept.double())
        if not (np.isfinite(self.history_).all() and all(bool(w.isfinite().all()) for w in weights)):
            raise Refused(
                f"the training left the finite numbers: learning_rate={self.learning_rate!r}, decay={self.decay!r} or "
                f"penalty={self.penalty!r} is too large"
            )
        self.kept_ = kept.numpy()
        self.bias_, self.linear_ = float(weights.bias), (weights.linear * kept).numpy()
        self.embedding_ = (weights.embedding * kept[:, None]).numpy()
        self.n_iter_ = len(self.history_)
        return self

    def _train(
        self,
        codes: Tensor,
        truth: Tensor,
        weight: Tensor,
        begun: Tensor,
        counts: Tensor,
        rng: np.random.Generator,
        gates: Tensor | None,
    ) -> tuple[Weights, Tensor]:
        """Weights, and the gates' logits where no gates are given."""
        size, n, all_samples = len(begun), len(codes), float(weight.sum())
        weight = weight * (n / all_samples)
        weights = Weights(torch.zeros((), dtype=begun.dtype), torch.zeros(size, dtype=begun.dtype), begun.clone())
        logits = torch.full((size,), FIRST, dtype=begun.dtype)
        learned = [w.requires_grad_() for w in (*weights, *([logits] if gates is None else []))]
        optimizer = torch.optim.Adam(learned, lr=positive(learning_rate=self.learning_rate))
        # What a gate costs: its uses a sample and feature, or one by the samples.
        whole = codes.shape[1] * all_samples
        cost = counts / whole if self.penalize == "use" else torch.full((size,), 1 / all_samples, dtype=begun.dtype)
        history = []
        for epoch in range(self.max_iter):
            sharp, total = self.sharpness ** (epoch / max(self.max_iter - 1, 1)), 0.0
            for batch in torch.split(torch.from_numpy(rng.permutation(n)), self.batch_size):
                optimizer.zero_grad()
                open_ = soft_gates(logits, sharp) if gates is None else gates
                said = machine(codes[batch], weights, open_)
                loss = binary_cross_entropy_with_logits(said, truth[batch], weight[batch])
                reached = loss + self.decay * (weights.embedding.square().sum() + weights.linear.square().sum())
                if gates is None:
                    reached = reached + self.penalty * (cost * torch.sigmoid(sharp * logits)).sum()
                reached.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(batch) / n
            history.append(total)
        self.history_ = np.concatenate([self.history_, history])
        return Weights(*(w.detach() for w in weights)), logits.detach()

    def _codes(self, table: Dense) -> Dense:
        """Places of values among all categories; their number for those that were not seen."""
        size, starts = sum(map(len, self.categories_)), np.cumsum([0, *map(len, self.categories_)])
        found = np.empty(table.shape, np.int64)
        for j, values in enumerate(self.categories_):
            at = np.minimum(np.searchsorted(values, table[:, j]), len(values) - 1)
            found[:, j] = np.where(values[at] == table[:, j], starts[j] + at, size)
        return found

    @same_kind
    def decision_function(self, X: Any) -> Any:
        """Logits (samples,) of the second class."""
        codes = torch.from_numpy(self._codes(self._table(X)))
        weights = Weights(torch.tensor(self.bias_), torch.from_numpy(self.linear_), torch.from_numpy(self.embedding_))
        return machine(codes, weights, torch.from_numpy(self.kept_.astype(float))).numpy()

    @same_kind
    def predict_proba(self, X: Any) -> Any:
        """Probabilities (samples, 2) of both classes."""
        second = 1 / (1 + np.exp(-np.asarray(self.decision_function(X), np.float64)))
        return np.stack([1 - second, second], axis=1)

    def predict(self, X: Any) -> Any:
        """The likelier class (samples,)."""
        second = np.asarray(self.decision_function(X)) > 0
        found = self.classes_[second.astype(int)]
        return back(found, X) if found.dtype.kind in "biuf" else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True  # of numbers that are no categories, each seen once
        return tags
