"""Settings: TOML files checked against these tables; an unknown key is refused with its path."""

import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from flexcare.errors import UserError, unknown

S = TypeVar("S", bound="Section")
MaskMode = Literal["boolean", "additive", "none"]
Person = Literal["hours", "age_band", "sex"]


class Section(BaseModel):
    """A table of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Preparation(Section):
    """What `flexcare prepare` can be told; a preset is a set of these (SPEC 2, 4, 5).

    Defaults are those of the preset `corrected`.
    """

    seed: int = 0  # of the splits and of the random hours
    folds: int = Field(0, ge=0)  # parts of the subjects, of which one is held out; 0: a fifth is
    fold: int = Field(0, ge=0)  # which of them
    tuning: int = Field(0, ge=0)  # another number: others of those not held out are for tuning
    train_share: float = Field(
        1.0, gt=0, le=1
    )  # of the training subjects, by a hash; others unused
    min_age: float = 18  # years; 0 keeps those of unknown age, too
    age: Literal["at_icu_admission", "anchor"] = "at_icu_admission"
    one_stay: bool = True  # only admissions with exactly one ICU stay
    one_stay_first: bool = True  # counted before stays with transfers are left out
    hospital_death: Literal["flag", "deathtime"] = "flag"
    icu_death_date: Literal["date", "midnight"] = "date"  # how a date of death is compared
    returns: Literal["all", "kept"] = "all"  # which later ICU stays count as readmission
    hours: Literal["every", "one"] = "every"  # of the hourly tasks, one: by a hash
    stay_after_death: bool = False  # ask for the remaining stay after death, too
    note: Literal["available", "same_admission"] = "available"
    texts_of: Literal["subject", "admission"] = "subject"  # whose available texts are read
    max_texts: int = Field(8, ge=1)  # of one sample; the model reads the first pieces of them all
    films_of_minors: bool = False
    drg_classes: Literal["train", "all"] = "train"
    clock: Literal["charttime", "storetime"] = "charttime"  # when a value became visible
    variables: str = ""  # a file, or the name of one of the package; "": the source's
    scaling: Literal["robust", "mean_sd"] = "robust"
    fixed_scale: dict[str, float] = {}
    film_side: int = Field(224, ge=16)  # pixels kept of a film
    text_encoder: str = "hashed"
    embedding_bits: Literal[16, 8] = 16  # of a number of a word piece's vector

    @field_validator("folds")
    @classmethod
    def _some_train(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("0, or at least 2: with one fold nobody is left to train on")
        return folds

    @field_validator("fold")
    @classmethod
    def _is_a_fold(cls, fold: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds", 0)
        if fold and fold >= folds:
            raise ValueError(f"under {folds}, the number of folds")
        return fold


class ModelConfig(Section):
    """The network (SPEC 6). Defaults are the paper's."""

    hidden: int = Field(128, ge=2)  # D
    layers: int = Field(4, ge=1)
    heads: int = Field(2, ge=1)
    feedforward: int = Field(4, ge=1)  # times hidden
    dropout: float = Field(0.1, ge=0, lt=1)
    patch: int = Field(16, ge=1)  # side of a film's patches, pixels
    wave_patch: int = Field(50, ge=1)  # samples of a wave in one token
    max_bins: int = Field(512, ge=1)  # the last bins of a longer series are kept
    max_pieces: int = Field(512, ge=1)  # the first word pieces of a longer note are kept
    text_mean: bool = False  # one token for all word pieces of a sample's texts; off in the paper
    max_facts: int = Field(256, ge=1)  # the last codes or vectors of a longer history are kept
    mask: MaskMode = "boolean"
    task_token_sees: Literal["all", "combinations", "itself"] = "all"
    absent_combinations: Literal["hidden", "visible"] = "hidden"
    series_history: bool = False  # a bin also says what was seen up to it; off in the paper
    squash: bool = False  # numbers of series and fields: sign(x) log(1 + |x|); off in the paper
    pieces: bool = (
        False  # numbers of series and fields also tell which interval holds them; off too
    )
    causal_series: bool = False  # a bin sees no later one: all hours of a stay share one pass
    max_combination: int | None = Field(None, ge=1)  # cap on |S|
    mixture: Literal["experts", "one_expert", "dense_active", "dense_total"] = "experts"
    direct: bool = False  # each modality's mean token speaks to the answers, too; off in the paper
    experts: int = Field(10, ge=2)
    experts_per_token: int = Field(2, ge=1)
    gate_noise: bool = True  # only in training
    attention_temperature: float = Field(0.2, gt=0)
    # What joined a trained network, one entry an extension (training.extend writes them).
    joined_tasks: tuple[tuple[str, ...], ...] = ()
    joined_modalities: tuple[tuple[str, ...], ...] = ()


class ObjectiveConfig(Section):
    """What is minimised: task weight x (task loss + decorrelation + balance)."""

    decorrelation: Literal["covariance", "correlation", "none"] = "covariance"
    decorrelation_weight: float = Field(0.5, ge=0)
    balance_weight: float = Field(0.01, ge=0)
    task_weights: dict[str, float] = {}  # override the tasks' own


class TrainingConfig(Section):
    """How it learns (SPEC 7)."""

    epochs: int = Field(25, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)  # AdamW's
    average: float = Field(0.0, ge=0, lt=1)  # of its past, what a running mean of weights keeps
    best_by: Literal["metric", "loss"] = "metric"  # of the tuning split
    schedule: Literal[
        "sequential", "round_robin", "proportional", "temperature", "parallel", "mixed"
    ] = "sequential"
    temperature: float = Field(2.0, gt=0)  # of the temperature schedule
    epoch_steps: int | None = Field(None, ge=1)  # steps of an epoch; None: one pass
    # What a pass has of a stay's hourly questions: one, drawn anew, or all, as they are judged.
    hours: Literal["one", "every"] = "one"
    label_share: float = Field(1.0, gt=0, le=1)  # of the training subjects, by a hash
    label_overlap: Literal["same", "disjoint"] = "same"  # disjoint: each task has its own subjects
    # Of the gradients of the tasks in an update: what they become, and how loud each is before.
    aggregator: Literal[
        "sum", "mean", "upgrad", "pcgrad", "gradvac", "cagrad", "mgda", "imtl_g", "aligned_mtl",
        "config", "nash_mtl",
    ] = "sum"  # fmt: skip
    weighting: Literal["fixed", "uncertainty", "dwa", "famo"] = "fixed"
    measure_gradients: int = Field(0, ge=0)  # their cosines, every so many steps; 0: never
    halve_on_plateau: bool = True  # per-task learning rate
    patience: int | None = Field(None, ge=1)  # epochs without a better mean; None: never stop early
    clip: float | None = Field(None, gt=0)  # gradient norm
    modality_dropout: float = Field(0.0, ge=0, lt=1)  # share hidden of what a sample has
    checkpoint_minutes: float = Field(5.0, ge=0)  # 0: after every step
    keep_task_bests: bool = False
    seed: int = Field(0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


class Config(Section):
    """Everything `flexcare train` can be told."""

    network: str = "flexcare"  # or a baseline, trained by the same loop (baselines.networks)
    tasks: tuple[str, ...] | None = None  # None: all of the store
    modalities: tuple[str, ...] | None = None  # None: all of the store
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: TrainingConfig = TrainingConfig()


class BaselineConfig(Section):
    """What a baseline that learns from summaries of the evidence can be told."""

    modalities: tuple[str, ...] | None = Field(None, min_length=1)  # None: all of the store
    # What it is told beside them; the hours are those since admission.
    person: tuple[Person, ...] = ("hours", "age_band", "sex")


class TreesConfig(BaselineConfig):
    """Boosted trees. Names and meanings are LightGBM's, but for the last two."""

    learning_rate: float = Field(0.1, gt=0)
    num_leaves: int = Field(15, ge=2)
    max_bin: int = Field(63, ge=2)
    min_data_in_leaf: int = Field(20, ge=1)
    feature_fraction: float = Field(0.5, gt=0, le=1)
    lambda_l2: float = Field(0.0, ge=0)
    rounds: int = Field(200, ge=1)  # at most; fewer with many classes
    patience: int = Field(20, ge=1)  # rounds without a lower tuning loss


class LogisticConfig(BaselineConfig):
    """Logistic regression."""

    C: float | None = Field(None, gt=0)  # scikit-learn's; None: that of the lowest tuning loss


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or broken one is a `UserError`."""
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"no file {path}", expected="a TOML file with settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML", found=str(error), expected="key = value") from None


def check(kind: type[S], values: dict[str, Any], where: str) -> S:
    """Check `values` against a section; every fault in one `UserError` with dotted paths."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
        for fault in faults:
            if fault["type"] == "extra_forbidden":
                raise unknown(
                    f"setting in {where}:",
                    ".".join(map(str, fault["loc"])),
                    _paths(kind),
                ) from None
        raise UserError(
            f"settings in {where} are not usable",
            found="; ".join(f"{'.'.join(map(str, f['loc']))} = {_found(f)}" for f in faults),
            expected="; ".join(f["msg"] for f in faults),
        ) from None


def _found(fault: ErrorDetails) -> str:
    # Of what is missing pydantic shows all that stands around it.
    return "nothing" if fault["type"] == "missing" else repr(fault["input"])


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings in which `above` wins, table by table."""
    tables = {k for k, v in above.items() if isinstance(v, dict) and isinstance(below.get(k), dict)}
    return below | above | {key: over(below[key], above[key]) for key in tables}


def _paths(kind: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted paths of all settings of a section; NAME is whatever one likes."""
    out = []
    for name, field in kind.model_fields.items():
        kinds = [one for one in (field.annotation, *get_args(field.annotation)) if _is_table(one)]
        named = "NAME." if get_origin(field.annotation) is dict else ""
        inner = [path for one in kinds for path in _paths(one, f"{prefix}{name}.{named}")]
        out += inner if kinds else [prefix + name]
    return list(dict.fromkeys(out))


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
