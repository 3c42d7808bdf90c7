"""The compiled products under the sanitizer of undefined behaviour: whoever meets it does not live on.

    python -m tests.support.undefined [--cases 60] [--tests]

Compiles them with checks that trap, at every level, then multiplies by random matrices of every layout whose tensors
lie at the ends of memory (`fuzzed_products`), some of them damaged. The compiler alone takes minutes, so the suite does
not. With --tests the tests of the layouts follow, as far as memory ends there where tensors end. Needs the package
`ziglang`.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from eckart.ops.native import build, library
from tests.support.children import in_child
from tests.support.fuzzed_products import LAYOUTS, fuzz_all

FLAGS = ("-O1", "-fsanitize=undefined", "-fsanitize-trap=all")
TESTS = (
    "tests/ops/native/test_dense.py",
    "tests/ops/native/test_quantized.py",
    "tests/ops/native/test_sparse_layouts.py",
    "tests/ops/native/test_column_sparse.py",
    "tests/ops/native/test_binary_coded.py",
    "tests/ops/native/test_vector_quantized.py",
    "tests/structures/test_fused.py",
)


OVERFLOW = "int sum(int a, int b) { return a + b; }"


def checked(folder: Path) -> bool:
    """Whether what is compiled so dies of undefined behaviour."""
    source, made = folder / "overflow.c", folder / "overflow.so"
    source.write_text(f'__attribute__((visibility("default"))) {OVERFLOW}', encoding="ascii")
    command = [sys.executable, "-m", "ziglang", "cc", *build.FLAGS, *build.QUIET, *FLAGS, "-shared", str(source)]
    subprocess.run([*command, "-o", str(made)], check=True)
    sum_of: Any = ctypes.CDLL(str(made)).sum
    ended, _ = in_child(lambda say: sum_of(2**31 - 1, 1))
    return ended < 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=60, help="of each layout")
    parser.add_argument("--tests", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not checked(Path(folder)):
            print("an overflow was not trapped: the compiler was not told to check")
            return 1
        made = library.library(Path(folder))
        build.compile_products(made, FLAGS)
        library.library = lambda: made  # type: ignore[attr-defined]
        ended, said = in_child(lambda say: fuzz_all(given.seed, given.cases, say))
        if ended:
            print(f"a process ended with {ended} in: {said}")
            return 1
        print(
            f"{given.cases} cases of each of {len(LAYOUTS)} layouts at {', '.join(library.levels())}: nothing trapped"
        )
        if not given.tests:
            return 0
        return pytest.main(["-q", "-x", "-p", "no:xdist", "-k", "reads or dense_matrix or in_float32", *TESTS])


if __name__ == "__main__":
    sys.exit(main())
