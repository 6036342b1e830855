"""Writes the parts of a store that a source fills: events, films, texts and their embeddings."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flexcare.cohort.asks import Cohort, rows_of
from flexcare.cohort.samples import TaskSamples
from flexcare.config import Preparation
from flexcare.features.films import UnreadableFilm, read_film
from flexcare.features.notes import note_rules, parts
from flexcare.features.text import text_encoder, text_hash
from flexcare.features.variables import VariableSet
from flexcare.sources.tables import Source
from flexcare.store import EVENT_ARRAYS, GrowingArray

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
    """

    source: Source
    settings: Preparation
    folder: Path
    say: Say

    def write_events(
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

    def write_films(
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


def _chunks(values: list[str], size: int) -> Iterable[list[str]]:
    return (values[i : i + size] for i in range(0, len(values), size))
