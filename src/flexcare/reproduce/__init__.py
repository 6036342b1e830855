"""DOES IT HOLD? A protocol from raw data to its table of results, by one command."""

from flexcare.reproduce.run import reproduce

__all__ = ["reproduce"]
