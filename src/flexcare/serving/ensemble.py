"""Several bundles -> one that answers with the mean of their probabilities."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flexcare.errors import UserError
from flexcare.models.ensemble import Ensemble
from flexcare.serving.bundle import Bundle, load_bundle, save_bundle

SHORT = 60  # characters of a value that an error repeats
FEW = 5  # differences that it names


def ensemble(paths: Sequence[Path], out: Path) -> None:
    """Write one bundle of several.

    Args:
        paths: bundles, or runs with a bundle each, that differ in nothing but their weights:
            seeds of one run.
        out: folder of the bundle.

    Raises:
        UserError: fewer than two, one named twice, an ensemble among them, or members that differ.
    """
    places = [path / "bundle" if (path / "bundle").is_dir() else path for path in paths]
    _refuse_too_few(places)
    bundles = [load_bundle(place) for place in places]
    for place, bundle in zip(places, bundles, strict=True):
        _refuse_other(places[0], bundles[0], place, bundle)
    first = bundles[0]
    provenance = {key: value for key, value in first.provenance.items() if key == "store"}
    provenance["members"] = [
        {key: value for key, value in bundle.provenance.items() if key != "store"}
        for bundle in bundles
    ]
    save_bundle(out, Ensemble([bundle.model for bundle in bundles]), first.scaling, provenance)


def _refuse_too_few(places: Sequence[Path]) -> None:
    repeated = len({place.resolve() for place in places}) < len(places)
    if len(places) < 2 or repeated:
        names = ", ".join(map(str, places)) or "none"
        raise UserError(
            "these bundles make no ensemble",
            found=f"one of them twice: {names}" if repeated else names,
            expected="at least two bundles, each once",
            do="Name the runs or bundles of several seeds.",
        )


def _refuse_other(first: Path, expected: Bundle, place: Path, found: Bundle) -> None:
    """A member must be a single network and like the first in all but its weights."""
    if isinstance(found.model, Ensemble):
        raise UserError(
            f"bundle {place} is an ensemble itself",
            found=f"{len(found.model.members)} members",
            expected="bundles of single networks",
            do="Name its members in its place.",
        )
    differing = _differences(_alike(expected), _alike(found))
    if differing:
        more = f"; {len(differing) - FEW} more" if differing[FEW:] else ""
        raise UserError(
            f"bundles {first} and {place} differ in more than their weights",
            found="; ".join(_told(what, one, place) for what, _, one in differing[:FEW]) + more,
            expected="; ".join(_told(what, one, first) for what, one, _ in differing[:FEW]) + more,
            do="Train the members on one store with the same settings, tasks and modalities.",
        )


def _alike(bundle: Bundle) -> dict[str, Any]:
    """What all members have to share, in tables."""
    store = bundle.provenance.get("store", {})
    return {
        "network": bundle.model.name,
        "tasks": [info.name for info in bundle.tasks],  # their order is that of an embedding's rows
        "modalities": [info.name for info in bundle.modalities],
        "model": bundle.model.config.model_dump(),
        "task": {info.name: asdict(info) for info in bundle.tasks},
        "modality": {info.name: asdict(info) for info in bundle.modalities},
        "scaling": bundle.scaling,
        "store": {key: store.get(key) for key in ("source", "preset", "settings")},
    }


def _differences(one: Any, other: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Dotted names of values that differ, with both; None is what is not there."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [(where, one, other)]
    return [
        found
        for key in dict.fromkeys([*one, *other])
        for found in _differences(
            one.get(key), other.get(key), f"{where}.{key}" if where else str(key)
        )
    ]


def _told(what: str, value: Any, place: Path) -> str:
    if value is None:
        return f"no {what}"
    text = json.dumps(value)
    return f"{what} = {text}" if len(text) <= SHORT else f"{what} as in {place}"
