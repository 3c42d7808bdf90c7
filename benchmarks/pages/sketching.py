"""The tables of sketches: errors and counts."""

from __future__ import annotations

from benchmarks.pages.tables import Table


def _part(name: str) -> dict[str, str]:
    return {"benchmark": "sketching.errors", "part": name}


def _chosen(name: str) -> dict[str, str]:
    return {"benchmark": "sketching.choices", "part": name}


def _spent(name: str) -> dict[str, str]:
    return {"benchmark": "sketching.seconds", "part": name}


TABLES = {
    "regression-seconds": Table(
        "sketching",
        _spent("regression"),
        [("rows", "{rows:,}"), ("columns", "{columns}")],
        [("{arm}", "{seconds:.2f}")],
    ),
    "larger-transport": Table(
        "sketching",
        _part("larger transport"),
        [("points", "{shape}"), ("range of the cost / reg", "{eta}")],
        [("{arm}", "{steps} steps, {error:short}")],
    ),
    "equal-means": Table(
        "sketching",
        _part("equal means"),
        [("", "{arm}")],
        [("gain, {lines} lines", "{gain:.1f}")],
    ),
    "updates": Table(
        "sketching",
        _spent("updates"),
        [
            ("nodes", "{nodes:,}"),
            ("edges", "{of:,}"),
            ("kept", "{edges:,}"),
            ("an edge inserted", "{insert:.1f}"),
            ("deleted", "{delete:.1f}"),
            ("made anew", "{rebuild:.0f}"),
            ("condition before", "{before:.0f}"),
            ("after", "{after:.0f}"),
            ("made anew, with edges", "{fresh:.0f}, {fresh_edges:,}"),
        ],
    ),
    "fishers": Table(
        "sketching",
        _spent("Fisher"),
        [("", "{arm}")],
        [("{gradients} gradients of {length:,}", "{seconds:.2f}")],
    ),
    "sketch-growth": Table(
        "sketching",
        {"benchmark": "sketching.growth", "part": "growth"},
        [
            ("", "{method}"),
            ("by", "{by}"),
            ("at", "{held}"),
            ("from", "{first:,}"),
            ("to", "{last:,}"),
            ("exponent of time", "{slope:.2f}"),
            ("expected", "{expected:.0f}"),
            ("seconds at the largest", "{last_seconds:.2f}"),
            ("exponent of memory", "{mib_slope:.2f}"),
            ("MiB at the largest", "{last_mib:.0f}"),
        ],
    ),
    "sketch-embeddings": Table(
        "sketching",
        _spent("embedding"),
        [("", "{arm}")],
        [("{nodes:,} nodes, {entries:,} entries", "{seconds:.2f} s, {mib:.0f} MiB")],
    ),
    "sketch-forests": Table(
        "sketching",
        _chosen("forests"),
        [
            ("", "{arm}"),
            ("coordinates of a step", "{block}"),
            ("steps", "{steps:,}"),
            ("passes over all", "{passes:.1f}"),
        ],
    ),
    "sketch-agreement": Table(
        "sketching",
        {"benchmark": "sketching.peers", "part": "agreement"},
        [
            ("range of the cost / reg", "{eta}"),
            ("plans are apart by", "{apart:short}"),
            ("error of our marginals", "{error:short}"),
            ("of POT's", "{error_of_pot:short}"),
        ],
    ),
    "products": Table(
        "sketching",
        _spent("products"),
        [("", "{arm}")],
        [("{rows:,} rows", "{seconds:.3f} s, {mib:.0f} MiB")],
    ),
    "sketched-regression": Table(
        "sketching",
        _part("regression"),
        [
            ("A", "{matrix}"),
            ("sketch", "{arm}"),
            ("median", "{median:.2f}"),
            ("95 % of draws below", "{q95:.2f}"),
            ("error bars hold", "{covered:%1}"),
        ],
    ),
    "designs": Table(
        "sketching",
        _part("design"),
        [
            ("points", "{count}"),
            ("design", "{arm}"),
            ("median", "{median:.2f}"),
            ("root mean square", "{rms:.2f}"),
        ],
    ),
    "transport": Table(
        "sketching",
        _part("transport"),
        [("range of the cost / reg", "{eta}"), ("", "{arm}"), ("steps", "{steps}"), ("error", "{error:short}")],
    ),
    "transport-peers": Table(
        "sketching",
        {"benchmark": "sketching.peers", "part": "transport", "points": 300},
        [("", "{arm}")],
        across=[("range of the cost / reg {eta:,}", "[{error:short}], {seconds:.2f} s")],
    ),
    "distance-peers": Table(
        "sketching",
        {"benchmark": "sketching.peers", "part": "distance"},
        [("", "{arm}"), ("gain", "{gain:.2f}"), ("seconds", "{seconds:.4f}")],
    ),
    "node-peers": Table(
        "sketching",
        {"benchmark": "sketching.peers", "part": "nodes"},
        [("", "{arm}"), ("sections right", "{accuracy:%1}"), ("seconds", "{seconds:.1f}")],
    ),
    "sliced-distances": Table(
        "sketching",
        _part("distance"),
        [("lines", "{lines}"), ("", "{arm}"), ("gain", "{gain:.1f}"), ("bias", "{bias:%1}")],
    ),
    "sparse-spectra": Table(
        "sketching",
        _part("spectrum"),
        [
            ("signal to noise", "{noise}"),
            ("offsets for each bit", "{repetitions}"),
            ("all found, of draws", "{exact:%}"),
            ("coefficients found", "{share:%}"),
            ("values asked for", "{calls:,}"),
            ("of all", "{of all:%1}"),
        ],
    ),
    "items": Table(
        "sketching",
        _chosen("items"),
        [("calls", "{calls}"), ("", "{arm}")],
        right=[("recall@1", "{recall@1:%}"), ("recall@10", "{recall@10:%}"), ("recall@50", "{recall@50:%}")],
    ),
    "streams": Table(
        "sketching",
        _chosen("stream"),
        [("data", "{data}"), ("", "{arm:code}"), ("rows held", "{rows}")],
        right=[("median", "{median:.0e}"), ("90 % below", "{q90:.0e}")],
    ),
    "norms": Table(
        "sketching",
        _chosen("norms"),
        [("rows kept", "{rows}"), ("by", "{arm}"), ("median", "{median:.2f}"), ("90 % of draws below", "{q90:.2f}")],
    ),
    "edges": Table(
        "sketching",
        _chosen("edges"),
        [("distortion", "{distortion:g}"), ("seed", "{seed}"), ("edges", "{edges:,}")],
        [("{arm}", "{condition:.0f}")],
    ),
    "nodes": Table(
        "sketching",
        _chosen("nodes"),
        [("embedding", "{arm}"), ("accuracy", "{accuracy:.3f}"), ("macro-F1", "{f1:.3f}")],
    ),
    "sections": Table(
        "sketching",
        {"benchmark": "sketching.sections"},
        [("", "{arm}")],
        [("{known:,} known", "{accuracy:.3f}")],
    ),
    "pruned-graphs": Table(
        "sketching",
        _chosen("pruned"),
        [("edges kept", "{keep:%}")],
        [("{arm}", "{accuracy:.4f} ± {spread:.4f}")],
    ),
    "blocks": Table(
        "sketching",
        _chosen("blocks"),
        [("problem", "{problem}"), ("block", "{block}")],
        [("{arm}", "{steps}")],
    ),
    "constraints": Table(
        "sketching",
        _chosen("constraints"),
        [
            ("steps by", "{arm}"),
            ("steps", "{steps}"),
            ("products or calls", "{products:,}"),
            ("arrived", "{converged}"),
        ],
    ),
}
