"""eckart stores matrices as fewer numbers and keeps what matters."""

import importlib.util

from eckart._version import __version__
from eckart.compensate import Compensation, compensate
from eckart.compress import Compression, compress
from eckart.diagnose.job import Diagnosis, diagnose, mitigate_intruders
from eckart.fit import fit
from eckart.methods import METHODS
from eckart.metrics import Metric
from eckart.models.checkpoint import load, save
from eckart.models.modules import StructuredEmbedding, StructuredLinear
from eckart.recipe import Recipe
from eckart.statistics import Need, Statistics

if importlib.util.find_spec("transformers") is not None:
    from eckart.models.register import when_imported as _when_imported

    _when_imported()

__all__ = [
    "METHODS",
    "Compensation",
    "Compression",
    "Diagnosis",
    "Metric",
    "Need",
    "Recipe",
    "Statistics",
    "StructuredEmbedding",
    "StructuredLinear",
    "__version__",
    "compensate",
    "compress",
    "diagnose",
    "fit",
    "load",
    "mitigate_intruders",
    "save",
]
