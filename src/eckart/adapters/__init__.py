"""Adapters: a small trainable structure beside a frozen matrix, one paper a file."""

from eckart.adapters.contract import ADAPTERS

__all__ = ["ADAPTERS"]
