"""Every table on disk: its columns, types and units.

Times are naive local timestamps with microseconds, `hours` count from the ICU admission.
"""

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from flexcare.errors import UserError

STORE_VERSION = 2
BUNDLE_VERSION = 1

Kind = Literal["binary", "multiclass", "multilabel"]
SPLITS = ("train", "tuning", "held_out")
TIME = pa.timestamp("us")


@dataclass(frozen=True)
class TaskInfo:
    """What the right half knows of a task: a question with named outputs.

    Attributes:
        kind: binary (1 output), multiclass (one output a class), multilabel (one a label).
        classes: names of the outputs, in order; binary: one name.
        metric: primary metric, a key of evaluation.metrics.METRICS.
        weight: factor of the task's loss.
        hourly: asked at many hours of a stay; training may draw one hour a stay and epoch.
    """

    name: str
    question: str
    kind: Kind
    classes: tuple[str, ...]
    metric: str
    weight: float = 1.0
    hourly: bool = False

    @property
    def outputs(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class ModalityInfo:
    """A named instance of a kind of modality.

    Attributes:
        kind: time_series, image, text, static, codes, embedding or wave (a key of
            models.encoders.ENCODERS).
        width: columns of a time series or of static fields, side in pixels of an image, encoder
            width of a text, number of known codes, width of an embedding, samples of a wave.
        settings: what makes two stores' modality of this name comparable: the variables and columns
            of events, the fingerprint of the text encoder. Known codes lie with the scaling.
    """

    name: str
    kind: str
    width: int
    settings: dict[str, Any]


# One row a sample. `label` has one entry for a binary task (0 or 1) and a multiclass one (the
# class number), one a label for a multilabel task. After these come the columns of modalities.
SAMPLES = pa.schema(
    [
        ("sample_id", pa.string()),  # task/stay or admission or study/hour: stable over runs
        ("task", pa.string()),
        ("subject_id", pa.int64()),
        ("hadm_id", pa.int64()),  # null where the sample belongs to no admission
        ("stay_id", pa.int64()),  # null where it belongs to no kept stay
        ("prediction_time", TIME),
        ("hours", pa.float64()),  # from ICU admission to the prediction time; null without a stay
        ("label", pa.list_(pa.float32())),
        ("label_mask", pa.list_(pa.bool_())),
        ("split", pa.string()),
    ]
)

# One row a sample and model. The first six columns and the two predicted_* are those of MEDS
# label files and of meds-evaluation; these know binary tasks only, so multiclass and multilabel
# answers lie in `probabilities`, with their labels beside them.
PREDICTIONS = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("prediction_time", TIME),
        ("boolean_value", pa.bool_()),  # label of a binary task, else null
        ("integer_value", pa.int64()),  # class number of a multiclass task, else null
        ("float_value", pa.float32()),  # always null
        ("categorical_value", pa.string()),  # class name of a multiclass task, else null
        ("predicted_boolean_value", pa.bool_()),  # probability at least 0.5; binary only
        ("predicted_boolean_probability", pa.float32()),  # binary only
        ("sample_id", pa.string()),
        ("task", pa.string()),
        ("model", pa.string()),
        ("split", pa.string()),
        ("hours", pa.float64()),
        ("label", pa.list_(pa.float32())),
        ("label_mask", pa.list_(pa.bool_())),
        ("probabilities", pa.list_(pa.float32())),  # one an output: sigmoid or softmax
        ("modalities", pa.string()),  # those present, sorted and joined by "+"; "none" if none
        ("subgroups", pa.map_(pa.string(), pa.string())),  # for instance age_band -> "65-79"
    ]
)


def check_version(found: object, expected: int, what: str) -> None:
    """Refuse an artefact of another schema version."""
    if found != expected:
        raise UserError(
            f"{what} has another schema version",
            found=f"version {found}",
            expected=f"version {expected}",
            do="Make it again with this version of flexcare, or use the version that wrote it.",
        )
