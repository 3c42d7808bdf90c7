"""Adapters in the Trainer of transformers: `from eckart.trainer import AdapterCallback`."""

from eckart.jobs.adapt.trainer_callback import AdapterCallback

__all__ = ["AdapterCallback"]
