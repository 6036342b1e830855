"""IS IT TRUE? Claims of the method as experiments, each judged by a rule written before its run."""

from flexcare.experiments.run import experiment

__all__ = ["experiment"]
