"""eckart stores matrices as fewer numbers and keeps what matters."""

import importlib.util

from eckart._version import __version__
from eckart.adapt import adapt
from eckart.adapter import Adapter
from eckart.adapter_files import load_adapter, save_adapter
from eckart.compensate import Compensation, compensate
from eckart.compress import Compression, compress
from eckart.diagnose.embeddings import Embeddings, embeddings
from eckart.diagnose.job import Diagnosis, diagnose, mitigate_intruders
from eckart.fit import fit
from eckart.methods import ADAPTERS, METHODS
from eckart.metrics import Metric
from eckart.models.checkpoint import load, save
from eckart.models.convolution import StructuredConv2d
from eckart.models.modules import StructuredEmbedding, StructuredLinear
from eckart.peft import save_peft
from eckart.recipe import Recipe
from eckart.statistics import Need, Statistics
from eckart.tiled import tiled

if importlib.util.find_spec("transformers") is not None:
    from eckart.models.register import when_imported as _when_imported

    _when_imported()

__all__ = [
    "ADAPTERS",
    "METHODS",
    "Adapter",
    "Compensation",
    "Compression",
    "Diagnosis",
    "Embeddings",
    "Metric",
    "Need",
    "Recipe",
    "Statistics",
    "StructuredConv2d",
    "StructuredEmbedding",
    "StructuredLinear",
    "__version__",
    "adapt",
    "compensate",
    "compress",
    "diagnose",
    "embeddings",
    "fit",
    "load",
    "load_adapter",
    "mitigate_intruders",
    "save",
    "save_adapter",
    "save_peft",
    "tiled",
]
