"""DOES IT HOLD? A protocol from raw data to its table of results, by one command."""

from flexcare.reproduce.run import reproduce
from flexcare.reproduce.tuning import tune

__all__ = ["reproduce", "tune"]
