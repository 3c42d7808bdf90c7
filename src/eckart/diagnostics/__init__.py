"""Diagnostics: numbers about a matrix, a model or data, one paper a file."""

from eckart.diagnostics.contract import DIAGNOSTICS

__all__ = ["DIAGNOSTICS"]
