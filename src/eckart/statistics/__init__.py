"""The calibration pass: one streaming walk over text that collects what the methods asked for, and no more."""

from eckart.statistics.needs import Need, Statistics

__all__ = ["Need", "Statistics"]
