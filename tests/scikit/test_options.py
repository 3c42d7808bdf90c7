"""Options of a wrong type or range: each is refused, and quoted in what is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators import ESTIMATORS

RNG = np.random.default_rng(0)
ROWS = {"X": RNG.standard_normal((8, 2)), "y": np.arange(8) % 2}
MATRICES = {"X": np.stack([np.eye(2) * k for k in (1.0, 2.0, 3.0)])}
TRIALS = {"X": RNG.standard_normal((3, 2, 20))}
TENSOR = {"tensor": RNG.standard_normal((3, 4, 3))}
OPTIONS = {
    "ldp-sparse-regression": (ROWS, ("x_bound", "y_bound", "penalty"), ()),
    "unmixing-l21": ({"X": np.abs(ROWS["X"])}, ("sparsity", "n_components"), ()),
    "beyond-l1-coding": (ROWS, ("threshold",), ()),
    "optfs": (ROWS, ("keep", "penalty", "decay", "sharpness", "learning_rate", "max_iter"), ()),
    "functional-tucker": (ROWS, ("damping", "tol", "length_scale", "max_iter", "kernel"), ("ranks",)),
    "manifold-linearize-cluster": (ROWS, ("max_iter", "error", "temperature", "learning_rate"), ()),
    "augmented-covariance": (TRIALS, ("order", "lag", "shrinkage"), ()),
    "spd-bures-wasserstein": (MATRICES, ("power", "tol", "max_iter"), ()),
    "cp": (TENSOR, ("rank", "damping", "tolerance", "max_iter"), ()),
    "tucker": (TENSOR, ("ranks", "damping", "tolerance", "max_iter"), ("ranks",)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_no_number_in_its_range_is_refused_and_quoted(name: str) -> None:
    data, options, several = OPTIONS[name]
    card: Any = ESTIMATORS[name]
    given: dict[str, Any] = {"rank": 1} if name == "cp" else {"ranks": 1} if name == "tucker" else {}
    wrong: tuple[Any, ...] = (None, "a", [0.5], np.array([0.5, 0.5]), True, float("nan"), float("inf"), -1)
    cases = [(option, value) for option in options for value in wrong]
    cases += [(option, value) for option in several for value in ([2.5, 2], 2.5, [], ["a"], np.array([1.5]))]
    for option, value in cases:
        chosen = {**given, option: value}
        if card.kind == "solver":
            with pytest.raises(Refused, match=option):
                card.entry(**data, **chosen)
        else:
            with pytest.raises(Refused, match=option):
                card.entry(**chosen).fit(**data)
