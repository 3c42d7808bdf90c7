"""The tables of sketches: errors and counts."""

from __future__ import annotations

from benchmarks.pages.tables import Table


def _part(name: str) -> dict[str, str]:
    return {"benchmark": "sketching.errors", "part": name}


TABLES = {
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
}
