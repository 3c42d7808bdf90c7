"""Parametrizations: a trainable structure in the place of a matrix from the start of training, one paper a file."""

from eckart.parametrizations.contract import PARAMETRIZATIONS

__all__ = ["PARAMETRIZATIONS"]
