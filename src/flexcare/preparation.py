"""Puts the left half together: raw tables -> store."""

import importlib.metadata
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.cohort.asks import Cohort, rows_of
from flexcare.cohort.samples import GROUPS, TaskSamples, check_any, samples_of, to_table
from flexcare.cohort.splits import HASH, SHARES, split_of
from flexcare.cohort.stays import Flow, admissions_of, column, select_stays
from flexcare.config import Preparation, check, read_toml
from flexcare.errors import UserError, unknown
from flexcare.features.scaling import fit_films, fit_series
from flexcare.features.text import check_encoder
from flexcare.features.variables import VariableSet, read_variables
from flexcare.files import refuse_existing, sha256, whole, write_json
from flexcare.schema import SPLITS, STORE_VERSION, ModalityInfo
from flexcare.sources import DEFAULTS, SOURCES
from flexcare.store import (
    modality_table,
    samples_schema,
    task_table,
)
from flexcare.storing import Parts, Say
from flexcare.tasks import Task, load_tasks

PRESETS = ("corrected", "paper", "authors")
MEMORY = "1500MB"  # of DuckDB; what does not fit goes to its temporary folder


def read_preset(name: str) -> dict[str, Any]:
    """The tables of a preset: [preparation], [training] and perhaps a warning."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return read_toml(Path(str(files("flexcare.presets") / f"{name}.toml")))


def prepare(
    source: str,
    path: str | Path,
    out: str | Path,
    *,
    cxr: str | Path | None = None,
    note: str | Path | None = None,
    ed: str | Path | None = None,
    preset: str = "corrected",
    tasks: str | Sequence[str] | None = None,
    variables: str | Path | None = None,
    text_encoder: str | Path | None = None,
    clock: str | None = None,
    settings: dict[str, Any] | None = None,
    say: Say = print,
) -> Path:
    """Make a store from a source's raw tables.

    Args:
        source: a name of sources.SOURCES.
        path: folder of the source; cxr, note, ed: its optional companions.
        out: the store to write, which must not exist.
        tasks: names or files, a list or a text with commas; None: the seven of the package.
        variables, text_encoder, clock: as in config.Preparation; None: the preset's.
        settings: what else differs from the preset (config.Preparation).
        say: told one line a step.

    Returns:
        The path of the store.

    Raises:
        UserError: bad input; nothing is left at `out`.
    """
    out = Path(out)
    refuse_existing(out)
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    table = read_preset(preset)
    if "warning" in table:
        say(f"warning: {table['warning']}")
    given = {"variables": variables, "text_encoder": text_encoder, "clock": clock}
    named = {name: str(value) for name, value in given.items() if value is not None}
    chosen = DEFAULTS.get(source, {}) | table["preparation"] | (settings or {}) | named
    options = check(Preparation, chosen, "the settings of prepare")
    check_encoder(options.text_encoder)
    questions = load_tasks(tasks)
    companions = {k: Path(v) for k, v in {"cxr": cxr, "note": note, "ed": ed}.items() if v}
    for folder in companions.values():
        _refuse_no_folder(folder)
    with whole(out) as folder:
        folder.mkdir()
        connection = duckdb.connect(
            config={
                "memory_limit": MEMORY,
                "temp_directory": str(folder / "spill"),
                # It lets the csv reader cast, and fail, where TRY_CAST asks for null.
                "disabled_optimizers": "type_pushdown",
            }
        )
        try:
            reader = SOURCES[source](Path(path), connection, **companions)
            _Preparation(reader, options, folder, say).run(questions, preset)
        finally:
            connection.close()
            shutil.rmtree(folder / "spill", ignore_errors=True)
    return out


def _refuse_no_folder(folder: Path) -> None:
    """Before the long tables are read, not after."""
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}",
            expected="the downloaded data set",
            do="Check the path; docs/data.md says what goes where.",
        )


class _Preparation(Parts):
    """The steps of one preparation; each reads what the ones before left."""

    def run(self, questions: list[Task], preset: str) -> None:
        """All steps, in the order of the data."""
        flow = Flow()
        subjects = self.source.subjects()
        admissions = admissions_of(self.source, subjects, self.settings)
        stays, every = select_stays(self.source, admissions, self.settings, flow)
        self.say(f"cohort: {len(stays):,} of {len(every):,} ICU stays kept")
        variables = read_variables(self._variables_file())
        spans, first_seen = self.write_events(stays, variables)
        cohort = Cohort(
            subjects=subjects,
            stays=stays,
            all_stays=_with_admittime(every, admissions),
            admissions=admissions,
            images=self.films_there(subjects),
            diagnoses=self.source.diagnoses(),
            drgs=self.source.drgs(),
            finding_names=self.source.finding_names,
            first_seen=first_seen,
            settings=self.settings,
            flow=flow,
        )
        texts = self.read_texts(admissions)
        samples = [samples_of(task, cohort, texts) for task in questions]
        check_any(samples, cohort)
        for one in samples:
            self.say(f"{one.info.name}: {len(one.asks):,} samples")
        film_rows, samples = self.write_films(samples, cohort)
        text_rows, text_info = self.write_texts(samples, texts)
        table = self._write_samples(samples, cohort, spans, film_rows, text_rows)
        modalities = self._modalities(variables, cohort, text_info)
        scaling = self._fit(stays, spans, variables, table)
        self._write_manifest(preset, samples, modalities, scaling, cohort, table)

    def _variables_file(self) -> Path:
        name = self.settings.variables or self.source.variables
        if name.endswith(".toml"):
            return Path(name)
        path = Path(str(files("flexcare.sources") / f"{name}_variables.toml"))
        if not path.is_file():
            raise UserError(
                f"no variables file {name}",
                expected="the path of a .toml file, or a name of the package",
            )
        return path

    def _write_samples(
        self,
        samples: list[TaskSamples],
        cohort: Cohort,
        spans: NDArray[np.int64],
        film_rows: NDArray[np.int64],
        text_rows: NDArray[np.int64],
    ) -> pa.Table:
        """Write samples.parquet, task by task."""
        schema = samples_schema(list(GROUPS))
        tables = []
        for one in samples:
            seen = one.evidence
            film = film_rows[seen.image]
            span = np.vstack([spans, [0, 0]])[seen.stay]
            offsets, used = seen.texts.offsets, seen.texts.values.to_numpy()
            texts = pa.ListArray.from_arrays(offsets, pa.array(text_rows[used], pa.int32()))
            columns = to_table(one, cohort) | {
                "series_first": pa.array(span[:, 0]),
                "series_stop": pa.array(span[:, 1]),
                "series_hours": pa.array(seen.until),
                "film_row": pa.array(film, pa.int32()),
                "text_rows": texts,
                "has_series": pa.array(seen.stay >= 0),
                "has_film": pa.array(film >= 0),
                "has_note": pc.greater(pc.list_value_length(texts), 0),
            }
            tables.append(pa.table([columns[f.name] for f in schema], schema=schema))
        table = pa.concat_tables(tables)
        pq.write_table(table, self.folder / "samples.parquet", row_group_size=100_000)
        return table

    def _modalities(
        self, variables: VariableSet, cohort: Cohort, text: dict[str, Any]
    ) -> dict[str, ModalityInfo]:
        """What this store's patients may have."""
        columns = variables.columns()
        settings = {"columns": columns, "variables": variables.to_dict()}
        out = [ModalityInfo("series", "time_series", len(columns), settings)]
        if len(cohort.images):
            out.append(ModalityInfo("film", "image", self.settings.film_side, {}))
        if text:
            out.append(ModalityInfo("note", "text", text["width"], {"encoder": text["encoder"]}))
        return {info.name: info for info in out}

    def _fit(
        self,
        stays: pa.Table,
        spans: NDArray[np.int64],
        variables: VariableSet,
        samples: pa.Table,
    ) -> dict[str, Any]:
        """Centre and scale from the training split alone."""
        train = split_of(column(stays, "subject_id"), self.settings.seed) == "train"
        chosen = np.repeat(train, spans[:, 1] - spans[:, 0])
        seconds, variable, value = (
            np.load(self.folder / "events" / f"{name}.npy", mmap_mode="r")
            for name in ("seconds", "variable", "value")
        )
        chosen &= seconds >= 0
        series = fit_series(
            variable[chosen],
            value[chosen],
            variables,
            self.settings.scaling,
            self.settings.fixed_scale,
        )
        train_samples = samples.filter(pc.equal(samples["split"], "train"))
        rows = np.unique(column(train_samples, "film_row"))
        films = np.load(self.folder / "films.npy", mmap_mode="r")
        return {"series": series, "film": fit_films(films[i] for i in rows[rows >= 0])}

    def _write_manifest(
        self,
        preset: str,
        samples: list[TaskSamples],
        modalities: dict[str, ModalityInfo],
        scaling: dict[str, Any],
        cohort: Cohort,
        table: pa.Table,
    ) -> None:
        """Say what this store is, from what and how."""
        hashes = {
            str(path.relative_to(self.folder)): sha256(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and "spill" not in path.parts
        }
        manifest = {
            "artefact": "store",
            "schema_version": STORE_VERSION,
            "flexcare": importlib.metadata.version("flexcare"),
            "source": self.source.name,
            "preset": preset,
            "settings": self.settings.model_dump(mode="json"),
            "splits": {"shares": dict(zip(SPLITS, SHARES, strict=True)), "hash": HASH},
            "source_files": {
                path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                for path in sorted(self.source.files)
            },
            "tasks": task_table({s.info.name: s.info for s in samples}),
            "modalities": modality_table(modalities),
            "scaling": scaling,
            "cohort_flow": cohort.flow.steps,
            "dropped": dict(sorted(self.source.dropped.items())),
            "counts": cohort.counts | {"samples": _counts(table)},
            "content": hashes,
        }
        write_json(self.folder / "manifest.json", json.loads(json.dumps(manifest)))


def _with_admittime(stays: pa.Table, admissions: pa.Table) -> pa.Table:
    place = rows_of(stays["hadm_id"].combine_chunks(), admissions, "hadm_id")
    times = admissions["admittime"].combine_chunks().take(pa.array(place, mask=place < 0))
    return stays.append_column("admittime", times)


def _counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """Samples by task and split, and how many have each modality."""
    out: dict[str, Counter[str]] = {}
    grouped = table.group_by(["task", "split"]).aggregate(
        [("sample_id", "count"), ("has_series", "sum"), ("has_film", "sum"), ("has_note", "sum")]
    )
    for row in grouped.to_pylist():
        counts = out.setdefault(row["task"], Counter())
        counts[row["split"]] = row["sample_id_count"]
        for name in ("series", "film", "note"):
            counts[f"{row['split']} with {name}"] = row[f"has_{name}_sum"]
    return {task: dict(sorted(counts.items())) for task, counts in sorted(out.items())}
