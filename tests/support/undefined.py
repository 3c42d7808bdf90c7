"""The compiled products under the sanitizer of undefined behaviour: whoever meets it does not live on.

    python -m tests.support.undefined

Compiles them with checks that trap, at every level, then runs the tests in which memory ends where tensors end: two
minutes of processor time, so the suite does not. Needs the package `ziglang`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from eckart.ops.native import library
from eckart.ops.native.build import compile_products

FLAGS = ("-O1", "-fsanitize=undefined", "-fsanitize-trap=all")
TESTS = (
    "tests/ops/native/test_dense.py",
    "tests/ops/native/test_quantized.py",
    "tests/ops/native/test_sparse_layouts.py",
    "tests/ops/native/test_column_sparse.py",
    "tests/ops/native/test_binary_coded.py",
    "tests/structures/test_fused.py",
)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        made = library.library(Path(folder))
        compile_products(made, FLAGS)
        library.library = lambda: made  # type: ignore[attr-defined]
        return pytest.main(["-q", "-x", "-p", "no:xdist", "-k", "reads or dense_matrix or in_float32", *TESTS])


if __name__ == "__main__":
    sys.exit(main())
