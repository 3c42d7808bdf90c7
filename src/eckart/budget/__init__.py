"""One solver that picks a candidate for each matrix under a common budget; one allocation a file."""

from importlib import import_module
from pkgutil import iter_modules

from eckart.budget.contract import ALLOCATIONS, Candidates, allocate

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["ALLOCATIONS", "Candidates", "allocate"]
