"""Compressors: candidates of a smaller structure for a matrix, one paper a file."""

from eckart.compressors.contract import METHODS

__all__ = ["METHODS"]
