"""Puts a protocol together: raw data -> every model's predictions -> one table."""

from collections.abc import Sequence
from pathlib import Path

from flexcare.config import Config
from flexcare.errors import unknown
from flexcare.evaluation.compare import UTILITY, Judge, hours_of
from flexcare.evaluation.predictions import cases, write_predictions
from flexcare.evaluation.subsets import Without, subsets
from flexcare.evaluation.utility import best_threshold
from flexcare.reproduce.protocol import Protocol, read_protocol
from flexcare.reproduce.results import Outcome, publish, section
from flexcare.reproduce.tuning import Tuned, read_tuned
from flexcare.reproduce.work import Say, Work
from flexcare.schema import SPLITS, TaskInfo


def reproduce(
    protocol: str | Path,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    results: str | Path | None = None,
    split: str = "held_out",
    models: Sequence[str] | None = None,
    say: Say = print,
) -> Path:
    """Run a protocol from raw data to its table, with the settings that `tune` found, if it did.

    Args:
        protocol: its TOML file (reproduce.protocol.Protocol).
        data: the folder that its paths are below; None: what FLEXCARE_OPEN_DATA says.
        out: the folder to work in, where another call goes on; None: reproduced/NAME.
        results: the folder whose results.json and results.md get the table; None: docs/ beside the
            folder of the protocol, or `out` if there is none. Other protocols' results stay.
        split: the split that is judged; another than held_out is for development.
        models: some of the protocol's. Their table, or that of another split, stays in `out`.
        say: told one line a step.

    Returns:
        The path of results.md.

    Raises:
        UserError: bad input, or a step that failed. What is finished stays.
    """
    path = Path(protocol)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    untuned = read_protocol(path).some(models)
    tuned = read_tuned(path, untuned)
    wanted = untuned.with_settings(tuned.best, str(tuned.path))
    work = Work.begin(wanted, path, data, out, say)
    if tuned.best:
        say(f"tuned settings of {', '.join(tuned.best)}: {tuned.path}")
    outcome = _outcome(wanted, path, split, work, tuned)
    say(section(outcome))
    whole = split == "held_out" and models is None
    return publish(outcome, _place(results, path, work.out) if whole else work.out / split)


def _place(results: str | Path | None, protocol: Path, out: Path) -> Path:
    beside = protocol.resolve().parent.parent / "docs"
    return Path(results) if results else beside if beside.is_dir() else out


def _outcome(wanted: Protocol, path: Path, split: str, work: Work, tuned: Tuned) -> Outcome:
    """All models' predictions, judged on the same samples."""
    tables, subsets, minutes = {}, {}, {}
    for name in wanted.models:
        work.used.clear()
        tables[name] = work.pooled(name, split)
        for told, without in _subsets(work, wanted).items() if name == wanted.first else ():
            subsets[told] = work.pooled(name, split, without)
        minutes[name] = round(work.seconds / 60, 1)
    any_model = next(iter(tables))
    tasks = work.tasks(any_model, tables[any_model])
    judge = Judge(tables[any_model], tasks, wanted.resamples)
    scores = {name: judge.scores(table) for name, table in tables.items()}
    thresholds = _thresholds(work, wanted, tasks)
    for name, threshold in thresholds.items():
        found = judge.utility(tables[name], wanted.utility, threshold)
        scores[name][wanted.utility, UTILITY] = found
    for name, table in tables.items():
        write_predictions(work.out / "pooled" / split / f"{name}.parquet", table)
    return Outcome(
        name=path.stem,
        path=f"{path.resolve().parent.name}/{path.name}",
        protocol=wanted,
        tuned=tuned,
        split=split,
        tasks=tasks,
        samples={name: len(ids) // wanted.data.repeats for name, ids in judge.samples.items()},
        subjects=len(judge.people),
        scores=scores,
        subsets={name: judge.scores(table) for name, table in subsets.items()},
        thresholds=thresholds,
        minutes=minutes,
    )


def _subsets(work: Work, wanted: Protocol) -> dict[str, Without]:
    """The sets of modalities that the first model is tried with, as what each leaves out."""
    if not wanted.every_subset:
        return {}
    model = wanted.models[wanted.first]
    own = model.settings.modalities if isinstance(model.settings, Config) else None
    chosen = own or wanted.settings.modalities
    return subsets(tuple(chosen or work.store(model, work.folds[0]).modalities))


def _thresholds(work: Work, wanted: Protocol, tasks: dict[str, TaskInfo]) -> dict[str, float]:
    """By model the probability from which on it warns, chosen on the tuning split."""
    if not wanted.utility:
        return {}
    if wanted.utility not in tasks:
        raise unknown("task (utility)", wanted.utility, tasks)
    out = {}
    for name in wanted.models:
        table = work.pooled(name, "tuning")
        found = cases(table, tasks[wanted.utility])
        out[name] = best_threshold(found.answers, hours_of(table, found))
    return out
