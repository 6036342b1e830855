"""Write the invented hospital as a folder in MIMIC-IV's own layout."""

import csv
import gzip
import io
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from flexcare.errors import UserError
from flexcare.files import refuse_existing, whole, write_json
from flexcare.sources.synthetic.films import draw_studies, findings_row, metadata_rows, picture
from flexcare.sources.synthetic.layout import CHART_ITEMS, COLUMNS
from flexcare.sources.synthetic.notes import discharge_rows, radiology_rows
from flexcare.sources.synthetic.plan import Subject, draw_subject, generator
from flexcare.sources.synthetic.series import NOTHING, TEXTS, ChartRows, stay_rows
from flexcare.sources.synthetic.tables import dictionary_rows, subject_rows
from flexcare.sources.synthetic.truth import truth

FEWEST = 20  # fewer leave a split or a class empty
CHUNK = 100  # subjects whose charted rows are written at once
LABS = 2_000  # labevent_ids kept for a subject
OPTIONAL = {"cxr/": "films", "note/": "notes"}
README = """An invented hospital: computed from random numbers, no patient is real.
The tables have the layout of MIMIC-IV and some of its usual dirt, so that the same reader reads
them. truth/factors.parquet holds each subject's hidden factors and truth/truth.json says which
modality every task needs. Nothing here says anything about medicine.
"""


def simulate(
    out: Path, subjects: int, seed: int = 0, films: bool = True, notes: bool = True
) -> None:
    """Write an invented hospital with planted truth to the new folder `out` (SPEC 8).

    The same seed and number give the same bytes; a subject is the same whatever the number.
    `films` and `notes` leave out `cxr/` and `note/` and change nothing else.

    Raises:
        UserError: `out` exists, fewer than 20 subjects, or a negative seed.
    """
    _check(subjects, seed)
    refuse_existing(out)
    with whole(out) as folder:
        folder.mkdir()
        (folder / "README.txt").write_text(README)
        write_json(folder / "truth" / "truth.json", truth(seed, subjects))
        with Tables(folder, {"films": films, "notes": notes}) as tables:
            for name, rows in dictionary_rows().items():
                tables.add(name, rows)
            for number in range(subjects):
                subject = draw_subject(seed, number)
                _write_subject(tables, subject, seed)
                if films:
                    _write_films(tables, subject, seed)
                if notes:
                    _write_notes(tables, subject, seed)


class Tables:
    """The open tables of one folder; rows are added subject by subject."""

    def __init__(self, folder: Path, wanted: dict[str, bool]) -> None:
        self.folder = folder
        self.charts: list[ChartRows] = []
        self.factors: list[dict[str, Any]] = []
        self.files: dict[str, io.TextIOWrapper] = {}
        self.stack = ExitStack()
        for name, columns in COLUMNS.items():
            if all(wanted[option] for start, option in OPTIONAL.items() if name.startswith(start)):
                self.files[name] = self.stack.enter_context(_open(folder / f"{name}.csv.gz"))
                self.files[name].write(columns + "\n")

    def __enter__(self) -> "Tables":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self.stack:
            if kind is None:
                self._write_charts()
                pq.write_table(
                    pa.Table.from_pylist(self.factors), self.folder / "truth" / "factors.parquet"
                )

    def add(self, name: str, rows: Iterable[tuple[Any, ...]]) -> None:
        csv.writer(self.files[name], lineterminator="\n").writerows(rows)

    def add_subject(self, subject: Subject, charts: list[ChartRows]) -> None:
        """Note the factors and the charted rows, which are written many subjects at a time."""
        values = {**subject.factors, "u": subject.severity}
        self.factors.append({"subject_id": subject.subject_id, **values})
        self.charts += charts
        if len(self.factors) % CHUNK == 0:
            self._write_charts()

    def _write_charts(self) -> None:
        if self.charts:
            sink = pa.BufferOutputStream()
            style = pacsv.WriteOptions(include_header=False, quoting_style="none")
            pacsv.write_csv(_chart_table(self.charts), sink, style)
            self.files["icu/chartevents"].write(sink.getvalue().to_pybytes().decode())
        self.charts = []


def _write_subject(tables: Tables, subject: Subject, seed: int) -> None:
    for name, rows in subject_rows(subject, generator(seed, subject.number, "tables")).items():
        tables.add(name, rows)
    rng = generator(seed, subject.number, "series")
    first, charts = LABS * subject.number + 1, []
    for admission in subject.admissions:
        for stay in admission.stays:
            chart, labs, outputs = stay_rows(subject, admission, stay, first, rng)
            first += len(labs)
            charts.append(chart)
            tables.add("hosp/labevents", labs)
            tables.add("icu/outputevents", outputs)
    tables.add_subject(subject, charts)


def _write_films(tables: Tables, subject: Subject, seed: int) -> None:
    rng = generator(seed, subject.number, "pictures")
    name = f"p{subject.subject_id}"
    for study in draw_studies(subject, generator(seed, subject.number, "studies")):
        tables.add("cxr/mimic-cxr-2.0.0-metadata", metadata_rows(subject, study))
        tables.add("cxr/mimic-cxr-2.0.0-chexpert", [findings_row(subject, study, rng)])
        place = tables.folder / "cxr" / "files" / name[:3] / name / f"s{study.study_id}"
        for dicom, view, exists in study.films:
            if exists:
                place.mkdir(parents=True, exist_ok=True)
                (place / f"{dicom}.jpg").write_bytes(picture(subject, view, rng))


def _write_notes(tables: Tables, subject: Subject, seed: int) -> None:
    rng = generator(seed, subject.number, "notes")
    studies = draw_studies(subject, generator(seed, subject.number, "studies"))
    tables.add("note/discharge", discharge_rows(subject, rng))
    tables.add("note/radiology", radiology_rows(subject, studies, rng))


def _chart_table(parts: list[ChartRows]) -> pa.Table:
    """The rows of chartevents in the order of its columns."""
    names = ChartRows.__dataclass_fields__
    rows = ChartRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    number = pa.array(rows.number, mask=np.isnan(rows.number))
    text = pa.array(TEXTS).take(pa.array(rows.text, mask=rows.text < 0))
    units = pa.array([unit for _, unit, _ in CHART_ITEMS.values()])
    places = {item: place for place, item in enumerate(CHART_ITEMS)}
    unit = pa.array([places[item] for item in rows.item.tolist()])
    return pa.table(
        {
            "subject_id": rows.keys[:, 0],
            "hadm_id": rows.keys[:, 1],
            "stay_id": rows.keys[:, 2],
            "caregiver_id": pa.nulls(len(rows.time), pa.string()),
            "charttime": pa.array(rows.time).cast(pa.timestamp("s")),
            "storetime": pa.array(rows.stored, mask=rows.stored == NOTHING).cast(pa.timestamp("s")),
            "itemid": rows.item,
            "value": pc.coalesce(text, number.cast(pa.string())),
            "valuenum": number,
            "valueuom": units.take(unit),
            "warning": rows.warning,
        }
    )


def _open(path: Path) -> io.TextIOWrapper:
    """A gzip text file without a date or name inside, so that equal rows are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = gzip.GzipFile(path, "wb", compresslevel=1, mtime=0)
    return io.TextIOWrapper(raw, encoding="utf-8", newline="")


def _check(subjects: int, seed: int) -> None:
    for name, found, least in (("subjects", subjects, FEWEST), ("seed", seed, 0)):
        if found < least:
            raise UserError(f"{name} is too small", found=str(found), expected=f"at least {least}")
