"""Puts the left half together: raw tables -> store."""

import importlib.metadata
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.cohort.asks import Cohort, rows_of
from flexcare.cohort.samples import (
    GROUPS,
    TaskSamples,
    check_any,
    count_samples,
    evidence_table,
    samples_of,
    to_table,
)
from flexcare.cohort.splits import check_folds, describe, learned_from, split_of
from flexcare.cohort.stays import Flow, admissions_of, column, select_stays
from flexcare.config import Preparation, check
from flexcare.errors import UserError, unknown
from flexcare.features.scaling import WIDTH, fit_films
from flexcare.features.text import check_encoder
from flexcare.features.variables import VariableSet, read_variables
from flexcare.files import Hashes, refuse_existing, whole, write_json
from flexcare.presets import read_preset
from flexcare.reuse import FILMS, earlier_store
from flexcare.schema import SPLITS, STORE_VERSION, ModalityInfo
from flexcare.sources import DEFAULTS, SOURCES, asked_of, companions_of
from flexcare.sources.tables import FindsVariables
from flexcare.store import modality_table, narrow, samples_schema, task_table
from flexcare.storing import Parts, Say
from flexcare.tasks import Task, load_tasks
from flexcare.tasks.aces import asks_aces, label_files

TRAIN = SPLITS.index("train")
PIECE = 100_000  # samples written at once
# Columns of samples in which a value is seldom repeated but near the one before.
DELTA = {"sample_id": "DELTA_BYTE_ARRAY", "prediction_time": "DELTA_BINARY_PACKED"}
MEMORY = "1000MB"  # of DuckDB; what does not fit goes to its temporary folder


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
    reuse: str | Path | None = None,
    say: Say = print,
) -> Path:
    """Make a store from a source's raw tables.

    Args:
        source: a name of sources.SOURCES.
        path: folder of the source; cxr, note, ed: its optional companions.
        out: the store to write, which must not exist.
        tasks: names or files, a list or a text with commas; None: the usual ones of the source.
        variables, text_encoder, clock: as in config.Preparation; None: the preset's.
        settings: what else differs from the preset (config.Preparation).
        reuse: an earlier store; what would become the same is taken from it.
        say: told one line a step.

    Returns:
        The path of the store.

    Raises:
        UserError: bad input; nothing is left at `out`. What was embedded waits beside it, in
            `.NAME.embeddings`, for the same preparation to be run again.
    """
    out = Path(out)
    refuse_existing(out)
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)
    given = {"variables": variables, "text_encoder": text_encoder, "clock": clock}
    named = {name: str(value) for name, value in given.items() if value is not None}
    options = _options(source, preset, (settings or {}) | named, say)
    asked = asked_of(source, Path(path), tasks)
    questions = [] if asks_aces(asked) else load_tasks(asked)
    companions = companions_of(source, {"cxr": cxr, "note": note, "ed": ed})
    earlier = earlier_store(Path(reuse) if reuse else None, say)
    unfinished = out.with_name(f".{out.name}.embeddings")
    with whole(out) as folder, _connected(folder) as connection, Hashes() as hashes:
        reader = SOURCES[source](Path(path), connection, **companions)
        if not questions:
            shards = getattr(reader, "shards", None)
            questions = load_tasks(label_files(asked, shards, folder / "spill"))
        work = _Preparation(reader, options, folder, say, unfinished, earlier)
        try:
            work.run(questions, preset, hashes)
        except BaseException:
            if unfinished.exists():
                say(f"notes: what is embedded waits in {unfinished} for the same preparation")
            raise
    shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _options(source: str, preset: str, settings: dict[str, Any], say: Say) -> Preparation:
    """The settings: the source's, the preset's over them, and those given over both."""
    table = read_preset(preset)
    if "warning" in table:
        say(f"warning: {table['warning']}")
    chosen = DEFAULTS.get(source, {}) | table["preparation"] | settings
    options = check(Preparation, chosen, "the settings of prepare")
    check_encoder(options.text_encoder)
    return options


@contextmanager
def _connected(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that keeps what does not fit into memory in a new `folder`, for a while."""
    folder.mkdir()
    spill = folder / "spill"
    connection = duckdb.connect(
        config={
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
            "allocator_bulk_deallocation_flush_threshold": "1MB",  # what is free, others need
            # The first lets the csv reader cast, and fail, where TRY_CAST asks for null. The
            # second takes a compressed file for a short table and builds its joins from it.
            "disabled_optimizers": "type_pushdown,build_side_probe_side",
        }
    )
    try:
        yield connection
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


class _Preparation(Parts):
    """The steps of one preparation; each reads what the ones before left."""

    def run(self, questions: list[Task], preset: str, hashes: Hashes) -> None:
        """All steps, in the order of the data."""
        flow = Flow()
        subjects = self.source.subjects()
        check_folds(self.settings, self.source.held_out)
        admissions = admissions_of(self.source, subjects, self.settings)
        stays, every = select_stays(self.source, admissions, self.settings, flow)
        self.say(f"cohort: {len(stays):,} of {len(every):,} stays kept")
        variables = self._variables(stays)
        spans, first_seen = self.events(stays, variables, hashes.of)
        fitted = hashes.beside.submit(self.fit, spans[self._training(stays)], variables)
        hashes.start([*self.source.files, *(self.folder / "events").iterdir()])
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
            kinds={name: own.kind for name, own in variables.modalities.items()},
            settings=self.settings,
            flow=flow,
            answers=self.source.answers(),
            held_out=self.source.held_out,
        )
        texts = self.read_texts(admissions)
        samples = [samples_of(task, cohort, texts) for task in questions]
        check_any(samples, cohort)
        for one in samples:
            self.say(f"{one.info.name}: {len(one.asks):,} samples")
        film_rows, light, samples = self.write_films(samples, cohort)
        text_rows, text_info = self.write_texts(samples, texts)
        self._write_samples(samples, cohort, spans, film_rows, text_rows)
        scaling, dropped = fitted.result()
        self.source.dropped.update(dropped)
        modalities = self._modalities(variables, scaling, cohort, text_info)
        shown = [film_rows[s.evidence.image[s.split == TRAIN]] for s in samples]
        films = np.unique(np.concatenate(shown))
        film = fit_films(light[films[films >= 0]], self.settings.film_side**2)
        cohort.counts["samples"] = count_samples(samples, cohort, film_rows)
        self._write_manifest(
            preset, samples, variables, modalities, scaling | {"film": film}, cohort, hashes
        )

    def _variables(self, stays: pa.Table) -> VariableSet:
        """Those of the file, or what a source without a fitting one finds in the training split."""
        own = not (self.settings.variables or self.source.variables)
        if not (own and isinstance(self.source, FindsVariables)):
            return read_variables(self._variables_file())
        variables = self.source.own_variables(stays.filter(pa.array(self._training(stays))))
        self.say(
            f"variables: no file fits; the {len(variables.names)} most frequent codes with numbers"
            " in the training split, without limits"
        )
        return variables

    def _training(self, stays: pa.Table) -> NDArray[np.bool_]:
        """Which of these stays are of the training split."""
        who, by = column(stays, "subject_id"), self.settings
        split = split_of(who, by.seed, by.folds, by.fold, self.source.held_out, by.tuning)
        out: NDArray[np.bool_] = (split == TRAIN) & learned_from(who, split, by)
        return out

    def _name(self, path: Path) -> str:
        """A source file's name, with its folder in the source: shards often share a name."""
        root = self.source.path
        return str(path.relative_to(root)) if root in path.parents else path.name

    def _variables_file(self) -> Path:
        name = self.settings.variables or self.source.variables
        if name.endswith((".toml", ".json")):
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
    ) -> None:
        """Write samples.parquet, task by task and piece by piece."""
        schema = narrow(samples_schema(list(GROUPS), cohort.kinds))
        path = self.folder / "samples.parquet"
        options = {
            "store_schema": False,  # it would have the dictionaries read as such
            "column_encoding": DELTA,
            "use_dictionary": [name for name in schema.names if name not in DELTA],
        }
        # One piece is written while the next one is made.
        with pq.ParquetWriter(path, schema, **options) as writer, ThreadPoolExecutor(1) as beside:
            written: list[Future[None]] = []
            for one in samples:
                for first in range(0, len(one.asks), PIECE):
                    part = one.where(slice(first, first + PIECE))
                    columns = to_table(part, cohort)
                    columns |= evidence_table(part, cohort, spans, film_rows, text_rows)
                    table = pa.table([columns[f.name] for f in schema], schema=schema)
                    for earlier in written:
                        earlier.result()
                    written = [beside.submit(writer.write_table, table)]
            for last in written:
                last.result()

    def _modalities(
        self,
        variables: VariableSet,
        scaling: dict[str, Any],
        cohort: Cohort,
        text: dict[str, Any],
    ) -> dict[str, ModalityInfo]:
        """What this store's patients may have; codes and embeddings only if there are any."""
        out = []
        for name, own in variables.modalities.items():
            settings = {"columns": own.columns(), "variables": own.to_dict()}
            if width := WIDTH[own.kind](own, scaling[name]):
                out.append(ModalityInfo(name, own.kind, width, settings))
        if len(cohort.images):
            out.append(ModalityInfo("film", "image", self.settings.film_side, {}))
        if text:
            out.append(ModalityInfo("note", "text", text["width"], {"encoder": text["encoder"]}))
        return {info.name: info for info in out}

    def _write_manifest(
        self,
        preset: str,
        samples: list[TaskSamples],
        variables: VariableSet,
        modalities: dict[str, ModalityInfo],
        scaling: dict[str, Any],
        cohort: Cohort,
        hashes: Hashes,
    ) -> None:
        """Say what this store is, from what and how."""
        content = [path for path in self.folder.rglob("*") if path.is_file()]
        content = sorted(
            path for path in content if "spill" not in path.parts and path.name != FILMS
        )
        hashes.start([*content, *self.source.files])
        manifest = {
            "artefact": "store",
            "schema_version": STORE_VERSION,
            "flexcare": importlib.metadata.version("flexcare"),
            "source": self.source.name,
            "preset": preset,
            "settings": self.settings.model_dump(mode="json"),
            "splits": describe(self.settings, cohort.held_out, len(cohort.subjects)),
            "source_files": {
                self._name(path): {"bytes": path.stat().st_size, "sha256": hashes.of(path)}
                for path in sorted(self.source.files)
            },
            "tasks": task_table({s.info.name: s.info for s in samples}),
            "variables": list(variables.names),
            "modalities": modality_table(modalities),
            "scaling": scaling,
            "cohort_flow": cohort.flow.steps,
            "dropped": dict(sorted(self.source.dropped.items())),
            "counts": cohort.counts,
            "content": {str(p.relative_to(self.folder)): hashes.of(p) for p in content},
            "parts": {name: part(hashes.of) for name, part in self.parts.items()},
        }
        write_json(self.folder / "manifest.json", json.loads(json.dumps(manifest)))


def _with_admittime(stays: pa.Table, admissions: pa.Table) -> pa.Table:
    place = rows_of(stays["hadm_id"].combine_chunks(), admissions, "hadm_id")
    times = admissions["admittime"].combine_chunks().take(pa.array(place, mask=place < 0))
    return stays.append_column("admittime", times)
