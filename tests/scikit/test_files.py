"""Files of estimators: generators among the options, and paths that cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eckart.errors import Refused
from eckart.estimators import ESTIMATORS
from eckart.scikit.files import load, save


@pytest.mark.parametrize(
    "state",
    [
        *(np.random.Generator(getattr(np.random, bits)(3)) for bits in ("PCG64", "MT19937", "Philox", "SFC64")),
        np.random.RandomState(3),
    ],
    ids=lambda state: f"{type(state).__name__}-{state}",
)
def test_a_generator_goes_on_where_it_was_saved(state: Any, tmp_path: Path) -> None:
    state.standard_normal(5, **({"dtype": np.float32} if isinstance(state, np.random.Generator) else {}))
    save(ESTIMATORS["soft-impute"].entry(random_state=state), tmp_path / "saved")
    loaded = load(tmp_path / "saved").random_state
    assert type(loaded) is type(state)
    np.testing.assert_array_equal(loaded.standard_normal(700), state.standard_normal(700))


def test_a_path_that_cannot_be_is_refused_by_its_name(tmp_path: Path) -> None:
    for path in (tmp_path / "not there" / "b", tmp_path):
        with pytest.raises(Refused, match="directory"):
            save(ESTIMATORS["soft-impute"].entry(), path)
