"""Matrix factorizations that the methods share; no model is known here."""

from eckart.linalg.lowrank import Projection, project, skeleton

__all__ = ["Projection", "project", "skeleton"]
