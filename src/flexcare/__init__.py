"""FlexCare: one model for many clinical questions, from whatever is known of a patient.

flexcare.prepare(source, path, out)      raw tables -> store
flexcare.train(store, out)               store -> run
flexcare.evaluate(run)                   run -> predictions and their measure
flexcare.load(bundle).predict(...)       bundle -> answers
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flexcare.evaluation.run import evaluate
    from flexcare.preparation import prepare
    from flexcare.serving.predictor import load
    from flexcare.training.run import train

__all__ = ["evaluate", "load", "prepare", "train"]

_PLACES = {
    "prepare": "flexcare.preparation",
    "train": "flexcare.training.run",
    "evaluate": "flexcare.evaluation.run",
    "load": "flexcare.serving.predictor",
}


def __getattr__(name: str) -> Any:
    # On first use: `import flexcare` stays quick and needs no torch.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'flexcare' has no attribute {name!r}")
