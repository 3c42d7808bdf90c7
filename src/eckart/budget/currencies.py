"""What a budget is counted in."""

from __future__ import annotations

CURRENCIES = {
    "linear-parameters": "parameters",
    "parameters": "parameters",
    "bytes": "bytes",
    "macs": "macs",
}
"""By name: the attribute of a structure's `Cost` that counts it."""
