"""What is measured (SPEC 7): one table of metrics, with a function for each kind of task it suits.

Curves' areas, kappa and F1 come from scikit-learn. Labels that are masked take no part; a set of
labels with one answer only has no value here, and the reason is said (`Undefined`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from flexcare.errors import unknown
from flexcare.schema import Kind, TaskInfo

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
BINS = 10  # of the calibration error: equal width, [0, 0.1), ... [0.9, 1]


class Undefined(Exception):
    """A metric that does not exist for these labels; the message says why."""


@dataclass(frozen=True)
class Answers:
    """N samples of one task: what was predicted and what was true.

    Attributes:
        labels: (N, outputs) 0 or 1; multiclass: (N, 1), the class number.
        mask: the shape of `labels`, True where the label exists.
        probabilities: (N, outputs), of 0..1.
        subjects: (N,) numbers 0..S-1: whose sample it is.
    """

    labels: Floats
    mask: Bools
    probabilities: Floats
    subjects: Ints

    def rows(self, chosen: Bools | Ints) -> "Answers":
        """The chosen samples, their subjects numbered anew."""
        return Answers(
            self.labels[chosen],
            self.mask[chosen],
            self.probabilities[chosen],
            np.unique(self.subjects[chosen], return_inverse=True)[1].astype(np.int64),
        )


@dataclass(frozen=True)
class Pairs:
    """n predictions with their outcomes, flat: probability, outcome (0 or 1), subject."""

    probability: Floats
    outcome: Floats
    subjects: Ints

    @property
    def both(self) -> bool:
        """True if some outcomes are 1 and some are 0."""
        return bool(len(self.outcome) and self.outcome.min() != self.outcome.max())


def column(answers: Answers, output: int) -> Pairs:
    """The labelled samples of one output."""
    known = answers.mask[:, output]
    return Pairs(
        answers.probabilities[known, output],
        answers.labels[known, output],
        answers.subjects[known],
    )


def pooled(answers: Answers) -> Pairs:
    """Every labelled (sample, output) as one pair ("micro")."""
    mask = answers.mask
    subjects = np.repeat(answers.subjects, mask.sum(1))
    return Pairs(answers.probabilities[mask], answers.labels[mask], subjects)


def top_class(answers: Answers) -> Pairs:
    """Multiclass: the probability of the likeliest class, and whether it was right."""
    hit = answers.probabilities.argmax(1) == answers.labels[:, 0]
    return Pairs(answers.probabilities.max(1), hit.astype(np.float64), answers.subjects)


def calibrated_pairs(kind: Kind, answers: Answers) -> Pairs:
    """What calibration is about: every labelled output; of classes the likeliest one."""
    return top_class(answers) if kind == "multiclass" else pooled(answers)


def rarer(pairs: Pairs) -> int:
    """How many subjects have the rarer of the two outcomes."""
    return min(len(np.unique(pairs.subjects[pairs.outcome == outcome])) for outcome in (0, 1))


def defined_outputs(answers: Answers) -> list[int]:
    """Outputs with both a positive and a negative label."""
    return [k for k in range(answers.mask.shape[1]) if column(answers, k).both]


def squared_errors(answers: Answers) -> Floats:
    """Multiclass: (N,) sum over classes of (probability - truth)^2, of 0..2."""
    truth = answers.labels == np.arange(answers.probabilities.shape[1])
    errors: Floats = np.square(answers.probabilities - truth).sum(1)
    return errors


def bin_of(probability: Floats) -> Ints:
    """The calibration bin (0..9) of each probability."""
    return np.minimum((probability * BINS).astype(np.int64), BINS - 1)


def _area(function: Callable[[Floats, Floats], float], pairs: Pairs) -> float:
    if not pairs.both:
        raise Undefined(one_answer(pairs.outcome))
    return float(function(pairs.outcome, pairs.probability))


def _balance_point(outcome: Floats, probability: Floats) -> float:
    """Largest min(sensitivity, precision) over all thresholds."""
    precision, recall, _ = sk.precision_recall_curve(outcome, probability)
    return float(np.minimum(precision, recall).max())


def _first(function: Callable[[Floats, Floats], float], answers: Answers) -> float:
    return _area(function, column(answers, 0))


def _macro(function: Callable[[Floats, Floats], float], answers: Answers) -> float:
    values = [_area(function, column(answers, k)) for k in defined_outputs(answers)]
    return float(np.mean(values))


def _micro(function: Callable[[Floats, Floats], float], answers: Answers) -> float:
    return _area(function, pooled(answers))


def _classes(answers: Answers) -> tuple[Ints, Ints]:
    return answers.labels[:, 0].astype(np.int64), answers.probabilities.argmax(1)


def _quadratic_kappa(answers: Answers) -> float:
    # All class numbers are named: else distances would be counted in ranks of the classes present.
    names = np.arange(answers.probabilities.shape[1])
    return float(sk.cohen_kappa_score(*_classes(answers), labels=names, weights="quadratic"))


def _accuracy(answers: Answers) -> float:
    return float(sk.accuracy_score(*_classes(answers)))


def _macro_f1(answers: Answers) -> float:
    return float(sk.f1_score(*_classes(answers), average="macro"))


def _class_error(answers: Answers) -> float:
    return float(sk.mean_absolute_error(*_classes(answers)))


def _brier(pairs: Pairs) -> float:
    return float(np.square(pairs.probability - pairs.outcome).mean())


def _calibration_error(pairs: Pairs) -> float:
    excess = np.bincount(bin_of(pairs.probability), pairs.probability - pairs.outcome, BINS)
    return float(np.abs(excess).sum() / len(pairs.outcome))


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        label: its name for people.
        meaning: one line.
        higher_is_better: which way is good.
        functions: by kind of task: `Answers` -> value.
        ordered: has a sense only for classes that lie in an order.
    """

    label: str
    meaning: str
    higher_is_better: bool
    functions: Mapping[Kind, Callable[[Answers], float]]
    ordered: bool = False


_AP_MEANING = "how many of those called at risk truly are, averaged over all thresholds; 1 is best"
_AUROC_MEANING = "chance that one with the outcome is ranked above one without; 0.5 is a coin toss"

METRICS: dict[str, Metric] = {
    "average_precision": Metric(
        "average precision",
        _AP_MEANING,
        True,
        {"binary": partial(_first, sk.average_precision_score)},
    ),
    "auroc": Metric("AUROC", _AUROC_MEANING, True, {"binary": partial(_first, sk.roc_auc_score)}),
    "min_se_ppv": Metric(
        "min(Se, +P)",
        "sensitivity and precision where the smaller of the two is largest",
        True,
        {"binary": partial(_first, _balance_point)},
    ),
    "macro_average_precision": Metric(
        "macro average precision",
        "average precision of each label, then the mean over labels that have both answers",
        True,
        {"multilabel": partial(_macro, sk.average_precision_score)},
    ),
    "micro_average_precision": Metric(
        "micro average precision",
        "average precision of all labels thrown together",
        True,
        {"multilabel": partial(_micro, sk.average_precision_score)},
    ),
    "macro_auroc": Metric(
        "macro AUROC",
        "AUROC of each label, then the mean over labels that have both answers",
        True,
        {"multilabel": partial(_macro, sk.roc_auc_score)},
    ),
    "micro_auroc": Metric(
        "micro AUROC",
        "AUROC of all labels thrown together",
        True,
        {"multilabel": partial(_micro, sk.roc_auc_score)},
    ),
    "quadratic_kappa": Metric(
        "quadratic kappa",
        "agreement beyond chance, a miss by two classes counting four times one; 0 is chance",
        True,
        {"multiclass": _quadratic_kappa},
        ordered=True,
    ),
    "accuracy": Metric(
        "accuracy", "share of samples with the right class", True, {"multiclass": _accuracy}
    ),
    "macro_f1": Metric(
        "macro F1",
        "balance of sensitivity and precision, mean over the classes seen or predicted",
        True,
        {"multiclass": _macro_f1},
    ),
    "class_error": Metric(
        "mean class error",
        "mean distance between predicted and true class, in classes",
        False,
        {"multiclass": _class_error},
        ordered=True,
    ),
    "brier": Metric(
        "Brier score",
        "mean squared error of the probabilities; 0 is best",
        False,
        {
            "binary": lambda answers: _brier(pooled(answers)),
            "multilabel": lambda answers: _brier(pooled(answers)),
            "multiclass": lambda answers: float(squared_errors(answers).mean()),
        },
    ),
    "calibration_error": Metric(
        "calibration error",
        "mean gap between predicted and observed frequency, over ten bins of equal width; chance "
        "adds to it, so where it is small its interval lies too high",
        False,
        {
            "binary": lambda answers: _calibration_error(pooled(answers)),
            "multilabel": lambda answers: _calibration_error(pooled(answers)),
            "multiclass": lambda answers: _calibration_error(top_class(answers)),
        },
    ),
}


def one_answer(labels: Floats) -> str:
    """Why nothing can be measured on labels that are all the same."""
    if not len(labels):
        return "no sample has a label"
    return f"all {len(labels)} labels are {int(labels[0])}"


def refuse_degenerate(kind: Kind, answers: Answers) -> None:
    """Raise `Undefined` where the labels cannot tell a good model from a bad one."""
    checks: dict[str, Callable[[], bool]] = {
        "binary": lambda: column(answers, 0).both,
        "multilabel": lambda: bool(defined_outputs(answers)),
        "multiclass": lambda: len(np.unique(answers.labels)) > 1,
    }
    if len(answers.labels) and checks[kind]():
        return
    text = one_answer(answers.labels[answers.mask])
    raise Undefined(
        "no label has both answers" if kind == "multilabel" and len(answers.labels) else text
    )


def metrics_of(kind: Kind) -> list[str]:
    """Names of the metrics that suit a kind of task."""
    return [name for name, metric in METRICS.items() if kind in metric.functions]


def reported(info: TaskInfo) -> list[str]:
    """Metrics that suit a task; those of ordered classes only where the task's own is one."""
    ordered = METRICS[info.metric].ordered
    return [name for name in metrics_of(info.kind) if ordered or not METRICS[name].ordered]


def measure(name: str, kind: Kind, answers: Answers) -> float:
    """One metric.

    Raises:
        UserError: no such metric for this kind of task.
        Undefined: it has no value on these labels.
    """
    if name not in metrics_of(kind):
        raise unknown(f"metric for a {kind} task", name, metrics_of(kind))
    refuse_degenerate(kind, answers)
    return METRICS[name].functions[kind](answers)


def measure_arrays(name: str, kind: Kind, labels: Any, mask: Any, probabilities: Any) -> float:
    """`measure` on plain arrays (N, outputs), for whoever knows no subjects (training)."""
    mask = np.asarray(mask, bool)
    known = mask.any(1)
    answers = Answers(
        np.asarray(labels, np.float64)[known],
        mask[known],
        np.asarray(probabilities, np.float64)[known],
        np.zeros(int(known.sum()), np.int64),
    )
    return measure(name, kind, answers)
