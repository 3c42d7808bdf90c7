"""Matrix factorizations that the methods share; no model is known here."""

from eckart.linalg.low_rank import Projection, nested_errors, project, skeleton

__all__ = ["Projection", "nested_errors", "project", "skeleton"]
