"""The best settings of each model: Optuna's trials, judged by the tuning split alone.

A trial is a model of the protocol with some of its settings changed. Its runs and predictions are
those of `Work`, so an interrupted search goes on where it was.
"""

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flexcare.errors import Diverged, UserError
from flexcare.evaluation.compare import Judge
from flexcare.files import read_json, write_json
from flexcare.reproduce.protocol import Protocol, dotted, read_protocol, value_of
from flexcare.reproduce.work import Say, Work

ARTEFACT, SPLIT, SEED = "tuning", "tuning", 0
RANDOM = 5  # first trials that are drawn at random; those after follow what these found
Settings = dict[str, Any]  # by dotted name


@dataclass(frozen=True)
class Tuned:
    """What a search found for a protocol.

    Attributes:
        path: of the file, whether it is there or not.
        asked: the number of trials that the search was told.
        trials: by model, how many it had: fewer where there are no more combinations.
        best: by model, of those that were tuned, what differs from the protocol.
    """

    path: Path
    asked: int
    trials: dict[str, int]
    best: dict[str, Settings]


def tune(
    protocol: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    models: Sequence[str] | None = None,
    trials: int | None = None,
    say: Say = print,
) -> Path:
    """Search the settings of a protocol's models, each with the same number of trials.

    The first trial is the model as it stands. A trial's value is the mean over tasks of each
    task's own metric on the tuning split, that of all folds of the first repeat pooled; of a model
    with several seeds the first one is tried.

    Args:
        protocol, data, out: as of `reproduce`, which shares its runs.
        models: some of the protocol's; those that were tuned before stay as they are.
        trials: of each model, fewer where there are no more combinations; None: what the protocol
            says.
        say: told one line a trial.

    Returns:
        The path of what was found, tuned/NAME.json beside the protocol, written at the end.

    Raises:
        UserError: bad input, or a step that failed. What is finished stays.
    """
    path = Path(protocol)
    every = read_protocol(path)
    wanted = every.some(models)
    wanted = wanted.some(_tunable(wanted, asked=models is not None))
    count = every.tuning.trials if trials is None else trials
    if count < 1:
        raise UserError("no trials", found=str(count), expected="at least 1")
    before = _stored(path)
    kept = {n: one for n, one in before["models"].items() if n in every.models}
    kept = {n: one for n, one in kept.items() if n not in wanted.models}
    if kept and before["trials"] != count:
        raise UserError(
            "some models would have more trials than others",
            found=f"{before['trials']} of {', '.join(kept)} in {_place(path)}, {count} now",
            expected="the same number of every model",
            do="Tune all of them, or remove that file.",
        )
    _study()  # refused before there is a folder to work in
    work = Work.begin(_once(wanted), path, data, out, say)
    found = {name: _search(work, name, count) for name in wanted.models}
    about = {
        "artefact": ARTEFACT,
        "flexcare": importlib.metadata.version("flexcare"),
        "split": SPLIT,
        "seed": SEED,
        "trials": count,
        "models": kept | found,
    }
    write_json(_place(path), about)
    return _place(path)


def read_tuned(path: Path, protocol: Protocol) -> Tuned:
    """What was found for the models of the protocol at `path`.

    Raises:
        UserError: a model was tuned from other settings than it has now.
    """
    stored = _stored(path)
    mine = {name: one for name, one in stored["models"].items() if name in protocol.models}
    for name, one in mine.items():
        then, now = dotted(one["base"]), dotted(_base(protocol, name))
        changed = [key for key in then | now if then.get(key) != now.get(key)]
        if changed:
            raise UserError(
                f"{_place(path)} is of another model {name}",
                found=f"changed since: {', '.join(changed)}",
                expected=f"the settings that {path} has now",
                do=f"Run flexcare tune with --models {name}, or remove the file.",
            )
    best = {name: one["settings"] for name, one in mine.items()}
    trials = {name: len(one["trials"]) for name, one in mine.items()}
    return Tuned(_place(path), stored["trials"], trials, best)


def in_words(settings: Settings) -> str:
    """Settings in one line."""
    return ", ".join(f"{key} = {value}" for key, value in settings.items()) or "as it stood"


def _place(path: Path) -> Path:
    return path.parent / "tuned" / f"{path.stem}.json"


def _stored(path: Path) -> dict[str, Any]:
    """What an earlier search left for a protocol."""
    place = _place(path)
    if not place.exists():
        return {"trials": 0, "models": {}}
    found = read_json(place, "what `flexcare tune` wrote")
    if not isinstance(found, dict) or found.get("artefact") != ARTEFACT:
        raise UserError(
            f"{place} is nothing that `flexcare tune` wrote", do="Remove it, and tune again."
        )
    return found


def _tunable(protocol: Protocol, asked: bool) -> list[str]:
    """The models for which the protocol has something to try; all of them if they were named."""
    kinds = {name: model.kind for name, model in protocol.models.items()}
    names = [name for name, kind in kinds.items() if protocol.tuning.space(kind)]
    without = [name for name in kinds if name not in names]
    if without and (asked or not names):
        raise UserError(
            f"nothing to tune of {', '.join(without)}",
            found=", ".join(f"no [tuning.{kind}]" for kind in {kinds[name] for name in without}),
            expected="values to try, in the protocol",
        )
    return names


def _once(protocol: Protocol) -> Protocol:
    """The protocol with one repeat of the folds and one seed of each model."""
    models = {
        name: model.model_copy(update={"seeds": model.seeds[:1]})
        for name, model in protocol.models.items()
    }
    data = protocol.data.model_copy(update={"repeats": 1})
    return protocol.model_copy(update={"models": models, "data": data})


def _base(protocol: Protocol, name: str) -> dict[str, Any]:
    """All that a model's trials have in common: they say nothing of a model with another."""
    model = protocol.models[name]
    return {
        "kind": model.kind,
        "alone": model.alone,
        "settings": protocol.settings_of(name),
        "preparation": model.preparation.model_dump(mode="json", exclude_unset=True),
        "data": protocol.data.model_dump(mode="json", exclude_unset=True, exclude={"repeats"}),
    }


def _study() -> Any:
    """An Optuna study that draws the same after the same values."""
    try:
        import optuna
    except ImportError:
        raise UserError(
            "the package optuna is not installed",
            expected="it, to search settings",
            do="pip install 'flexcare[tune]'",
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM, seed=SEED)
    )


def _search(work: Work, name: str, trials: int) -> dict[str, Any]:
    """All trials of a model; no combination of values is tried twice."""
    protocol = work.protocol
    own, space = _space(protocol, name)
    study, random = _study(), np.random.default_rng(SEED)
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    # Values by their numbers: a list may be a value, too.
    following = tuple(values.index(own[key]) for key, values in space.items())
    study.enqueue_trial(dict(zip(space, following, strict=True)))
    count = min(trials, math.prod(map(len, space.values())))
    while len(found) < count:
        trial = study.ask()
        place = tuple(trial.suggest_categorical(k, range(len(v))) for k, v in space.items())
        new = place not in found
        if new:
            chosen = {key: v[n] for (key, v), n in zip(space.items(), place, strict=True)}
            found[place] = _tried(work, name, {k: v for k, v in chosen.items() if v != own[k]})
            work.say(f"{name}, trial {len(found)} of {count}: {_told(found[place])}")
        _tell(study, trial, found[place]["value"])
        if not new:
            while following in found:
                following = tuple(int(random.integers(len(v))) for v in space.values())
            study.enqueue_trial(dict(zip(space, following, strict=True)))
    best = max(found.values(), key=_value)
    if best["value"] is None:
        raise UserError(f"all trials of {name} failed", found=best["failed"])
    about = {"base": _base(protocol, name), "space": space}
    chosen = {"settings": best["settings"], "value": best["value"]}
    return chosen | about | {"trials": list(found.values())}


def _tell(study: Any, trial: Any, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


def _told(trial: dict[str, Any]) -> str:
    value = trial["failed"] if trial["value"] is None else f"{trial['value']:.4f}"
    return f"{in_words(trial['settings'])}: {value}, {trial['seconds']:.0f} s"


def _value(trial: dict[str, Any]) -> float:
    return -math.inf if trial["value"] is None else float(trial["value"])


def _space(protocol: Protocol, name: str) -> tuple[Settings, dict[str, list[Any]]]:
    """A model's own values, and by setting those to try, its own among them."""
    model, resolved = protocol.models[name], protocol.resolved(name)
    own, space = {}, {}
    for key, values in protocol.tuning.space(model.kind).items():
        own[key] = value_of(resolved, key)
        # As they are in the settings: of a whole number for a fraction, the fraction.
        tried = [protocol.with_settings({name: {key: value}}, "tuning") for value in values]
        plain = [value_of(one.resolved(name), key) for one in tried]
        space[key] = plain if own[key] in plain else [own[key], *plain]
    return own, space


def _tried(work: Work, name: str, settings: Settings) -> dict[str, Any]:
    """One trial: its settings, its value or why it failed, and the seconds it took."""
    work.used.clear()
    for fold in work.folds:
        work.store(work.protocol.models[name], fold)
    before = work.seconds  # of the preparation, which is no trial's
    changed = work.of(work.protocol.with_settings({name: settings}, "tuning"))
    out: dict[str, Any] = {"settings": settings, "value": None}
    try:
        out["value"] = round(_judged(changed, name), 6)
    except Diverged as error:
        out["failed"] = error.what
    return out | {"seconds": round(work.seconds - before, 1)}


def _judged(work: Work, name: str) -> float:
    """The mean over tasks of each task's own metric on the tuning split."""
    table = work.pooled(name, SPLIT)
    tasks = work.tasks(name, table)
    scores = Judge(table, tasks, resamples=1).scores(table) if tasks else {}
    values = [scores[task, info.metric].value for task, info in tasks.items()]
    known = [value for value in values if np.isfinite(value)]
    if not known:
        raise UserError(
            f"model {name} cannot be judged on the tuning split",
            found=f"no task of {', '.join(tasks) or 'any name'} with several answers",
            expected="at least one",
        )
    return float(np.mean(known))
