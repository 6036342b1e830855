"""A trained network learns a new task or a new modality and keeps its answers (SPEC 10, Q2 and R1).

All that it has learned is held fixed. A new task brings its row of the task embedding and its
heads, a new modality its encoder, the tokens of the combinations that it is part of and, with
`model.direct`, what it says to each task by itself. Only these are trained, so where the new task
is not asked, or the new modality is absent, every answer is what it was, to the bit
(`Network.answer` and `Network.generations` see to the last digits).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from flexcare.config import Config, check, over
from flexcare.errors import UserError, unknown
from flexcare.evaluation.metrics import Undefined, measure
from flexcare.evaluation.predictions import cases
from flexcare.files import refuse_existing, sha256, write_json
from flexcare.models.flexcare import FlexCare
from flexcare.processes import first
from flexcare.schema import ModalityInfo, TaskInfo
from flexcare.serving.bundle import WEIGHTS, Bundle, load_bundle
from flexcare.serving.matching import Say, shared_modalities
from flexcare.serving.predictor import Predictor
from flexcare.store import Store
from flexcare.training.objectives import task_weights
from flexcare.training.run import assembled, having, learn, resumed

FORGETTING = "forgetting.json"


@dataclass(frozen=True)
class Options:
    """How an extension is learned.

    Attributes:
        unfreeze: train everything, to compare: old answers then change.
        settings: [objective] and [training] (config.Config) where they are to differ from those
            that the bundle was trained with; of a new modality also the `tasks` to learn it from.
        epochs, seed: of the training.
        resume: go on from the last checkpoint.
    """

    unfreeze: bool = False
    settings: dict[str, Any] | None = None
    epochs: int | None = None
    seed: int | None = None
    resume: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class New:
    """What joins a network: tasks or modalities, as a store has them."""

    tasks: tuple[TaskInfo, ...] = ()
    modalities: tuple[ModalityInfo, ...] = ()

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """Of the tasks, and of the modalities."""
        return [info.name for info in self.tasks], [info.name for info in self.modalities]


def extend_task(
    bundle: str | Path,
    store: str | Path,
    tasks: Sequence[str],
    out: str | Path,
    how: Options = Options(),
) -> Path:
    """Teach a bundle tasks of a store that it does not know.

    Returns:
        The path of the run: `out`/bundle answers old and new tasks, and `out`/forgetting.json says
        what the old ones' held-out answers have become.

    Raises:
        UserError: bad input, or the training diverged.
        KeyboardInterrupt: as `flexcare.train`.
    """
    opened = Store(Path(store))
    for name in tasks:
        if name not in opened.tasks:
            raise unknown("task", name, opened.tasks, f"Store {opened.path} has these.")
    new = New(tasks=tuple(opened.tasks[name] for name in dict.fromkeys(tasks)))
    return _extend(Path(bundle), opened, new, Path(out), how)


def extend_modality(
    bundle: str | Path,
    store: str | Path,
    modalities: Sequence[str],
    out: str | Path,
    how: Options = Options(),
) -> Path:
    """Teach a bundle to read modalities of a store that it does not take.

    It learns from the bundle's tasks that the store asks, from the samples that have a new
    modality.

    Returns, Raises:
        as `extend_task`; forgetting.json is about answers without the new modalities.
    """
    opened = Store(Path(store))
    for name in modalities:
        if name not in opened.modalities:
            raise unknown("modality", name, opened.modalities, f"Store {opened.path} has these.")
    new = New(modalities=tuple(opened.modalities[name] for name in dict.fromkeys(modalities)))
    return _extend(Path(bundle), opened, new, Path(out), how)


def _extend(bundle: Path, store: Store, new: New, out: Path, how: Options) -> Path:
    """Grow, hold, learn, and look back."""
    if not how.resume:
        refuse_existing(out)
    old = load_bundle(bundle)
    network = _extensible(old, new, how)
    say: Say = _silent if how.quiet else partial(print, file=sys.stderr)
    common = list(_common(old, store, say))
    config = _config(old, new, common, how)
    model = grown(network, new, config.training.seed, frozen=not how.unfreeze)
    scales = store.manifest["scaling"]
    scaling = old.scaling | {name: scales[name] for name in new.names[1] if name in scales}
    whole = Bundle(model, model.modalities, model.tasks, scaling, old.provenance)
    extends = {
        "weights_sha256": sha256(bundle / WEIGHTS),
        "tasks": new.names[0],
        "modalities": new.names[1],
        "frozen": not how.unfreeze,
        "provenance": old.provenance,
    }
    if how.resume:
        config = resumed(out, store, _given(how), extends)
    else:
        config = _named(config, whole, store, new, common, say)
    held = {} if how.unfreeze else hold(model, network)
    loop = assembled(store, config, model, scaling, with_any=new.names[1])
    learn(loop, out, held=held, extends=extends, resume=how.resume, quiet=how.quiet)
    if first():
        kept = load_bundle(out / "bundle")
        write_json(out / FORGETTING, forgetting(old, kept, store, common, new.names[1]))
    return out


def _extensible(old: Bundle, new: New, how: Options) -> FlexCare:
    """The bundle's network.

    Raises:
        UserError: it cannot be extended by what is new.
    """
    if not isinstance(old.model, FlexCare):
        raise UserError(
            "this network cannot be extended",
            found=old.model.name,
            expected=FlexCare.name,
            do="Train a new network on all tasks and modalities.",
        )
    if not new.tasks and not new.modalities:
        raise UserError("nothing new is named", expected="at least one task, or one modality")
    for names, known in zip(new.names, New(old.tasks, old.modalities).names, strict=True):
        if again := sorted(set(names) & set(known)):
            raise UserError(f"the bundle knows {again[0]} already", expected="something new")
    if new.modalities and old.model.config.absent_combinations == "visible" and not how.unfreeze:
        raise UserError(
            "a new modality would change old answers of this network",
            found='model.absent_combinations = "visible": what is absent is looked at',
            expected='"hidden", the default',
            do="Use --unfreeze, or train a new network.",
        )
    return old.model


def _common(old: Bundle, store: Store, say: Say) -> Iterator[str]:
    """The bundle's tasks that the store asks with the same answers; others are said."""
    for info in old.tasks:
        found = store.tasks.get(info.name)
        if found and (found.kind, found.classes) == (info.kind, info.classes):
            yield info.name
        elif found:
            say(f"{info.name}: left out, its classes are others than the bundle's")


def _given(how: Options) -> dict[str, Any]:
    """The settings, with what has an option of its own over them."""
    given = {"epochs": how.epochs, "seed": how.seed}
    named = {key: value for key, value in given.items() if value is not None}
    return over(how.settings or {}, {"training": named} if named else {})


def _config(old: Bundle, new: New, common: list[str], how: Options) -> Config:
    """The settings given, over those that the bundle was trained with.

    Raises:
        UserError: an unknown setting, or one that the bundle decides.
    """
    given = _given(how)
    check(Config, given, "the settings of extend")
    decided = {"network", "model", "modalities"} | ({"tasks"} if new.tasks else set())
    if wrong := sorted(decided & given.keys()):
        raise UserError(
            "an extension takes these from the bundle and the command",
            found=", ".join(wrong),
            expected="[objective] and [training]" + ("" if new.tasks else ", or tasks"),
        )
    for name in given.get("tasks") or ():
        if name not in common:
            raise unknown("task", name, common, "The bundle and the store have these together.")
    before = old.provenance.get("config", {})
    below = {key: before[key] for key in ("objective", "training") if key in before}
    config = check(Config, over(below, given), "the settings of extend")
    task_weights([*old.tasks, *new.tasks], config.objective)  # an unknown task is refused
    return config.model_copy(update={"model": old.model.config})


def _named(
    config: Config, whole: Bundle, store: Store, new: New, common: list[str], say: Say
) -> Config:
    """The configuration with tasks and modalities named."""
    tasks, modalities = new.names
    learnable = [n for n in common if len(having(store, store.rows(n, "train"), modalities))]
    return config.model_copy(
        update={
            "tasks": tuple(tasks or config.tasks or learnable),
            "modalities": tuple(shared_modalities(whole, store, say)),
            "model": whole.model.config,
        }
    )


def grown(old: FlexCare, new: New, seed: int, frozen: bool) -> FlexCare:
    """The same network with room for what is new, which starts at random.

    Args:
        frozen: the old part will stay as it is, so its answers can be told apart.
    """
    tasks, modalities = ((tuple(names),) if names and frozen else () for names in new.names)
    config = old.config.model_copy(
        update={
            "joined_tasks": old.config.joined_tasks + tasks,
            "joined_modalities": old.config.joined_modalities + modalities,
        }
    )
    torch.manual_seed(seed)
    model = FlexCare(config, [*old.modalities, *new.modalities], [*old.tasks, *new.tasks])
    weights = model.state_dict()
    for name, value in old.state_dict().items():
        weights[name][: len(value)] = value
    return model


def hold(model: FlexCare, old: FlexCare) -> dict[str, Tensor]:
    """Freeze what the old network has; give, by parameter that grew, the rows that it has."""
    held = {}
    for name, value in old.state_dict().items():
        parameter = model.get_parameter(name)
        if parameter.shape == value.shape:
            parameter.requires_grad_(False)
        else:
            held[name] = value
    return held


def forgetting(
    old: Bundle, new: Bundle, store: Store, tasks: list[str], without: Sequence[str] = ()
) -> dict[str, Any]:
    """What the answers of a bundle to held-out samples have become.

    Args:
        tasks: of the old bundle and the store.
        without: modalities to be taken as absent.

    Returns:
        {"identical": whether every probability is the same to the bit, "tasks": by name metric,
        samples, before, after (null where there is none)}.
    """
    if not tasks:
        return {"identical": None, "tasks": {}}
    before, after = (
        Predictor(one, say=_silent).predict_store(
            store, "held_out", tasks, model=FlexCare.name, without=without
        )
        for one in (old, new)
    )
    infos = [info for info in old.tasks if info.name in tasks]
    return {
        "identical": before["probabilities"].equals(after["probabilities"]),
        "tasks": {info.name: _compared(before, after, info) for info in infos},
    }


def _compared(before: pa.Table, after: pa.Table, info: TaskInfo) -> dict[str, Any]:
    found = [cases(table, info) for table in (before, after)]
    values: list[float | None] = []
    for one in found:
        try:
            values.append(measure(info.metric, info.kind, one.answers))
        except Undefined:
            values.append(None)
    samples = len(found[0].sample_ids)
    return {"metric": info.metric, "samples": samples, "before": values[0], "after": values[1]}


def _silent(line: str) -> None:
    """Nothing is said of a bundle that was just made."""
