"""Puts a protocol together: raw data -> every model's predictions -> one table."""

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from flexcare.errors import UserError, unknown
from flexcare.evaluation.compare import UTILITY, Judge, hours_of
from flexcare.evaluation.predictions import cases, write_predictions
from flexcare.evaluation.utility import best_threshold
from flexcare.reproduce.protocol import Model, Protocol, read_protocol
from flexcare.reproduce.results import Outcome, publish, section
from flexcare.reproduce.work import Say, Work
from flexcare.schema import SPLITS, TaskInfo

VARIABLE = "FLEXCARE_OPEN_DATA"
MANY = 5  # with more modalities than this, only each alone and each left out are tried
Without = tuple[str, ...]


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
    """Run a protocol from raw data to its table.

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
    wanted = _some(read_protocol(path), models)
    out = Path("reproduced") / path.stem if out is None else Path(out)
    work = Work(wanted, path, data_folder(data), out, say)
    work.below(wanted.data.path)  # refused before there is a folder to work in
    out.mkdir(parents=True, exist_ok=True)
    outcome = _outcome(wanted, path, split, work)
    say(section(outcome))
    whole = split == "held_out" and models is None
    return publish(outcome, _place(results, path, out) if whole else out / split)


def _some(protocol: Protocol, models: Sequence[str] | None) -> Protocol:
    """The protocol with some of its models only."""
    for name in models or ():
        if name not in protocol.models:
            raise unknown("model", name, protocol.models)
    chosen = {n: one for n, one in protocol.models.items() if models is None or n in models}
    return protocol.model_copy(update={"models": chosen})


def data_folder(data: str | Path | None) -> Path:
    chosen = data or os.environ.get(VARIABLE)
    if not chosen or not Path(chosen).is_dir():
        raise UserError(
            "no folder of data",
            found=str(chosen or f"neither --data nor {VARIABLE}"),
            expected="the folder that holds the data sets; docs/data.md says what goes where",
        )
    return Path(chosen).resolve()


def _place(results: str | Path | None, protocol: Path, out: Path) -> Path:
    beside = protocol.resolve().parent.parent / "docs"
    return Path(results) if results else beside if beside.is_dir() else out


def _outcome(wanted: Protocol, path: Path, split: str, work: Work) -> Outcome:
    """All models' predictions, judged on the same samples."""
    tables, subsets, minutes = {}, {}, {}
    for name in wanted.models:
        work.used.clear()
        tables[name] = _pooled(work, name, split)
        for told, without in _subsets(work, wanted).items() if name == wanted.first else ():
            subsets[told] = _pooled(work, name, split, without)
        minutes[name] = round(work.seconds / 60, 1)
    any_model = next(iter(tables))
    tasks = _tasks(work, wanted.models[any_model], tables[any_model])
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
        command=f"flexcare reproduce {path.resolve().parent.name}/{path.name} --data DATA",
        protocol=wanted,
        split=split,
        tasks=tasks,
        samples={name: len(ids) // wanted.data.repeats for name, ids in judge.samples.items()},
        subjects=len(judge.people),
        scores=scores,
        subsets={name: judge.scores(table) for name, table in subsets.items()},
        thresholds=thresholds,
        minutes=minutes,
    )


def _pooled(work: Work, name: str, split: str, without: Without = ()) -> pa.Table:
    """A model's predictions of all folds together."""
    parts = []
    for fold in work.folds:
        table = work.predictions(name, fold, split, without)
        if len(work.folds) > 1:
            # Asked again in every repeat, and tuning samples in several folds.
            again = "{}.{}".format(*fold)
            ids = pc.binary_join_element_wise(table["sample_id"], again, "#")
            table = table.set_column(table.column_names.index("sample_id"), "sample_id", ids)
        parts.append(table)
    return pa.concat_tables(parts)


def _tasks(work: Work, model: Model, answered: pa.Table) -> dict[str, TaskInfo]:
    """The tasks with answers, which must be the same in every fold."""
    found = [work.store(model, fold).tasks for fold in work.folds]
    differing = [task for task in found[0] if any(one[task] != found[0][task] for one in found)]
    if differing:
        raise UserError(
            "folds cannot be judged together",
            found=f"other classes of {', '.join(differing)} in some of them",
            expected="tasks whose classes do not come from the training split",
        )
    there = set(answered["task"].unique().to_pylist())
    tasks = {name: info for name, info in found[0].items() if name in there}
    return {name: info for name, info in tasks.items() if len(cases(answered, info).sample_ids)}


def _subsets(work: Work, wanted: Protocol) -> dict[str, Without]:
    """The sets of modalities that the first model is tried with, as what each leaves out."""
    if not wanted.every_subset:
        return {}
    model = wanted.models[wanted.first]
    chosen = model.settings.modalities or wanted.settings.modalities
    names = tuple(chosen or work.store(model, work.folds[0]).modalities)
    sizes = range(1, len(names)) if len(names) <= MANY else (1, len(names) - 1)
    out = {}
    for subset in (one for size in sizes for one in combinations(names, size)):
        without = tuple(name for name in names if name not in subset)
        short = len(without) == 1 < len(subset)
        out[f"without {without[0]}" if short else f"{' + '.join(subset)} only"] = without
    return out


def _thresholds(work: Work, wanted: Protocol, tasks: dict[str, TaskInfo]) -> dict[str, float]:
    """By model the probability from which on it warns, chosen on the tuning split."""
    if not wanted.utility:
        return {}
    if wanted.utility not in tasks:
        raise unknown("task (utility)", wanted.utility, tasks)
    out = {}
    for name in wanted.models:
        table = _pooled(work, name, "tuning")
        found = cases(table, tasks[wanted.utility])
        out[name] = best_threshold(found.answers, hours_of(table, found))
    return out
