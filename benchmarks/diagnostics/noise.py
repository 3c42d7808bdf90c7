"""Diagnostics on matrices whose answer is known: noise of several shapes, and directions planted in it.

    OMP_NUM_THREADS=1 python -m benchmarks.diagnostics.noise

Gaussian noise has one exponent whatever its shape should be; the first table shows Hill's plain one beside that over
windows (FARMS). In the second, directions of a known strength are planted in noise of unit variance, as multiples of
its edge, and the Marchenko-Pastur bulk says how many there are and how large the noise is. Means and deviations over
the draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.rows import Rows, add_option
from eckart.diagnostics._tails import hill
from eckart.diagnostics.farms import farms
from eckart.diagnostics.marchenko_pastur import bulk
from eckart.linalg.spectrum import spectrum

SHORTER = 128
ASPECTS = (1, 2, 4, 8)
STRENGTHS = (0.4, 0.5, 0.6, 1.0)
PLANTED = 5


def planted(shape: tuple[int, int], strength: float, count: int, generator: torch.Generator) -> Tensor:
    """Noise of unit variance, and `count` directions whose singular values are `strength` times the noise's edge."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    left, right = (torch.linalg.qr(torch.randn(n, count, generator=generator, dtype=torch.float64)).Q for n in shape)
    edge = shape[0] ** 0.5 + shape[1] ** 0.5
    return noise + strength * edge * left @ right.T


def mean(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "spread": float(np.std(values))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("diagnostics.noise", options.json)
    generator = torch.Generator().manual_seed(options.seed)
    setting = {"draws": options.draws, "seed": options.seed}
    print(f"{'noise':>10} {'hill':>16} {'farms':>16}")
    for aspect in ASPECTS:
        shape = SHORTER, aspect * SHORTER
        drawn = [torch.randn(shape, generator=generator) for _ in range(options.draws)]
        found = {
            "hill": mean([hill(spectrum(w).positive) for w in drawn]),
            "farms": mean([farms(w, (SHORTER // 2, SHORTER // 2)) for w in drawn]),
        }
        rows.add({"part": "shape", "rows": shape[0], "columns": shape[1], "window": SHORTER // 2, **setting}, found)
        cells = "".join(f" {f['mean']:>8.3f} ± {f['spread']:.3f}" for f in found.values())
        print(f"{shape[0]:>4} x {shape[1]:<4}{cells}", flush=True)
    print(f"{'strength':>10} {'planted':>8} {'found':>14} {'sigma':>16}")
    shape = 2 * SHORTER, 4 * SHORTER
    for strength in (0.0, *STRENGTHS):
        count = PLANTED if strength else 0
        bulks = [bulk(spectrum(planted(shape, strength, count, generator))) for _ in range(options.draws)]
        found = {"spikes": mean([b.spikes for b in bulks]), "sigma": mean([b.sigma for b in bulks])}
        what = {"part": "planted", "rows": shape[0], "columns": shape[1], "strength": strength, "planted": count}
        rows.add({**what, **setting}, found)
        cells = "".join(f" {f['mean']:>8.3f} ± {f['spread']:.3f}" for f in found.values())
        print(f"{strength:>10} {count:>8}{cells}", flush=True)


if __name__ == "__main__":
    main()
