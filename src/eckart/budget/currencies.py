"""What a budget is counted in."""

from __future__ import annotations

COUNTED = {
    "linear-parameters": "parameters",
    "parameters": "parameters",
    "bytes": "bytes",
    "macs": "macs",
}
"""By name: the attribute of a structure's `Cost` that counts it."""

TIMED = {"decode-time": 1, "prefill-time": 128}
"""By name: how many tokens pass at once through products whose predicted seconds are counted."""

CURRENCIES = (*COUNTED, *TIMED)
"""What a share can be of."""
