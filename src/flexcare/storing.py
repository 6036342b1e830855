"""Writes the parts of a store that a source fills: events, waves, films, texts, embeddings."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.cohort.asks import Cohort, rows_of
from flexcare.cohort.samples import TaskSamples
from flexcare.cohort.stays import column
from flexcare.config import Preparation
from flexcare.embedding import embed
from flexcare.errors import UserError
from flexcare.features.films import read_films
from flexcare.features.notes import note_rules, parts
from flexcare.features.scaling import Meanings, brightness, fit_events
from flexcare.features.text import text_encoder, text_hash
from flexcare.features.variables import SERIES, WAVE, Variable, VariableSet
from flexcare.features.waves import read_waves
from flexcare.files import read_json, write_json
from flexcare.reuse import (
    FILMS,
    STAYS_OF_EVENTS,
    Earlier,
    HashOf,
    Stamp,
    of_events,
    recipe,
)
from flexcare.sources.tables import GivesWaves, Source
from flexcare.store import CODES, EMBEDDING_ARRAYS, EVENT_ARRAYS, VECTORS, WAVES, GrowingArray

Say = Callable[[str], None]

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


@dataclass
class Parts:
    """Reads a source and writes into the folder of a store.

    Args:
        say: told one line a step.
        unfinished: folder in which embeddings survive a cancelled run.
        earlier: a store whose parts are taken where they would become the same.
        parts: gives what the manifest says of a part, once the files are hashed.
    """

    source: Source
    settings: Preparation
    folder: Path
    say: Say
    unfinished: Path
    earlier: Earlier | None = None
    parts: dict[str, Callable[[HashOf], dict[str, Any]]] = field(default_factory=dict)

    def events(
        self, stays: pa.Table, variables: VariableSet, hash_of: HashOf
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Write the event arrays and what they refer to, or take them; as `write_events`."""
        made_of = recipe(stays, variables, self.settings.clock, self._records())
        taken = self.earlier and self.earlier.events(made_of, self.source, self.folder, hash_of)
        paths = [self.folder / "events" / f"{name}.npy" for name in STAYS_OF_EVENTS]
        if self.earlier and taken:
            self.say(f"{', '.join(variables.modalities)}: taken from {self.earlier.name}")
            self.parts["events"] = lambda hash_of: taken
            spans, first_seen = map(np.load, paths)
            return spans, first_seen
        dropped = self.source.dropped.copy()
        found = self.write_events(stays, variables)
        self._write_meanings(variables)
        for path, array in zip(paths, found, strict=True):
            np.save(path, array)
        # Static fields of some sources come from the tables that tell who there is.
        files, dropped = list(self.source.files), self.source.dropped - dropped
        self.parts["events"] = partial(of_events, made_of, self.source, files, dropped)
        return found

    def write_events(
        self, stays: pa.Table, variables: VariableSet
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Write the event arrays; give each stay's row range (stays, 2) and the hours until
        something of each modality was first seen (stays, modalities), NaN: never."""
        columns = stays.select(["stay_id", "subject_id", "intime", "outtime", "los"])
        counts = np.zeros(len(stays), np.int64)
        names = list(variables.modalities)
        first = np.full(len(stays) * len(names), np.inf)
        modality = np.array([names.index(v.modality) for v in variables.variables.values()])
        any_time = np.array([v.kind != SERIES for v in variables.variables.values()])
        with ExitStack() as opened:
            arrays = {
                name: opened.enter_context(
                    GrowingArray(self.folder / "events" / f"{name}.npy", dtype)
                )
                for name, dtype in EVENT_ARRAYS.items()
            }

            def write(events: pa.Table) -> None:
                found = {name: column(events, name) for name in events.column_names}
                counts[:] += np.bincount(found["stay"], minlength=len(stays))
                observed = (found["seconds"] >= 0) | any_time[found["variable"]]
                visible = np.maximum(found["seconds"], found["available"])[observed] / 3600
                place = found["stay"] * len(names) + modality[found["variable"]]
                np.minimum.at(first, place[observed], visible)
                for name, array in arrays.items():
                    array.append(found[name])

            # One table is written while the next one is sorted.
            beside, written = opened.enter_context(ThreadPoolExecutor(1)), None
            for events in self.source.events(columns, variables, self.settings.clock):
                if written:
                    written.result()
                written = beside.submit(write, events)
            if written:
                written.result()
        self.say(f"{', '.join(names)}: {counts.sum():,} events of {len(variables.names)} variables")
        stop = np.cumsum(counts)
        seen = np.where(np.isinf(first), np.nan, first).reshape(len(stays), len(names))
        return np.stack([stop - counts, stop], 1), seen

    def _write_meanings(self, variables: VariableSet) -> None:
        """Write the codes, vectors and waves that values of events are numbers of."""
        kinds = {name: variable.kind for name, variable in variables.variables.items()}
        codes = {name: self.source.codes.get(name, []) for name in kinds if kinds[name] == "codes"}
        if codes:
            write_json(self.folder / CODES, codes)
        for name, vectors in self.source.vectors.items():
            if kinds.get(name) == "embedding" and len(vectors):
                if not np.isfinite(vectors).all():
                    raise UserError(f"vectors of {name} hold values that are not finite")
                (self.folder / VECTORS).mkdir(exist_ok=True)
                np.save(self.folder / VECTORS / f"{name}.npy", vectors.astype(np.float32))
        for name, paths in self._records().items():
            if kinds.get(name) == WAVE:
                self._write_waves(name, paths, variables.variables[name])

    def _records(self) -> dict[str, list[Path]]:
        """By variable of waves, the file of each record."""
        return self.source.waves if isinstance(self.source, GivesWaves) else {}

    def _write_waves(self, name: str, paths: list[Path], variable: Variable) -> None:
        """Read every record of a variable once."""
        shape = len(variable.channels), variable.samples
        with GrowingArray(self.folder / WAVES / f"{name}.npy", np.float32, shape) as array:
            for wave in read_waves(paths, variable.channels, variable.samples):
                array.append(wave[None])
        self.say(f"{name}: {len(paths):,} records of {shape[0]} x {shape[1]:,} samples")

    def _meanings(self) -> Meanings:
        """What values of events are numbers of."""
        codes = self.folder / CODES
        vectors, waves = (
            {path.stem: np.load(path, mmap_mode="r") for path in (self.folder / name).glob("*.npy")}
            for name in (VECTORS, WAVES)
        )
        known = read_json(codes, "the codes of a store") if codes.is_file() else {}
        return known, vectors, waves

    def fit(
        self, spans: NDArray[np.int64], variables: VariableSet
    ) -> tuple[dict[str, dict[str, Any]], Counter[str]]:
        """What the events of the training split teach (scaling.fit_events), and what that drops.

        Args:
            spans: (n, 2) rows of the events of its stays.
        """
        events = {
            name: np.load(self.folder / "events" / f"{name}.npy", mmap_mode="r")
            for name in ("seconds", "variable", "value")
        }
        # Where stays begin and end, summed up: 1 within a stay of the training split.
        edges = np.zeros(len(events["value"]) + 1, np.int8)
        np.add.at(edges, spans[:, 0], 1)
        np.add.at(edges, spans[:, 1], -1)
        training = np.cumsum(edges[:-1], dtype=np.int8).astype(bool)
        settings, dropped = self.settings, Counter[str]()
        scaling = fit_events(
            events,
            training,
            variables,
            self._meanings(),
            settings.scaling,
            settings.fixed_scale,
            dropped,
        )
        return scaling, dropped

    def films_there(self, subjects: pa.Table) -> pa.Table:
        """The source's AP films of known subjects whose file exists."""
        images = self.source.images()
        root = getattr(self.source, "cxr", None)
        there = np.array([(root / path).is_file() for path in images["path"].to_pylist()], bool)
        if (~there).sum():
            self.source.dropped["films listed but absent"] += int((~there).sum())
        return images.filter(pa.array(there))

    def read_texts(self, admissions: pa.Table) -> pa.Table:
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
        # A discharge summary is available at its admission's discharge, unless its source knows.
        place = rows_of(table["hadm_id"].combine_chunks(), admissions, "hadm_id")
        discharge = admissions["dischtime"].combine_chunks().take(pa.array(place, mask=place < 0))
        summary = pc.equal(table["kind"], "discharge_summary")
        known = pc.coalesce(table["available_at"], discharge)
        available = pc.if_else(summary, known, table["available_at"])
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

    def write_films(
        self, samples: list[TaskSamples], cohort: Cohort
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[TaskSamples]]:
        """Decode every film that a sample uses, once; samples about an unreadable film are dropped.

        Returns:
            the row in films.npy of each of the cohort's images (-1: not there), (films, 2) the
            brightness of each film, and the samples.
        """
        side, paths = self.settings.film_side, cohort.images["path"].to_pylist()
        used = np.unique(np.concatenate([s.evidence.image for s in samples]))
        used = used[used >= 0]
        rows = np.full(len(paths) + 1, -1)  # the last entry stands for image -1
        readable, light = self._write_films([paths[image] for image in used], side)
        rows[used[readable]] = np.arange(len(light))
        kept = []
        for one in samples:
            readable = (one.asks.image < 0) | (rows[one.asks.image] >= 0)
            if not readable.all():
                cohort.flow.step(f"{one.info.name} samples", readable, "film cannot be decoded")
            kept.append(one if readable.all() else one.where(readable))
        return rows, light, kept

    def _write_films(
        self, paths: list[str], side: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which of these files can be decoded, and the brightness of those."""
        root = getattr(self.source, "cxr", None) or Path()
        stamps = [Stamp.of(root, path) for path in paths]
        known = self.earlier.films(side) if self.earlier else {}
        new = read_films((root / one.path for one in stamps if one not in known), side)
        decoded = (known[one] if one in known else next(new) for one in stamps)
        readable, light = np.zeros(len(paths), bool), []
        with GrowingArray(self.folder / "films.npy", np.uint8, (side, side)) as films:
            for number, film in enumerate(decoded):
                if film is not None:
                    readable[number] = True
                    films.append(film[None])
                    light.append(brightness(film))
        if len(light) < len(paths):
            self.source.dropped["films that cannot be decoded"] += len(paths) - len(light)
        kept = [stamp for stamp, there in zip(stamps, readable, strict=True) if there]
        columns = zip(*kept, strict=True) if kept else [(), (), ()]
        types = (pa.string(), pa.int64(), pa.int64())
        arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
        pq.write_table(pa.table(arrays, names=Stamp._fields), self.folder / FILMS)
        # Beside the contents, for it holds times at which files were written.
        self.parts["films"] = lambda hash_of: {FILMS: hash_of(self.folder / FILMS)}
        if light:
            self.say(f"films: {len(light):,}{self._from(len(set(kept) & set(known)))}")
        return readable, np.array(light, np.int64).reshape(-1, 2)

    def _from(self, count: int) -> str:
        """Words that say how many were taken from the earlier store."""
        return f", {count:,} of them from {self.earlier.name}" if self.earlier else ""

    def write_texts(
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
        folder = self.folder / "embeddings" / encoder.fingerprint
        bits = self.settings.embedding_bits
        known = self.earlier.vectors(encoder.fingerprint, bits) if self.earlier else None
        old = set(known.spans) & set(distinct) if known else set()
        if self.earlier and known and set(known.spans) == set(distinct):
            for name in EMBEDDING_ARRAYS[bits]:
                self.earlier.link(str(folder.relative_to(self.folder) / f"{name}.npy"), self.folder)
            spans, before = known.spans, 0
        else:
            spans, before = embed(distinct, encoder, bits, self.unfinished, folder, known)
        np.save(folder / "spans.npy", np.array([spans[key] for key in hashes], np.int64))
        resumed = f", {before:,} of them from a cancelled run" if before else self._from(len(old))
        self.say(f"notes: {len(distinct):,} different texts{resumed}")
        return rows, {"encoder": encoder.fingerprint, "width": encoder.width}
