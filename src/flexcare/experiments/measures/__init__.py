"""WHAT IS MEASURED of a training: families of measures, each a function of a finished run."""

from collections.abc import Callable

from flexcare.experiments.measures.answers import answers, subsets
from flexcare.experiments.measures.conflict import conflict, cost
from flexcare.experiments.measures.extension import extension
from flexcare.experiments.measures.mask import mask
from flexcare.experiments.measures.planted import planted
from flexcare.experiments.measures.routing import routing
from flexcare.experiments.measures.spent import spent
from flexcare.experiments.measures.trained import Found, Trained

MEASURES: dict[str, Callable[[Trained], Found]] = {
    rule.__name__: rule
    for rule in (
        answers,
        subsets,
        extension,
        mask,
        routing,
        planted,
        conflict,
        cost,
        spent,
    )
}
