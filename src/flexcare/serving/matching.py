"""Does a store fit a bundle? Says what differs; what cannot be mended is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flexcare.errors import UserError
from flexcare.evaluation.metrics import METRICS
from flexcare.features.variables import VariableSet, variable_set
from flexcare.schema import ModalityInfo, TaskInfo
from flexcare.serving.bundle import Bundle
from flexcare.store import Store

Say = Callable[[str], None]


def shared_modalities(bundle: Bundle, store: Store, say: Say) -> list[str]:
    """Names of the modalities that both have.

    One that the store lacks is absent for every sample; one that the bundle does not know is
    ignored. Either is said.

    Raises:
        UserError: one that both have was made in another way.
    """
    known = {info.name: info for info in bundle.modalities}
    for name in store.modalities.keys() - known.keys():
        say(f"store {store.path} has {name}, which this bundle does not take: ignored")
    for name in known.keys() - store.modalities.keys():
        say(f"store {store.path} has no {name}: absent for every sample")
    both = sorted(known.keys() & store.modalities.keys())
    for name in both:
        found, expected = store.modalities[name], known[name]
        if found.kind != expected.kind:
            raise _misfit(store, f"{name} of kind {found.kind}", f"kind {expected.kind}")
        SAME[found.kind](store, found, expected)
    return both


def variables_of(info: ModalityInfo, where: str) -> VariableSet:
    """The variables that a modality's settings hold.

    Raises:
        UserError: none, as in an imported bundle, or in another order than the columns.
    """
    variables = variable_set(info.settings.get("variables", {}), f"{where}, modality {info.name}")
    if variables.columns() != info.settings["columns"]:
        raise UserError(
            f"{where} contradicts itself",
            found=f"variables of {info.name} in another order than its columns",
            expected="both in the order of the variables file",
            do="Make it again.",
        )
    return variables


def _same_variables(store: Store, found: ModalityInfo, expected: ModalityInfo) -> None:
    """The same variables in the same order, in the same units, with the same meaning."""
    ours = variables_of(found, f"store {store.path}").variables
    theirs = variables_of(expected, "the bundle").variables
    missing, extra = [n for n in theirs if n not in ours], [n for n in ours if n not in theirs]
    differences = [("missing", missing), ("not expected", extra)]
    told = "; ".join(f"{word}: {', '.join(names)}" for word, names in differences if names)
    if not told and list(ours) != list(theirs):
        told = "in another order"
    if not told:
        changed = [name for name in ours if _meaning(ours[name]) != _meaning(theirs[name])]
        what = "unit, channels, rate, samples, normal value or categories"
        told = f"another {what}: {', '.join(changed)}" if changed else ""
    if told:
        raise _misfit(
            store,
            f"{len(ours)} variables",
            f"{len(theirs)} ({told})",
            "Prepare again with --variables of the bundle.",
        )


def _meaning(variable: Any) -> tuple[Any, ...]:
    """What makes two sources' variable the same; its items and texts are each source's own."""
    shape = variable.channels, variable.rate, variable.samples
    return variable.unit, variable.normal_value(), variable.categories, *shape


def _same_vectors(store: Store, found: ModalityInfo, expected: ModalityInfo) -> None:
    _same_variables(store, found, expected)
    if found.width != expected.width:
        raise _misfit(
            store, f"vectors of {found.width} numbers in {found.name}", f"{expected.width}"
        )


def _same_films(store: Store, found: ModalityInfo, expected: ModalityInfo) -> None:
    if found.width != expected.width:
        raise _misfit(
            store,
            f"films of {found.width} pixels",
            f"{expected.width}",
            f"Prepare again with film_side = {expected.width} in --config.",
        )


def _same_texts(store: Store, found: ModalityInfo, expected: ModalityInfo) -> None:
    names = [info.settings.get("encoder", "an unknown encoder") for info in (found, expected)]
    if names[0] != names[1] or found.width != expected.width:
        raise _misfit(
            store,
            f"notes embedded by {names[0]}",
            names[1],
            "Prepare again with --text-encoder of the bundle.",
        )


# By kind of modality.
SAME: dict[str, Callable[[Store, ModalityInfo, ModalityInfo], None]] = {
    "time_series": _same_variables,
    "image": _same_films,
    "text": _same_texts,
    "static": _same_variables,
    "codes": _same_variables,  # codes that the bundle does not know are left out
    "embedding": _same_vectors,
    "wave": _same_variables,
}


def shared_samples(
    store: Store, info: TaskInfo, rows: NDArray[np.int64], say: Say
) -> tuple[NDArray[np.int64], pa.Table]:
    """The samples of a task as the bundle numbers its classes.

    Args:
        info: the task as the bundle knows it.
        rows: (n,) sample rows of the task.

    Returns:
        the rows kept, and their samples; those of a class that the bundle does not know are left
        out, which is said.

    Raises:
        UserError: a task of another kind, or with other classes where these have to be the same.
    """
    ours = store.tasks[info.name]
    samples = store.samples.take(pa.array(rows, pa.int64()))
    if (ours.kind, ours.classes) == (info.kind, info.classes):
        return rows, samples
    if ours.kind != info.kind or info.kind != "multiclass" or METRICS[info.metric].ordered:
        raise _misfit(
            store,
            f"task {info.name} as {ours.kind} with {', '.join(ours.classes) or 'no class'}",
            f"{info.kind} with {', '.join(info.classes)}",
            "Leave the task out with --tasks, or prepare with its file of the bundle's store.",
        )
    place = {name: number for number, name in enumerate(info.classes)}
    number = np.array([place.get(name, -1) for name in ours.classes] + [0], np.int64)
    mask = pc.list_flatten(samples["label_mask"]).to_numpy().astype(bool)
    found = pc.list_flatten(samples["label"]).to_numpy()
    label = number[np.where(mask, found, -1).astype(np.int64)]
    keep = label >= 0
    if left := int((~keep).sum()):
        say(f"{info.name}: {left:,} samples of a class unknown to the bundle are left out")
    offsets = pa.array(np.arange(keep.sum() + 1, dtype=np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(label[keep].astype(np.float32)))
    samples = samples.filter(pa.array(keep))
    place_of = samples.column_names.index("label")
    return rows[keep], samples.set_column(place_of, samples.schema.field("label"), lists)


def _misfit(store: Store, found: str, expected: str, do: str = "") -> UserError:
    return UserError(f"store {store.path} has {found}, this bundle expects {expected}", do=do)
