"""The calibration pass: one streaming walk over text that collects what the methods asked for, and no more."""

from eckart.statistics.cache import cache_directory, statistics_for
from eckart.statistics.collect import collect
from eckart.statistics.needs import Need, Statistics

__all__ = ["Need", "Statistics", "cache_directory", "collect", "statistics_for"]
