"""What `larger` measured as a line, how far that is off at each size, and where it goes for 70 B.

    python -m benchmarks.models.larger_on_paper [--rows FILE] [--json FILE]

Processor seconds = a + b tokens P + c Q + d N, where P counts the model's numbers and Q those that are fitted, both in
billions, and N is the sum of n^3 + m n^2 over fitted (m, n) matrices, in 10^12; none for `wanda`, which decomposes
nothing. `gptq` refuses matrices of more than 16384 inputs, of whose moments only the diagonal is kept. The constants
are those of least squares of relative errors, none below 0, over the rows of `wanda` and `gptq`. Each row is also told
from all others. Bytes that are written: two for each number that stays, and for each that is fitted as many as in the
row of the method with most blocks; those of hidden states are what lies on the disk between two blocks.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.common.rows import RESULTS, Row, Rows, add_option
from benchmarks.models.larger import SIZES, TOKENS, VOCABULARY
from eckart.statistics.second_moment import LARGEST

LARGE = "70 B"
SHAPES = {size: shape[:5] for size, shape in SIZES.items()} | {LARGE: (8192, 28672, 80, 64, 8)}
METHODS = ("wanda", "gptq")
TOKENS_READ = int(TOKENS[1]) * int(TOKENS[3])
WIDTH = 2
"""Bytes of a number in bfloat16."""
Array = np.ndarray[Any, np.dtype[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=RESULTS / "models.jsonl", help="what larger measured")
    add_option(parser)
    arguments = parser.parse_args()
    measured = [row for row in Rows("models.larger", arguments.rows) if row.what["method"] in METHODS]
    terms = np.array([terms_of(row.what) for row in measured])
    seconds = np.array([row.found["cpu_seconds"] for row in measured])
    constants = fitted_to(terms, seconds)
    rows = Rows("models.larger_on_paper", arguments.json)
    for i, row in enumerate(measured):
        others = np.arange(len(seconds)) != i
        wanted = float(terms[i] @ fitted_to(terms[others], seconds[others]))
        result = {"cpu_seconds": wanted, "measured": float(seconds[i]), "off": wanted / float(seconds[i]) - 1}
        print(rows.add(dict(row.what), result).fields)
    for method in METHODS:
        what = {"size": LARGE, "method": method, "blocks": SHAPES[LARGE][2]}
        result = {
            "cpu_seconds": float(terms_of(what) @ constants),
            "constants": [float(each) for each in constants],
            **bytes_of(what, max((row for row in measured if row.what["method"] == method), key=of_blocks)),
        }
        print(rows.add(what, result).fields)


def of_blocks(row: Row) -> int:
    return int(row.what["blocks"])


def bytes_of(what: Mapping[str, Any], row: Row) -> dict[str, float]:
    """Bytes of the model, of what is written if a fitted number takes as many as in a row, and of hidden states."""
    every, fitted = numbers_of(what)
    measured, own = numbers_of(row.what)
    each = (row.found["written_bytes"] - WIDTH * (measured - own)) / own
    return {
        "model_bytes": WIDTH * every,
        "written_bytes": WIDTH * (every - fitted) + each * fitted,
        "hidden_bytes": WIDTH * TOKENS_READ * SHAPES[what["size"]][0],
    }


def numbers_of(what: Mapping[str, Any]) -> tuple[int, int]:
    """How many numbers a model has in its matrices, and how many of them are fitted."""
    hidden, _, blocks, _, _ = SHAPES[what["size"]]
    matrices = shapes_of(what)
    block = sum(m * n for m, n in matrices)
    fitted = sum(m * n for m, n in matrices if can_be_fitted(what, n))
    return blocks * block + 2 * VOCABULARY * hidden, what["blocks"] * fitted


def can_be_fitted(what: Mapping[str, Any], inputs: int) -> bool:
    return what["method"] == "wanda" or inputs <= LARGEST


def shapes_of(what: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(out, in) of the matrices of a block."""
    hidden, inner, _, heads, keys = SHAPES[what["size"]]
    narrow = hidden * keys // heads
    return [(hidden, hidden)] * 2 + [(narrow, hidden)] * 2 + [(inner, hidden)] * 2 + [(hidden, inner)]


def fitted_to(terms: Array, seconds: Array) -> Array:
    """The constants at which the relative errors of terms @ constants are least."""
    constants: Array = nnls(terms / seconds[:, None], np.ones(len(seconds)))[0]
    return constants


def terms_of(what: Mapping[str, Any]) -> Array:
    """What each constant is multiplied by."""
    every, fitted = numbers_of(what)
    decomposed = 0.0
    if what["method"] != "wanda":
        decomposed = sum(n**3 + m * n**2 for m, n in shapes_of(what) if can_be_fitted(what, n)) / 1e12
    return np.array([1.0, TOKENS_READ * every / 1e9, fitted / 1e9, what["blocks"] * decomposed])


if __name__ == "__main__":
    main()
