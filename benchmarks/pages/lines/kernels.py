"""The lines on the cards of kernels."""

from __future__ import annotations

from benchmarks.pages.cards import Lines

KERNELS: list[Lines] = [
    Lines(
        "kernels",
        "clusters",
        "adjusted Rand index of kernel k-means, the best and the median of 15 parameters",
        {"benchmark": "kernels.graphs", "part": "clusters", "kind": ("Comm", "NHeat")},
        "{kind}, {graph}: plain {plain best:.2f} / {plain median:.2f}, log {log best:.2f} / {log median:.2f}",
        together="; ",
    ),
]
