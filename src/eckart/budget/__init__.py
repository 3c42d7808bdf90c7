"""How much each matrix may cost: candidates in, one choice out."""

from eckart.budget.solve import ALLOCATIONS, Candidates, allocate

__all__ = ["ALLOCATIONS", "Candidates", "allocate"]
