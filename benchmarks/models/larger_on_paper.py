"""What `larger` measured as a line, how far that is off at each size, and where it goes for 70 B.

    python -m benchmarks.models.larger_on_paper [--rows FILE] [--json FILE]

Processor seconds = a + b tokens P + c Q + d N, where P counts the model's numbers and Q those that are fitted, both in
billions, and N is the sum of n^3 + m n^2 over fitted (m, n) matrices, in 10^12; none for `wanda`, which decomposes
nothing. `gptq` refuses matrices of more than 16384 inputs, of whose moments only the diagonal is kept. The constants
are those of least squares of relative errors, none below 0, over the rows of `wanda` and `gptq`. Each row is also told
from all others.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.common.rows import RESULTS, Rows, add_option
from benchmarks.models.larger import SIZES, TOKENS, VOCABULARY
from eckart.statistics.second_moment import LARGEST

LARGE = "70 B"
SHAPES = {size: shape[:5] for size, shape in SIZES.items()} | {LARGE: (8192, 28672, 80, 64, 8)}
METHODS = ("wanda", "gptq")
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
        result = {"cpu_seconds": float(terms_of(what) @ constants), "constants": [float(each) for each in constants]}
        print(rows.add(what, result).fields)


def fitted_to(terms: Array, seconds: Array) -> Array:
    """The constants at which the relative errors of terms @ constants are least."""
    constants: Array = nnls(terms / seconds[:, None], np.ones(len(seconds)))[0]
    return constants


def terms_of(what: Mapping[str, Any]) -> Array:
    """What each constant is multiplied by."""
    hidden, inner, blocks, heads, keys = SHAPES[what["size"]]
    narrow = hidden * keys // heads
    square, key, up, down = (hidden, hidden), (narrow, hidden), (inner, hidden), (hidden, inner)
    matrices = [square, square, key, key, up, up, down]
    block = sum(m * n for m, n in matrices)
    tokens = int(TOKENS[1]) * int(TOKENS[3])
    read = tokens * (blocks * block + 2 * VOCABULARY * hidden) / 1e9
    wanda = what["method"] == "wanda"
    fitted = [(m, n) for m, n in matrices if wanda or n <= LARGEST]
    decomposed = 0.0 if wanda else sum(n**3 + m * n**2 for m, n in fitted) / 1e12
    return np.array([1.0, read, what["blocks"] * sum(m * n for m, n in fitted) / 1e9, what["blocks"] * decomposed])


if __name__ == "__main__":
    main()
