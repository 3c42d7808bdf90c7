"""eckart stores matrices as fewer numbers and keeps what matters; its names load when they are first used."""

import lazy_loader as _lazy

from eckart.models.transformers_hook import when_imported as _when_imported

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)

_when_imported()
