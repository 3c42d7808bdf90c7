"""Adapters and parametrizations in the Trainer of transformers: `from eckart.trainer import AdapterCallback`."""

try:
    from eckart.jobs.adapt.trainer_callback import AdapterCallback
    from eckart.jobs.reparametrize.trainer_callback import ParametrizationCallback
except ModuleNotFoundError as error:
    if error.name != "transformers":
        raise
    raise ImportError("eckart.trainer needs transformers, which is missing: pip install 'eckart[hf]'") from error

__all__ = ["AdapterCallback", "ParametrizationCallback"]
