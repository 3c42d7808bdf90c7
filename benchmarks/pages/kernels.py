"""The tables of kernels and what is built on them."""

from __future__ import annotations

from benchmarks.pages.tables import Table

TABLES: dict[str, Table] = {
    "graph-clusters": Table(
        "kernels",
        {"benchmark": "kernels.graphs", "part": "clusters"},
        [("", "{kind}")],
        [
            ("{graph}, plain", "{plain best:.2f} / {plain median:.2f} / {plain chosen:.2f}"),
            ("{graph}, log", "{log best:.2f} / {log median:.2f} / {log chosen:.2f}"),
        ],
    ),
    "graph-others": Table(
        "kernels",
        {"benchmark": "kernels.graphs", "part": "others"},
        [("", "{arm}")],
        [("{graph}", "{index:.2f}")],
    ),
    "graph-peer": Table(
        "kernels",
        {"benchmark": "kernels.graphs", "part": "pygkernels"},
        [
            ("", "{graph}, {nodes} nodes"),
            ("largest difference, plain", "{plain:short}"),
            ("log", "{log:short}"),
            ("seconds of six kinds, plain", "{plain seconds:.2f}"),
            ("pygkernels by these", "{plain times:.1f}"),
            ("log", "{log seconds:.2f}"),
            ("pygkernels by these", "{log times:.1f}"),
        ],
    ),
    "tangent-widths": Table(
        "kernels",
        {"benchmark": "kernels.tangent", "part": "widths"},
        [("width", "{width}"), ("of the kernel", "{kernel:.3f}"), ("of what training says", "{trained:.3f}")],
    ),
    "tangent-classes": Table(
        "kernels",
        {"benchmark": "kernels.tangent", "part": "classes"},
        [("", "{arm}")],
        [("{data}: {train} pictures, {test} asked for", "{accuracy:%1}")],
    ),
    "quantum-peers": Table(
        "kernels",
        {"benchmark": "kernels.quantum", "part": "peers"},
        [("", "{arm}")],
        [("{qubits} qubits", "{cpu_seconds:.3g} s")],
    ),
    "quantum-classes": Table(
        "kernels",
        {"benchmark": "kernels.quantum", "part": "classes"},
        [("", "{arm}")],
        [("{data}, {qubits} qubits", "{accuracy:%1} ({overlap:.2g})")],
    ),
    "quantum-shots": Table(
        "kernels",
        {"benchmark": "kernels.quantum", "part": "shots"},
        [
            ("shots a pair", "{shots:,}"),
            ("rms error of an entry", "{error:.4f}"),
            ("smallest eigenvalue", "{smallest:.3f}"),
            ("eigenvalues below zero", "{negative:%}"),
        ],
    ),
    "lattice-solves": Table(
        "kernels",
        {"benchmark": "kernels.lattices", "part": "solve"},
        [
            ("points", "{points}"),
            ("n", "{n:,}"),
            ("matrix, s", "{gram:.4f}"),
            ("solve, s", "{by eigenvalues:.4f}"),
            ("`linalg.solve`, s", "{solve:.4f}"),
            ("qmcpy: matrix, s", "{qmcpy gram:.4f}"),
            ("solve, s", "{qmcpy solve:.4f}"),
            ("qmcpy / ours", "{times:.1f}"),
            ("apart", "{apart:power}"),
            ("condition", "{condition:power}"),
        ],
    ),
    "lattice-means": Table(
        "kernels",
        {"benchmark": "kernels.lattices", "part": "means"},
        [
            ("asked for", "{tolerance}"),
            ("", "{arm}"),
            ("points", "{calls:,.0f}"),
            ("error", "{error:short}"),
            ("s", "{seconds:.2f}"),
        ],
    ),
    "lattice-values": Table(
        "kernels",
        {"benchmark": "kernels.lattices", "part": "values"},
        [
            ("points", "{n:,}"),
            ("", "{arm}"),
            ("error", "{error:.4f}"),
            ("bars of 95 % hold", "{covered:%}"),
            ("s", "{seconds:.2f}"),
        ],
    ),
    "waves-planted": Table(
        "kernels",
        {"benchmark": "kernels.multiple", "part": "planted"},
        [
            ("", "{arm}"),
            ("error by the noise", "{error:.2f}"),
            ("bars of 95 % hold", "{covered:%}"),
            ("waves left", "{left:.0f}"),
            ("rounds", "{rounds:.0f}"),
            ("bytes sent", "{bytes:,.0f}"),
            ("s", "{seconds:.2f}"),
        ],
    ),
    "waves-grids": Table(
        "kernels",
        {"benchmark": "kernels.multiple", "part": "grids"},
        [("frequencies", "{arm}"), ("error", "{error:.3f}"), ("waves left", "{left:.0f}")],
    ),
    "waves-demand": Table(
        "kernels",
        {"benchmark": "kernels.multiple", "part": "demand"},
        [
            ("", "{arm}"),
            ("error", "{error:.3f}"),
            ("bars of 95 % hold", "{covered:%}"),
            ("s", "{seconds:.1f}"),
        ],
    ),
    "waves-line": Table(
        "kernels",
        {"benchmark": "kernels.collocation", "part": "line"},
        [("u", "{u}"), ("points", "{n:,}"), ("by wave", "{points by wave:.2g}")],
        [("{arm}", "{error:short} ({seconds:.2f} s)")],
    ),
    "waves-plane": Table(
        "kernels",
        {"benchmark": "kernels.collocation", "part": "plane"},
        [("u", "{u}"), ("points", "{n} x {n}"), ("by wave", "{points by wave:.2g}")],
        [("{arm}", "{error:short} ({seconds:.2f} s)")],
    ),
    "nets-waves": Table(
        "kernels",
        {"benchmark": "kernels.random_nets", "part": "waves"},
        [("", "{arm}")],
        [("k = {k}, {units} units", "{error:short} ({norm:short})")],
    ),
    "nets-bounds": Table(
        "kernels",
        {"benchmark": "kernels.random_nets", "part": "bounds"},
        [("norm of c at most", "{norm:.0e}")],
        [("k = {k}, R = {scale:.0f}", "{error:short}")],
    ),
    "nets-tables": Table(
        "kernels",
        {"benchmark": "kernels.random_nets", "part": "tables"},
        [("", "{arm}")],
        [("{data}", "{error:.3f} +- {deviation:.3f}")],
    ),
    "eigenbases": Table(
        "kernels",
        {"benchmark": "kernels.eigenbases", "part": "sphere"},
        [("", "{arm}")],
        [("{sampling}", "{share:.3f}"), ("seconds, {sampling}", "{cpu_seconds:.2f}")],
    ),
    "series-gaps": Table(
        "kernels",
        {"benchmark": "kernels.multiple", "part": "gaps"},
        [
            ("", "{arm}"),
            ("error", "{error:.3f}"),
        ],
        right=[("bars of 95 % hold", "[{covered:%1}]"), ("s to learn", "[{seconds:.1f}]")],
    ),
    "density-gaussian": Table(
        "kernels",
        {"benchmark": "kernels.density", "part": "gaussian"},
        [("d", "{d}")],
        [("{rule}", "{gap:.3f} at {h:.2f}[, of {points:.0f}]")],
        [("h_G", "{few:.2f}"), ("h_CLT", "{limit:.2f}")],
    ),
    "density-fashion": Table(
        "kernels",
        {"benchmark": "kernels.density", "part": "fashion"},
        [("d", "{d}")],
        [("{rule}", "{score:.3f} at {h:.2f}[, of {points:.0f}]")],
    ),
    "density-speed": Table(
        "kernels",
        {"benchmark": "kernels.density", "part": "speed"},
        [
            ("", "{arm}"),
            ("seconds", "{seconds:.4f}"),
            ("largest error, of the peak", "{error:short}"),
            ("seconds to fit", "{fit:.2f}"),
        ],
    ),
    "density-left-out": Table(
        "kernels",
        {"benchmark": "kernels.density", "part": "left out"},
        [
            ("", "{n} points in {d} dimensions"),
            ("seconds", "{seconds:.2f}"),
            ("scikit-learn's", "{theirs:.1f}"),
            ("width", "{h:.3f}"),
            ("theirs", "{their h:.3f}"),
        ],
    ),
    "sequences-definite": Table(
        "kernels",
        {"benchmark": "kernels.sequences", "part": "definite"},
        [
            ("", "{distance}, width {width}"),
            ("least eigenvalue", "{least:.2f}"),
            ("share of negative ones", "{negative:%}"),
        ],
    ),
    "sequences-genes": Table(
        "kernels",
        {"benchmark": "kernels.sequences", "part": "genes"},
        [("", "{arm}")],
        [
            ("macro F1", "{f1:.3f}"),
            ("accuracy", "{accuracy:.3f}"),
            ("macro F1 at the worst width", "{worst:.3f}"),
            ("least eigenvalue", "{least eigenvalue:.1e}"),
            ("largest p", "{largest:.4f}"),
            ("correlation of p and d", "{correlation:.7f}"),
        ],
    ),
    "sequences-peptides": Table(
        "kernels",
        {"benchmark": "kernels.sequences", "part": "peptides"},
        [("", "{arm}"), ("macro F1", "{f1:.3f}"), ("seconds", "{seconds:.0f}")],
    ),
    "private-sums": Table(
        "kernels",
        {"benchmark": "kernels.private", "part": "sums"},
        [("", "{arm}")],
        [("epsilon {epsilon:g}", "{error:%1}")],
    ),
    "private-classes": Table(
        "kernels",
        {"benchmark": "kernels.private", "part": "classes"},
        [("", "{arm}")],
        [("epsilon {epsilon:g}", "{accuracy:%1}")],
    ),
}
