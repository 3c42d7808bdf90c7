"""Reports to look at: a diagnosis in the shape of a model of 7 billion parameters, and a training of an adapter.

Run as a program it writes the pages and prints their size and the time until they are drawn:
`python tests/pages.py DIRECTORY`.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from eckart.jobs.diagnose.report import described_columns
from eckart.report.schema import as_json

SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (4096, 4096),
    "self_attn.v_proj": (4096, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (11008, 4096),
    "mlp.up_proj": (11008, 4096),
    "mlp.down_proj": (4096, 11008),
}


def matrix(name: str, shape: tuple[int, int], depth: float, generator: np.random.Generator) -> dict[str, Any]:
    """A row of a diagnosis with a text and a model to compare with; the spectrum falls as a power over noise."""
    full, total = min(shape), math.prod(shape)
    power, noise = generator.uniform(0.5, 0.9), generator.uniform(0.05, 0.3)
    values = 40 * (1 + np.arange(full)) ** -power + noise * (1 - np.arange(full) / full)
    squares = values**2
    norm, p = float(squares.sum()), values / values.sum()
    energy = np.cumsum(squares) / norm
    at = np.linspace(0, full - 1, 65).round().astype(int)
    pays = (total - 1) // sum(shape)
    ranks = np.linspace(1, pays, 32).round().astype(int)
    rise = 0.004 * (1 + depth) * generator.lognormal(0, 0.7) * (1 - energy[ranks - 1]) ** 1.3
    alpha, moved = generator.uniform(1.7, 6.5), generator.lognormal(-4 + depth, 0.4)
    cosines = np.sort(generator.beta(9, 1, 10))[::-1] * np.where(generator.random(10) < 0.06, 0.3, 1)
    return {
        "name": name,
        "layer_type": "dense",
        "shape": list(shape),
        "notes": [],
        "N": max(shape),
        "M": full,
        "Q": max(shape) / full,
        "exact": True,
        "num_evals": full,
        "sv_max": float(values[0]),
        "sv_min": float(values[-1]),
        "lambda_max": float(squares[0]),
        "norm": norm,
        "log_norm": math.log10(norm),
        "spectral_norm": float(squares[0]),
        "log_spectral_norm": math.log10(squares[0]),
        "stable_rank": norm / float(squares[0]),
        "matrix_rank": full,
        "rank_loss": 0,
        "entropy": generator.uniform(0.7, 0.95),
        "effective_rank": float(np.exp(-(p * np.log(p)).sum())),
        "rank_90": int((energy < 0.9).sum()) + 1,
        "rank_99": int((energy < 0.99).sum()) + 1,
        "condition": float(values[0] / values[-1]),
        "mp_sigma": noise / 100,
        "mp_edge": float(squares[full // 20]),
        "mp_spikes": full // 20,
        "mp_energy": float(energy[full // 20 - 1]),
        "alpha": alpha,
        "xmin": float(squares[full // 10]),
        "xmax": float(squares[0]),
        "D": generator.uniform(0.01, 0.08),
        "sigma": (alpha - 1) / math.sqrt(full // 10),
        "num_pl_spikes": full // 10,
        "alpha_weighted": alpha * math.log10(squares[0]),
        "log_alpha_norm": alpha * math.log10(squares[0]),
        "warning": "over-trained" if alpha < 2 else "under-trained" if alpha > 6 else "",
        "alpha_hill": alpha * 0.8,
        "alpha_farms": generator.uniform(1.8, 3.2) + depth,
        "curve_ranks": (at + 1).tolist(),
        "singular_values": values[at].tolist(),
        "energy": energy[at].tolist(),
        "moved": moved,
        "moved_spectral": moved * 1.4,
        "difference_norm": moved * math.sqrt(norm),
        "difference_rank": int(generator.integers(8, 64)),
        "difference_stable_rank": generator.uniform(2, 8),
        "difference_effective_rank": generator.uniform(8, 60),
        "difference_in_base": generator.uniform(0, 0.4),
        "overlap_left": float(np.mean(cosines**2)),
        "overlap_right": float(np.mean(cosines**2) ** 0.5),
        "intruders": int((cosines < 0.5).sum()),
        "cosines": cosines.tolist(),
        "curve": {
            "size": [*(f"rank {r}" for r in ranks), "dense"],
            "parameters": [*(int(r) * sum(shape) for r in ranks), total],
            "bytes": [*(2 * int(r) * sum(shape) for r in ranks), 2 * total],
            "macs": [*(int(r) * sum(shape) for r in ranks), total],
            "predicted_kl": [*rise.tolist(), 0.0],
        },
    }


def diagnosis(layers: int = 32) -> dict[str, Any]:
    """225 matrices of a model with 32 layers, all that a diagnosis can say of each."""
    generator = np.random.default_rng(0)
    rows = [
        matrix(f"model.layers.{layer}.{kind}", shape, math.sin(math.pi * layer / layers), generator)
        for layer in range(layers)
        for kind, shape in SHAPES.items()
    ]
    head = matrix("lm_head", (32000, 4096), 0.5, generator)
    linear = sum(row["curve"]["parameters"][-1] for row in rows)
    head["notes"] = ["alpha is of a tail of 7 values and says little"]
    del head["curve"]
    for row in rows[:1]:
        for column in ("alpha", "alpha_hill", "xmin", "xmax", "D", "sigma", "warning"):
            del row[column]
        row["notes"].append("no power law: all values are equal, so they have no tail")
    return {
        "eckart": "0.1.0",
        "model": "tuned/seven-billion",
        "against": "base/seven-billion",
        "text": {"name": "news", "tokens": 4096},
        "seed": 0,
        "window": 2048,
        "columns": as_json(described_columns(True, True)),
        "size": {"parameters": 6_738_415_616, "linear_parameters": linear, "bytes": 2 * 6_738_415_616},
        "summary": {"alpha": 3.1},
        "matrices": [*rows, head],
        "hidden_states": [
            {
                "layer": i,
                "tokens": 256,
                "dimension": 4096,
                "matrix_nuclear_norm": 0.9 - 0.5 * math.sin(math.pi * i / layers) + generator.normal(0, 0.01),
                "nuclear_norm": 0.95 - 0.5 * math.sin(math.pi * i / layers),
                "matrix_entropy": 0.8 - 0.4 * math.sin(math.pi * i / layers),
            }
            for i in range(layers + 1)
        ],
        "warnings": [],
        "seconds": 4210.0,
    }


def training() -> dict[str, Any]:
    """What `eckart adapt` writes of a training of 200 steps."""
    generator = np.random.default_rng(1)
    losses = 1.2 + 1.5 * np.exp(-np.arange(200) / 40) + generator.normal(0, 0.05, 200)
    names = [f"model.layers.{i}.{kind}" for i in range(12) for kind in SHAPES]
    return {
        "eckart": "0.1.0",
        "model": "smollm2",
        "data": "questions.jsonl",
        "method": "lora",
        "rank": 16,
        "alpha": None,
        "training": {"steps": 200, "batch": 4, "rate": 1e-3, "seed": 0},
        "examples": {"learned": 900, "validation": 100},
        "parameters": 4_884_480,
        "start": {"seconds": 1.2, "peak_rss_bytes": 900_000_000, "largest_error": 0.0},
        "loss": losses.tolist(),
        "validation": [
            {"step": s, "loss": loss} for s, loss in zip(range(0, 201, 50), (2.9, 1.8, 1.5, 1.3, 1.4), strict=True)
        ],
        "best_step": 150,
        "forgetting": {
            "text": "news",
            "before": {"perplexity": 24.1, "stderr": 0.4},
            "after": {"perplexity": 25.3, "stderr": 0.5},
        },
        "seconds": {"load": 2.1, "start": 3.0, "train": 214.0},
        "matrices": [{"name": n, "rank": int(generator.integers(4, 24)), "error": 0.0} for n in names],
    }


def main(directory: Path) -> None:
    from browser import BROWSER, asked

    from eckart.report import render

    directory.mkdir(parents=True, exist_ok=True)
    for name, report in {"diagnosis": diagnosis(), "training": training()}.items():
        text = render(report)
        (directory / f"{name}.html").write_text(text, encoding="utf-8")
        print(f"{name}.html: {len(text) / 1e6:.2f} MB")
        for _ in range(5 if BROWSER else 0):
            with tempfile.TemporaryDirectory() as scratch:
                root = asked(text, MEASURED, Path(scratch))
            print(
                f"  drawn {root['data-drawn']} ms after it was opened; {root['data-moved']} ms for a move of the slider"
            )


MEASURED = """
{
const root = document.documentElement.dataset;
root.drawn = performance.now().toFixed(0);
const [keep, start] = [document.getElementById("keep"), performance.now()];
for (let share = 20; share < 100; share += 1) { keep.value = String(share); keep.dispatchEvent(new Event("input")); }
root.moved = ((performance.now() - start) / 80).toFixed(1);
}
"""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
