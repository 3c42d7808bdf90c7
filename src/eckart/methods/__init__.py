"""Published methods: one paper, one file, one register."""

from eckart.methods import compress as _compress  # noqa: F401  (registers every method)
from eckart.methods.registry import METHODS, SIZES, Family, Fitted, Lazy, Method, compressor, find, lazy, members

__all__ = ["METHODS", "SIZES", "Family", "Fitted", "Lazy", "Method", "compressor", "find", "lazy", "members"]
