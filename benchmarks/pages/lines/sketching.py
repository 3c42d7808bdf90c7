"""The lines on the cards of sketches."""

from __future__ import annotations

from typing import Any

from benchmarks.pages.cards import Lines


def _sketching(where: str, conditions: str, select: dict[str, Any], line: str) -> Lines:
    return Lines("sketching", where, conditions, {"benchmark": "sketching.errors"} | select, line, together="; ")


def _choices(where: str, conditions: str, select: dict[str, Any], line: str) -> Lines:
    return Lines("sketching", where, conditions, {"benchmark": "sketching.choices"} | select, line, together="; ")


def _seconds(where: str, conditions: str, select: dict[str, Any], line: str) -> Lines:
    return Lines("sketching", where, conditions, {"benchmark": "sketching.seconds"} | select, line, together="; ")


SKETCHING = [
    _sketching(
        "regression",
        "{rows} x {columns}, sketches of {size} rows, {draws} draws: the worst coordinate's error by sqrt(d) / "
        "(|r| |A^+|), 95 % of draws below",
        {"part": "regression"},
        "{matrix} A, {arm} {q95:.2f}",
    ),
    _sketching(
        "design",
        "exp(sin 4x) in {features} Legendre polynomials, {draws} draws: root mean square of the error by that "
        "of the best fit",
        {"part": "design"},
        "{count} points, {arm} {rms:.2f}",
    ),
    _sketching(
        "transport",
        "{points} x {points} digits, steps after those of Sinkhorn's and the error of both marginals",
        {"part": "transport"},
        "range of the cost / reg {eta}, {arm}: {steps} steps, {error:short}",
    ),
    _sketching(
        "distance",
        "digits 3 and 8, {draws} draws: mean squared error of independent lines by that of",
        {"part": "distance", "arm": ("lower control", "orthogonal lines", "orthogonal, lower control")},
        "{lines} lines, {arm} {gain:.1f}",
    ),
    _sketching(
        "spectrum",
        "24 coefficients on 16 bits, {draws} draws: how often all were found, and the share of values asked for",
        {"part": "spectrum"},
        "noise {noise}, {repetitions} offsets: {exact:%}, {of all:%1}",
    ),
    _seconds(
        "regression-seconds",
        "processor seconds of one thread, sketches of 8 rows a column",
        {"part": "regression", "rows": (100_000, 50_000)},
        "{rows} x {columns}, {arm} {seconds:.2f}",
    ),
    _sketching(
        "larger-transport",
        "digits to others with noise, annealed, 100 steps at most: steps, and the error of both marginals",
        {"part": "larger transport"},
        "{shape}, range of the cost / reg {eta}, {arm}: {steps} steps, {error:short}",
    ),
    _sketching(
        "equal-means",
        "two halves of the digits 3, {draws} draws: mean squared error of independent lines by that of",
        {"part": "equal means", "arm": ("lower control", "orthogonal lines", "orthogonal, lower control")},
        "{lines} lines, {arm} {gain:.1f}",
    ),
    _seconds(
        "updates",
        "grids, an edge inserted or deleted beside all made anew: processor milliseconds of one thread",
        {"part": "updates"},
        "{nodes} nodes, {insert:.1f} and {delete:.1f} beside {rebuild:.0f}",
    ),
    Lines(
        "sketching",
        "growth",
        "exponents of processor time and of memory beyond a MiB",
        {"benchmark": "sketching.growth", "part": "growth"},
        "by {by} from {first} to {last} {slope:.2f}[, memory {mib_slope:.2f}]",
        together="; ",
    ),
    _seconds(
        "embedding",
        "a graph of {nodes} nodes and {entries} entries, 128 components: processor seconds and peak MiB",
        {"part": "embedding", "nodes": 100_000},
        "{arm} {seconds:.2f} s, {mib:.0f} MiB",
    ),
    _choices(
        "forests",
        "sources on a grid of 900 nodes, to 1e-6: passes over all coordinates, by coordinates of a step",
        {"part": "forests"},
        "{arm} of {block} {passes:.1f}",
    ),
    Lines(
        "sketching",
        "agreement",
        "{points} x {points} digits: the largest difference of the plan from POT's, by the largest entry",
        {"benchmark": "sketching.peers", "part": "agreement"},
        "range of the cost / reg {eta} {apart:short}",
        together="; ",
    ),
    _seconds(
        "products",
        "A^2 of {rows} rows with ten entries each: processor seconds and peak MiB",
        {"part": "products", "rows": 20_000},
        "{arm} {seconds:.3f} s, {mib:.0f} MiB",
    ),
    _choices(
        "items",
        "{queries} peptides to be found among {items} by edit similarity, 200 known ones: the share of the ten "
        "most alike that is found",
        {"part": "items"},
        "{calls} calls, {arm} {recall@10:%}",
    ),
    _choices(
        "stream",
        "one pass over rows in random order, {draws} draws: the median of 1 - <v, v_1>^2, by the rows that are held",
        {"part": "stream"},
        "{data}, {arm} ({rows} rows) {median:.0e}",
    ),
    _choices(
        "norms",
        "400 x 6 of heavy tails, {draws} draws: the median of the worst error of |A x|_1 over 200 directions",
        {"part": "norms"},
        "{rows} rows by {arm} {median:.2f}",
    ),
    _choices(
        "edges",
        "the grid of a photo of 32 x 32, {of} edges: the condition of the graph by what is kept of it, as many edges "
        "each",
        {"part": "edges", "seed": 0},
        "{edges} edges, {arm} {condition:.0f}",
    ),
    _choices(
        "nodes",
        "{nodes} packages of Debian with {edges} edges, 20 sections by logistic regression on 3000: accuracy and "
        "macro-F1",
        {"part": "nodes"},
        "{arm} {accuracy:.3f}, {f1:.3f}",
    ),
    Lines(
        "sketching",
        "sections",
        "{nodes} packages of Debian with {edges} edges, hubs too, {sections} sections, of {asked} others: accuracy",
        {"benchmark": "sketching.sections", "known": 3000},
        "{arm}, {known} known {accuracy:.3f}",
        together="; ",
    ),
    _choices(
        "pruned",
        "{nodes} packages of Debian, 20 sections by a graph network of two layers, {seeds} seeds: accuracy",
        {"part": "pruned"},
        "{keep:%} of the edges, {arm} {accuracy:.4f} ± {spread:.4f}",
    ),
    _choices(
        "blocks",
        "steps of a block until 1e-6, 20,000 at most",
        {"part": "blocks"},
        "{problem}, blocks of {block}, {arm} {steps}",
    ),
    _choices(
        "constraints",
        "logistic regression on digits with {equations} linear equations, to 1e-8",
        {"part": "constraints"},
        "{arm}: {steps} steps, {products:,} products[; arrived: {converged}]",
    ),
]
