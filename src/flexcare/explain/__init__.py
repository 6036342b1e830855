"""Why did it answer so? One sample's answer, taken apart."""

from flexcare.explain.gradients import deletion_curve, integrated_gradients
from flexcare.explain.run import explain, write
from flexcare.explain.shapley import shapley_values
from flexcare.explain.words import as_text

__all__ = [
    "as_text",
    "deletion_curve",
    "explain",
    "integrated_gradients",
    "shapley_values",
    "write",
]
