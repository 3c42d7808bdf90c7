"""Reports as a run would write them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eckart.report import decimate

SHAPES = {
    "self_attn.q_proj": (576, 576),
    "self_attn.k_proj": (192, 576),
    "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576),
    "mlp.gate_proj": (1536, 576),
    "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}


def low_rank_site(name: str, shape: tuple[int, int], generator: np.random.Generator, size: float) -> dict[str, Any]:
    """A site with a decaying spectrum, cut at a rank that keeps about `size` of it, or left dense where that is all."""
    (m, n), full = shape, min(shape)
    values = (1 + np.arange(full)) ** -generator.uniform(0.35, 0.9) * generator.uniform(2, 30)
    tail = np.concatenate([np.cumsum(values[::-1] ** 2)[::-1], [0.0]]) / np.sum(values**2)
    ranks = np.unique(np.linspace(0, full, 33).round().astype(int))
    rank = int(size * m * n / (m + n))
    dense = rank * (m + n) >= m * n
    parameters = m * n if dense else rank * (m + n)
    site: dict[str, Any] = {
        "name": name,
        "structure": "Dense" if dense else "Chain(Dense, Dense)",
        "shape": [m, n],
        "parameters": parameters,
        "bytes": 2 * parameters,
        "dense_bytes": 2 * m * n,
        "error": 0.0 if dense else float(tail[rank]),
        "dense": dense,
        "curve": {"parameters": [int(r) * (m + n) for r in ranks], "error": [float(tail[r]) for r in ranks]},
        "spectrum": decimate(values.tolist(), 64),
    }
    return site if dense else {**site, "rank": rank, "predicted_kl": float(tail[rank]) * 0.01}


def realistic(layers: int = 30) -> dict[str, Any]:
    """A report such as a run on a language model of 135 million parameters would write."""
    generator = np.random.default_rng(0)
    sites = []
    for layer in range(layers):
        for kind, shape in SHAPES.items():
            depth = 0.55 + 0.35 * math.sin(math.pi * layer / 29) ** 2 + (0.3 if "v_proj" in kind else 0.0)
            size = depth + generator.uniform(-0.12, 0.12)
            sites.append(low_rank_site(f"model.layers.{layer}.{kind}", shape, generator, size))
    failed = sites[3]
    failed.update(structure="Dense", parameters=576 * 576, bytes=2 * 576 * 576, error=0.0, dense=True)
    failed["reason"] = "the second moment of the inputs holds a value that is not finite"
    del failed["rank"], failed["predicted_kl"]
    sites.append(low_rank_site("lm_head", (49152, 576), generator, 2.0))
    linear = sum(site["parameters"] for site in sites[:-1])
    dense = sum(math.prod(site["shape"]) for site in sites[:-1])
    rest = 134_515_008 - dense
    return {
        "eckart": "0.1.0",
        "model": "smollm2",
        "method": "auto",
        "allocation": "exact",
        "seed": 0,
        "requested": {"keep": 0.7, "of": "linear-parameters"},
        "calibration": {
            "text": "wikitext-2 train",
            "tokens": 131072,
            "fingerprint": "b3f1c2a94e07",
            "sequential": False,
            "passes": 1,
            "gradient_checkpointing": True,
        },
        "size": {
            "parameters": {"before": rest + dense, "after": rest + linear},
            "linear_parameters": {"before": dense, "after": linear},
            "bytes": {"before": 2 * (rest + dense), "after": 2 * (rest + linear)},
            "macs_per_token": {"before": rest + dense, "after": rest + linear},
        },
        "quality": {
            "metric": "perplexity",
            "text": "wikitext-2 test",
            "tokens": 32768,
            "before": {"mean": 32.71, "stderr": 0.61},
            "after": {"mean": 43.12, "stderr": 0.84},
            "kl": 0.2134,
            "top1_agreement": 0.781,
            "predicted_kl": 0.1872,
        },
        "speed": {
            "prefill_tokens_per_second": {"before": 212.0, "after": 263.5},
            "decode_tokens_per_second": {"before": 14.2, "after": 17.9},
            "prefill_ratio": 1.241,
            "decode_ratio": 1.262,
            "threads": 1,
            "dtype": "float32",
        },
        "memory": {"peak_rss_bytes": 2_310_000_000},
        "seconds": {"load": 4.1, "statistics": 402.0, "fit": 187.3, "solve": 1.2, "write": 3.4, "evaluate": 220.9},
        "sites": sites,
        "warnings": [
            "the weights lie on a 4-bit grid with groups of 32; results of quantizers look better than they are",
            "model.layers.0.self_attn.o_proj stayed dense: the second moment of its inputs is not finite",
        ],
        "samples": {
            "prompt": "The river rises in the hills",
            "before": " to the north of the town and flows south-east for forty miles before it meets the sea.",
            "after": " of the north and flows through the town, where it is joined by a smaller stream.",
        },
        "history": [
            {"keep": keep, "parameters": int(rest + keep * dense), "perplexity": perplexity}
            for keep, perplexity in [(0.9, 34.4), (0.8, 36.3), (0.6, 65.9), (0.5, 98.0)]
        ],
    }
