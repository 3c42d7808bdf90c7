"""Linear algebra: functions on structures in the structures' own terms, and factorizations that the methods share."""

from eckart.linalg import krylov
from eckart.linalg.eigh import Eigen, eigh
from eckart.linalg.logdet import SignLogdet, logdet, slogdet
from eckart.linalg.low_rank import Projection, nested_errors, project, skeleton
from eckart.linalg.norm import norm, svdvals
from eckart.linalg.sample import sample
from eckart.linalg.solution import Solution
from eckart.linalg.solve import solve
from eckart.linalg.transpose import transpose

__all__ = [
    "Eigen",
    "Projection",
    "SignLogdet",
    "Solution",
    "eigh",
    "krylov",
    "logdet",
    "nested_errors",
    "norm",
    "project",
    "sample",
    "skeleton",
    "slogdet",
    "solve",
    "svdvals",
    "transpose",
]
