"""Puts the left half together: raw tables -> store."""

import importlib.metadata
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
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
from flexcare.features.films import UnreadableFilm, read_film
from flexcare.features.notes import note_rules, parts
from flexcare.features.scaling import fit_films, fit_series
from flexcare.features.text import text_encoder, text_hash
from flexcare.features.variables import VariableSet, read_variables
from flexcare.files import refuse_existing, sha256, whole, write_json
from flexcare.schema import SPLITS, STORE_VERSION, ModalityInfo
from flexcare.sources import DEFAULTS, SOURCES
from flexcare.sources.tables import Source
from flexcare.store import (
    EVENT_ARRAYS,
    GrowingArray,
    modality_table,
    samples_schema,
    task_table,
)
from flexcare.tasks import Task, load_tasks

PRESETS = ("corrected", "paper", "authors")
MEMORY = "1500MB"  # of DuckDB; what does not fit goes to its temporary folder
Say = Callable[[str], None]


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
    tasks: str | None = None,
    settings: dict[str, Any] | None = None,
    say: Say = print,
) -> Path:
    """Make a store from a source's raw tables.

    Args:
        source: a name of sources.SOURCES.
        path: folder of the source; cxr, note, ed: its optional companions.
        out: the store to write, which must not exist.
        tasks: comma-separated names or files; None: the seven of the package.
        settings: what differs from the preset (config.Preparation).
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
    chosen = DEFAULTS.get(source, {}) | table["preparation"] | (settings or {})
    options = check(Preparation, chosen, "the settings of prepare")
    questions = load_tasks(tasks)
    companions = {k: Path(v) for k, v in {"cxr": cxr, "note": note, "ed": ed}.items() if v}
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


@dataclass
class _Preparation:
    """The steps of one preparation; each reads what the ones before left."""

    source: Source
    settings: Preparation
    folder: Path
    say: Say

    def run(self, questions: list[Task], preset: str) -> None:
        """All steps, in the order of the data."""
        flow = Flow()
        subjects = self.source.subjects()
        admissions = admissions_of(self.source, subjects, self.settings)
        stays, every = select_stays(self.source, admissions, self.settings, flow)
        self.say(f"cohort: {len(stays):,} of {len(every):,} ICU stays kept")
        variables = read_variables(self._variables_file())
        spans, first_seen = self._write_events(stays, variables)
        cohort = Cohort(
            subjects=subjects,
            stays=stays,
            all_stays=_with_admittime(every, admissions),
            admissions=admissions,
            images=self._films_there(subjects),
            diagnoses=self.source.diagnoses(),
            drgs=self.source.drgs(),
            finding_names=self.source.finding_names,
            first_seen=first_seen,
            settings=self.settings,
            flow=flow,
        )
        texts = self._texts(admissions)
        samples = [samples_of(task, cohort, texts) for task in questions]
        check_any(samples, cohort)
        for one in samples:
            self.say(f"{one.info.name}: {len(one.asks):,} samples")
        film_rows, samples = self._write_films(samples, cohort)
        text_rows, text_info = self._write_texts(samples, texts)
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

    def _write_events(
        self, stays: pa.Table, variables: VariableSet
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Write the event arrays; give each stay's row range and when something was first seen."""
        columns = stays.select(["stay_id", "subject_id", "intime", "outtime", "los"])
        counts = np.zeros(len(stays), np.int64)
        first = np.full(len(stays), np.inf)
        with ExitStack() as files_open:
            arrays = {
                name: files_open.enter_context(
                    GrowingArray(self.folder / "events" / f"{name}.npy", dtype)
                )
                for name, dtype in EVENT_ARRAYS.items()
            }
            for batch in self.source.events(columns, variables, self.settings.clock):
                stay = batch["stay"].to_numpy()
                counts += np.bincount(stay, minlength=len(stays))
                seconds, available = batch["seconds"].to_numpy(), batch["available"].to_numpy()
                observed = seconds >= 0
                visible = np.maximum(seconds, available)[observed] / 3600
                np.minimum.at(first, stay[observed], visible)
                for name, array in arrays.items():
                    array.append(batch[name].to_numpy())
        self.say(f"series: {counts.sum():,} events of {len(variables.names)} variables")
        stop = np.cumsum(counts)
        return np.stack([stop - counts, stop], 1), np.where(np.isinf(first), np.nan, first)

    def _films_there(self, subjects: pa.Table) -> pa.Table:
        """The source's AP films of known subjects whose file exists."""
        images = self.source.images()
        root = getattr(self.source, "cxr", None)
        there = np.array([(root / path).is_file() for path in images["path"].to_pylist()], bool)
        if (~there).sum():
            self.source.dropped["films listed but absent"] += int((~there).sum())
        return images.filter(pa.array(there))

    def _texts(self, admissions: pa.Table) -> pa.Table:
        """The parts of all documents that notes.toml keeps."""
        rules = note_rules()
        tables = [_TEXTS.empty_table()]
        documents = empty = 0
        for batch in self.source.documents():
            rows: dict[str, list[Any]] = {name: [] for name in _TEXTS.names}
            documents += len(batch)
            for document in batch.to_pylist():
                found = parts(document["kind"], document["text"] or "", rules)
                empty += not found
                for section, text in found.items():
                    for name in ("document_id", "subject_id", "hadm_id", "kind", "time"):
                        rows[name].append(document[name])
                    rows["available_at"].append(document["available_at"])
                    rows["section"].append(section)
                    rows["text"].append(text)
            tables.append(pa.table(rows, schema=_TEXTS))
        if empty:
            self.source.dropped["documents without a usable section"] += empty
        table = pa.concat_tables(tables)
        # A discharge summary is available at its admission's discharge.
        place = rows_of(table["hadm_id"].combine_chunks(), admissions, "hadm_id")
        discharge = admissions["dischtime"].combine_chunks().take(pa.array(place, mask=place < 0))
        summary = pc.equal(table["kind"], "discharge_summary")
        available = pc.if_else(summary, discharge, table["available_at"])
        table = table.set_column(
            table.column_names.index("available_at"), "available_at", available
        )
        known = pc.and_(pc.is_valid(table["available_at"]), pc.is_valid(table["subject_id"]))
        if dropped := len(table) - pc.sum(known).as_py() if len(table) else 0:
            self.source.dropped["texts of no known admission or time"] += dropped
        self.say(f"notes: {len(table):,} texts of {documents:,} documents")
        order = [
            ("subject_id", "ascending"),
            ("document_id", "ascending"),
            ("section", "descending"),
            ("text", "ascending"),
        ]
        return table.filter(known).sort_by(order)

    def _write_films(
        self, samples: list[TaskSamples], cohort: Cohort
    ) -> tuple[NDArray[np.int64], list[TaskSamples]]:
        """Decode every film that a sample uses, once; samples about an unreadable film are dropped.

        Returns:
            the row in films.npy of each of the cohort's images (-1: not there), and the samples.
        """
        side, paths = self.settings.film_side, cohort.images["path"].to_pylist()
        used = np.unique(np.concatenate([s.evidence.image for s in samples]))
        rows = np.full(len(paths) + 1, -1)  # the last entry stands for image -1
        root = getattr(self.source, "cxr", None)
        with GrowingArray(self.folder / "films.npy", np.uint8, (side, side)) as films:
            for image in used[used >= 0]:
                try:
                    film = read_film(root / paths[image], side)
                except (UnreadableFilm, OSError):
                    self.source.dropped["films that cannot be decoded"] += 1
                    continue
                rows[image] = films.count
                films.append(film[None])
        if films.count:
            self.say(f"films: {films.count:,} decoded")
        kept = []
        for one in samples:
            readable = (one.asks.image < 0) | (rows[one.asks.image] >= 0)
            if not readable.all():
                cohort.flow.step(f"{one.info.name} samples", readable, "film cannot be decoded")
            kept.append(one.where(readable))
        return rows, kept

    def _write_texts(
        self, samples: list[TaskSamples], texts: pa.Table
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Write the texts that a sample uses, and embed each different one once.

        Returns:
            the row in texts.parquet of each row of `texts` (-1: unused), and the encoder.
        """
        used = np.unique(
            np.concatenate([s.evidence.texts.values.to_numpy() for s in samples]).astype(np.int64)
        )
        rows = np.full(len(texts), -1)
        rows[used] = np.arange(len(used))
        kept = texts.take(pa.array(used))
        hashes = [text_hash(text) for text in kept["text"].to_pylist()]
        kept = kept.append_column("text_hash", pa.array(hashes, pa.string()))
        pq.write_table(kept, self.folder / "texts.parquet")
        if not len(kept):
            return rows, {}
        encoder = text_encoder(self.settings.text_encoder)
        distinct = dict(zip(hashes, kept["text"].to_pylist(), strict=True))
        where: dict[str, tuple[int, int]] = {}
        folder = self.folder / "embeddings" / encoder.fingerprint
        with GrowingArray(folder / "tokens.npy", np.float16, (encoder.width,)) as tokens:
            for chunk in _chunks(list(distinct), 2048):
                vectors = encoder.embed([distinct[key] for key in chunk])
                for key, pieces in zip(chunk, vectors, strict=True):
                    where[key] = (tokens.count, tokens.count + len(pieces))
                    tokens.append(pieces)
        np.save(folder / "spans.npy", np.array([where[key] for key in hashes], np.int64))
        self.say(f"notes: {len(distinct):,} different texts embedded, {tokens.count:,} pieces")
        return rows, {"encoder": encoder.fingerprint, "width": encoder.width}

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


_TEXTS = pa.schema(
    [
        ("document_id", pa.string()),
        ("subject_id", pa.int64()),
        ("hadm_id", pa.int64()),
        ("kind", pa.string()),
        ("section", pa.string()),
        ("time", pa.timestamp("us")),
        ("available_at", pa.timestamp("us")),
        ("text", pa.string()),
    ]
)


def _with_admittime(stays: pa.Table, admissions: pa.Table) -> pa.Table:
    place = rows_of(stays["hadm_id"].combine_chunks(), admissions, "hadm_id")
    times = admissions["admittime"].combine_chunks().take(pa.array(place, mask=place < 0))
    return stays.append_column("admittime", times)


def _chunks(values: list[str], size: int) -> Iterable[list[str]]:
    return (values[i : i + size] for i in range(0, len(values), size))


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
