"""What a report is made of: plain data, no patient. Parts that are absent are said to be absent."""

from dataclasses import dataclass, field
from typing import Any

from flexcare.schema import TaskInfo

Value = dict[str, Any]  # value, low, high; more keys are allowed
TOGETHER = "all questions together"
ALONE = "this question alone"


@dataclass(frozen=True)
class CompanionRun:
    """One training run of the opening picture.

    Attributes:
        role: `TOGETHER`, `ALONE`, or what it was restricted to ("film only").
        curve: (epoch, metric on the tuning split).
        held_out: by task: value, low, high on the held-out split.
    """

    name: str
    role: str
    curve: list[tuple[float, float]]
    held_out: dict[str, Value]


@dataclass(frozen=True)
class Companions:
    """The opening picture: one question learned with others, alone, and from one modality.

    Attributes:
        metric: of `held_out`, a key of `evaluation.metrics.METRICS`.
        curve_metric: of the runs' curves, where it is another one.
    """

    task: str
    question: str
    metric: str
    runs: list[CompanionRun]
    curve_metric: str = ""


@dataclass(frozen=True)
class Routing:
    """How the experts were used.

    Attributes:
        usage: by task: rows of `experts`, columns of `combinations`: gate weight given, as sums or
            as shares; a combination that never occurred has zeros.
        warnings: for instance that all tasks route alike, or that experts are dead.
    """

    experts: list[str]
    combinations: list[str]
    usage: dict[str, list[list[float]]]
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ReportContent:
    """Everything on the page.

    Attributes:
        generated: when and by what, as text.
        evaluation: of `evaluation.evaluate.evaluate_tables`; the first model is "the network".
        tasks: by name, in the order of the page.
        models: one line on each model, by name.
        cohort_flow: by table or task: rows {step, left_out, remaining, reason, unit}.
        missing: by modality, by split: share of samples without it, 0..1.
        combinations: by task: number of samples by combination present.
        taken: {subsets, grid} of `evaluation.subsets.judged`.
        training: rows {epoch, task, train_loss, tuning_loss}; other keys are ignored.
        settings: the resolved configuration.
        provenance: versions, seeds, source fingerprint, command, wall time, preset; the entry
            "warnings", a list of texts, is shown at the top.
    """

    title: str
    generated: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, TaskInfo] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    companions: Companions | None = None
    cohort_flow: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: dict[str, dict[str, float]] = field(default_factory=dict)
    combinations: dict[str, dict[str, int]] = field(default_factory=dict)
    routing: Routing | None = None
    taken: dict[str, Any] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
