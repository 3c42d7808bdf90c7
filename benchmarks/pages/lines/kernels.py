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
    Lines(
        "kernels",
        "tangent",
        "networks of two hidden layers on {points} digits: relative distance to the limit of infinite width",
        {"benchmark": "kernels.tangent", "part": "widths"},
        "width {width}: kernel {kernel:.2f}, what training says {trained:.2f}",
        together="; ",
    ),
    Lines(
        "kernels",
        "classes",
        "accuracy of kernel ridge regression, ridge and width by the error left out",
        {"benchmark": "kernels.tangent", "part": "classes", "arm": ("NTK, depth 2", "Gaussian")},
        "{data}, {arm}: {accuracy:%1}",
        together="; ",
    ),
    Lines(
        "kernels",
        "classes",
        "accuracy of kernel ridge regression, ridge and width by the error left out",
        {"benchmark": "kernels.quantum", "part": "classes", "qubits": (2, 8)},
        "{data}, {qubits} qubits, {arm}: {accuracy:%1}",
        together="; ",
    ),
    Lines(
        "kernels",
        "lattices",
        "Gram matrix and one solve, {dimensions} dimensions, one thread of a shared machine; qmcpy's time by ours",
        {"benchmark": "kernels.lattices", "part": "solve", "n": (2**16, 2**20)},
        "n = {n:,}: {gram:.3f} + {by eigenvalues:.3f} s, x{times:.1f}",
        together="; ",
    ),
    Lines(
        "kernels",
        "means",
        "mean of the borehole function (8 inputs), half of a 99 % interval below {tolerance}, median of {seeds} seeds",
        {"benchmark": "kernels.lattices", "part": "means", "tolerance": 0.1},
        "{arm}: {calls:,.0f} points, error {error:short}",
        together="; ",
    ),
    Lines(
        "kernels",
        "tones",
        "three waves with noise, {rows} rows, 100 components, {seeds} seeds: error at held-out rows by the noise",
        {"benchmark": "kernels.multiple", "part": "planted"},
        "{arm}: {error:.2f}, {left:.0f} waves left, {rounds:.0f} rounds, {bytes:,.0f} bytes",
        together="; ",
    ),
    Lines(
        "kernels",
        "demand",
        "a tenth of 1000 half-hours of electricity demand held out: error by its deviation, bars of 95 % that hold",
        {"benchmark": "kernels.multiple", "part": "demand"},
        "{arm}: {error:.3f}, {covered:%}",
        together="; ",
    ),
    Lines(
        "kernels",
        "equations",
        "Poisson's equation on a line: relative error of u, by points",
        {"benchmark": "kernels.collocation", "part": "line", "u": ("x sin 200x", "sin 500x"), "n": (400, 900)},
        "{u}, {n}, {arm}: {error:short}",
        together="; ",
    ),
    Lines(
        "kernels",
        "waves",
        "sin(k x) at {points} even points, rms error at others",
        {"benchmark": "kernels.random_nets", "part": "waves", "k": 20, "units": 400},
        "k {k}, {units} units, {arm}: {error:short}, norm of c {norm:short}",
        together="; ",
    ),
    Lines(
        "kernels",
        "sphere",
        "{points} points of a sphere, the share of the harmonics up to degree three in 16 components",
        {"benchmark": "kernels.eigenbases", "part": "sphere", "sampling": "even"},
        "{arm}: {share:.2f}",
        together="; ",
    ),
]
