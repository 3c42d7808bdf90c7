"""The same model, computed otherwise: one paper a file."""

from eckart.inference.contract import INFERENCE

__all__ = ["INFERENCE"]
