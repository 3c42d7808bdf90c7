"""Published methods: one paper, one file, one register."""

from eckart.methods import adapt as _adapt  # noqa: F401  (registers every adapter)
from eckart.methods import compress as _compress  # noqa: F401  (registers every method)
from eckart.methods.adapters import ADAPTERS
from eckart.methods.registry import (
    METHODS,
    SIZES,
    Family,
    Fitted,
    JointFamily,
    Lazy,
    Members,
    Method,
    built,
    compressor,
    find,
    lazy,
    members,
    together,
)

__all__ = [
    "ADAPTERS",
    "METHODS",
    "SIZES",
    "Family",
    "Fitted",
    "JointFamily",
    "Lazy",
    "Members",
    "Method",
    "built",
    "compressor",
    "find",
    "lazy",
    "members",
    "together",
]
