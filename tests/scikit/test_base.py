"""The door of the estimators: sparse tensors are what SciPy's sparse matrices are."""

import numpy as np
import pytest
import torch
from scipy import sparse

from eckart.estimators import ESTIMATORS


def test_a_sparse_tensor_is_a_sparse_matrix() -> None:
    rng = np.random.default_rng(0)
    table = np.outer(1 + rng.random(12), 1 + rng.random(8)) * (rng.random((12, 8)) < 0.7)
    tensor = torch.from_numpy(table)
    fitted = [
        ESTIMATORS["soft-impute"].entry(penalty=0.1, random_state=0).fit(each).embedding_
        for each in (sparse.csr_array(table), tensor.to_sparse(), tensor.to_sparse_csr())
    ]
    np.testing.assert_array_equal(fitted[0], fitted[1])
    np.testing.assert_array_equal(fitted[0], fitted[2])
    with pytest.raises(TypeError, match=r"(?i)sparse"):
        ESTIMATORS["rpca-ialm"].entry().fit(tensor.to_sparse())
