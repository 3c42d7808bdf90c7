"""The lines on the cards, a module for each family."""

from __future__ import annotations

from benchmarks.pages.lines.adapters import ADAPTERS
from benchmarks.pages.lines.compressors import COMPRESSORS
from benchmarks.pages.lines.diagnostics import DIAGNOSTICS
from benchmarks.pages.lines.estimators import ESTIMATORS
from benchmarks.pages.lines.inference import INFERENCE
from benchmarks.pages.lines.kernels import KERNELS
from benchmarks.pages.lines.layers import LAYERS
from benchmarks.pages.lines.optim import OPTIM
from benchmarks.pages.lines.parametrizations import PARAMETRIZATIONS
from benchmarks.pages.lines.sketching import SKETCHING

LINES = [
    *COMPRESSORS,
    *ADAPTERS,
    *DIAGNOSTICS,
    *INFERENCE,
    *PARAMETRIZATIONS,
    *LAYERS,
    *SKETCHING,
    *OPTIM,
    *ESTIMATORS,
    *KERNELS,
]
