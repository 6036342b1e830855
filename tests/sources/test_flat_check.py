"""The validator names file, row, column, what was found and expected, of every fault."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flat_folders import opened

from flexcare.cli import main
from flexcare.errors import UserError
from flexcare.sources.flat import faults_of, write_template
from flexcare.sources.flat.layout import TABLES
from flexcare.sources.flat.source import FIRST, OF_A_KIND


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flat") / "example"
    write_template(folder)
    return folder


@pytest.fixture
def folder(example: Path, tmp_path: Path) -> Path:
    """A copy of the example, to be damaged."""
    write_template(tmp_path / "folder")
    return tmp_path / "folder"


def edit(folder: Path, name: str, old: str, new: str, count: int = 1) -> int:
    """Replace the first places of a text in a file.

    Returns:
        the row of the first one.
    """
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))
    return text[: text.index(old)].count("\n") + 1


def places(folder: Path) -> list[tuple[str, int | None, str]]:
    return [(f.file, f.row, f.column) for f in faults_of(folder).shown]


def test_the_example_passes(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "flat", str(example)])
    assert capsys.readouterr().out == f"{example}: no faults\n"


# name of the file, what is replaced, by what, the column, words of the report
CELLS = [
    ("events.csv", "age,2031-01-04 08:00,,79", "age,2031-01-04 08:00,,old", "value",
     ("found old", "expected a number")),
    ("events.csv", "age,2031-01-04 08:00,,79", 'age,2031-01-04 08:00,,"79,5"', "value",
     ("found 79,5", "a number with a decimal point")),
    ("events.csv", ",,male", ",,man", "value", ("found man", "female, male")),
    ("events.csv", "2031-01-04 08:00", "04.01.2031 08:00", "time",
     ("found 04.01.2031 08:00", "2031-12-24 18:30")),
    ("events.csv", "2031-01-04 08:00", "01/04/2031", "time", ("found 01/04/2031",)),
    ("events.csv", "2031-01-04 08:00", "2031-02-30 08:00", "time", ("that exist",)),
    ("events.csv", "2031-01-04 08:00", "2031-01-04T08:00:00Z", "time", ("without a zone",)),
    ("events.csv", "2031-01-04 08:00", "2031-01-04 08:00+01:00", "time", ("without a zone",)),
    ("events.csv", "2031-01-04 08:00", "", "time", ("found nothing", "something in every row")),
    ("events.csv", "101,age", "999,age", "stay_id", ("found 999", "of the table stays")),
    ("events.csv", "101,age", "1O1,age", "stay_id", ("found 1O1", "a whole number")),
    ("events.csv", "101,age", "101,weight", "variable", ("found weight", "variables.toml")),
    ("events.csv", "101,age", "101,diagnosis", "variable", ("found diagnosis", "static")),
    ("codes.csv", "101,diagnosis", "101,age", "variable", ("found age", "of kind codes")),
    ("stays.csv", "102,2,", "101,2,2031-01-07,2031-01-08\n102,2,", "stay_id",
     ("101 again, as in row 2", "one row for each")),
    ("stays.csv", "101,1,", "101,77,", "subject_id", ("found 77", "of the table subjects")),
    ("stays.csv", "2031-01-06 08:00", "2031-01-03 08:00", "stop",
     ("found 2031-01-03 08:00, start 2031-01-04 08:00", "after the start")),
    ("subjects.csv", "2,female", "1,female,1990,\n2,female", "subject_id", ("1 again",)),
    ("subjects.csv", "male,1952", "male,52", "birth_year", ("found 52", "1800 to 2200")),
    ("images.csv", "films/1.jpg", "films/none.jpg", "path", ("films/none.jpg, which is not",)),
    ("images.csv", "films/1.jpg", "README.txt", "path", ("found README.txt", "a JPEG file")),
    ("images.csv", "1002,", "1001,", "image_id", ("1001 again",)),
    ("documents.csv", ",note,", ",poem,", "kind", ("found poem", "'note'")),
    ("labels.csv", "101,return_30d,48,1", "101,return_30d,48,yes", "value", ("found yes",)),
    ("labels.csv", "102,return_30d,48", "101,return_30d,48", "stay_id, name, hours",
     ("101 return_30d 48 again, as in row 2",)),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "column", "words"), CELLS)
def test_a_fault_is_named_with_its_place(
    folder: Path, file: str, old: str, new: str, column: str, words: tuple[str, ...]
) -> None:
    row = edit(folder, file, old, new)
    faults = faults_of(folder)
    of_kind = [f for f in faults.shown if f.column == column]
    shown = next(f for f in of_kind if f.row in (row, row + 1))
    assert shown.file == file
    assert len(faults) == len(of_kind) == 1
    line = faults.lines()[0]
    assert line.startswith(f"{file}, row {shown.row}, column {column}: found ")
    for word in words:
        assert word in line


FILES = [
    ("labels.csv", "stay_id,name,hours,value", "stay_id,name,hours", "row 1, column value"),
    ("events.csv", "available_at,", "avaliable_at,", "a column 'avaliable_at'"),
    ("events.csv", "stay_id,variable", "stay_id,stay_id", "column stay_id: found it twice"),
    ("events.csv", "101,age,2031-01-04 08:00,,79", "101,age,2031-01-04 08:00,,79,5",
     "row 2: found 6 cells, expected 5 cells"),
    ("variables.toml", '[age]\nunit = "years"', "[age]\nunits = 3", "variables.toml: found"),
    ("variables.toml", "[age]", "[age", "variables.toml is not TOML"),
    ("tasks/return_30d.toml", 'name = "return_30d"', 'name = "retrun"', "found 'retrun'"),
    ("tasks/return_30d.toml", "question", "qestion", "tasks/return_30d.toml: found"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "words"), FILES)
def test_a_fault_of_a_whole_file_is_named(
    folder: Path, file: str, old: str, new: str, words: str
) -> None:
    edit(folder, file, old, new)
    assert any(line.startswith(file) and words in line for line in faults_of(folder).lines())


def test_a_byte_order_mark_is_harmless(folder: Path) -> None:
    path = folder / "events.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert not len(faults_of(folder))


def test_a_packed_file_is_read(folder: Path) -> None:
    path = folder / "events.csv"
    packed = gzip.compress(b"\xef\xbb\xbf" + path.read_bytes())
    (folder / "events.csv.gz").write_bytes(packed)
    path.unlink()
    assert not len(faults_of(folder))


def test_behind_semicolons_all_other_faults_are_found_as_well(folder: Path) -> None:
    """As a spreadsheet in German saves it."""
    path = folder / "events.csv"
    text = path.read_text().replace(",", ";").replace(";79\n", ";79,5\n")
    path.write_text(text.replace("2031-01-07", "07.01.2031"))
    lines = faults_of(folder).lines()
    assert "events.csv, row 1: found semicolons, expected commas between the cells" in lines
    assert any("column value: found 79,5" in line for line in lines)
    assert any("column time: found 07.01.2031" in line for line in lines)


def test_of_many_faults_of_a_kind_the_check_names_all_and_prepare_the_first(folder: Path) -> None:
    text = (folder / "events.csv").read_text()
    wrong = [row for row, line in enumerate(text.splitlines(), 1) if "heart_rate" in line]
    (folder / "events.csv").write_text(text.replace("heart_rate", "pulse"))
    faults = faults_of(folder)
    assert len(faults) == len(faults.lines()) == len(wrong) > FIRST
    assert [f.row for f in faults.shown] == wrong
    with pytest.raises(UserError) as error:
        opened(folder)
    assert error.value.what.startswith(f"{len(wrong)} faults in")
    lines = [*faults.lines()[:OF_A_KIND], f"  ... and {len(wrong) - OF_A_KIND:,} more of this kind"]
    assert [line.strip() for line in error.value.found.splitlines()] == list(map(str.strip, lines))


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("2032,", "birth_year 2032, expected a time when the subject is 0 to 120 years old"),
        ("1910,", "birth_year 1910, expected a time when"),
        ("1952,2031-01-03", "after death at 2031-01-03, expected a time before"),
        ("1952,2031-01-04 07:59", "after death at 2031-01-04 07:59, expected a time before"),
        ("1911,2031-01-04", ""),  # 120 years old; of the day of death the hour is unknown
    ],
)
def test_a_stay_lies_within_the_life_of_its_subject(folder: Path, who: str, words: str) -> None:
    edit(folder, "subjects.csv", "1,male,1952,", f"1,male,{who}")
    lines = faults_of(folder).lines()
    assert len(lines) == bool(words)
    for line in lines:
        assert line.startswith("stays.csv, row 2, column start: found ")
        assert words in line


def test_a_single_fault_is_one(folder: Path) -> None:
    edit(folder, "events.csv", "101,age", "101,weight")
    with pytest.raises(UserError, match=r"^1 fault in the tables"):
        opened(folder)


def test_faults_of_many_kinds_are_all_named(folder: Path) -> None:
    edit(folder, "stays.csv", "101,1,", "101,77,")
    edit(folder, "images.csv", "films/1.jpg", "films/none.jpg")
    edit(folder, "events.csv", ",,male", ",,man")
    edit(folder, "tasks/return_30d.toml", "question", "qestion")
    named = {(file, column) for file, _, column in places(folder)}
    assert named == {
        ("stays.csv", "subject_id"),
        ("images.csv", "path"),
        ("events.csv", "value"),
        ("tasks/return_30d.toml", ""),
    }


def test_vectors_are_of_one_width_and_of_numbers(folder: Path) -> None:
    path = folder / "embeddings.parquet"
    table = pq.read_table(path)
    vectors = table["vector"].to_pylist()
    vectors[0], vectors[1] = vectors[0][:5], [*vectors[1][:7], float("nan")]
    vectors[2] = None
    pq.write_table(table.set_column(4, "vector", pa.array(vectors)), path)
    found = {(f.row, f.found) for f in faults_of(folder).shown}
    assert found == {(1, "5 numbers"), (2, "something else"), (3, "something else")}


def test_vectors_of_a_csv_file_have_spaces_between(folder: Path) -> None:
    (folder / "embeddings.parquet").unlink()
    rows = ["101,slide,2031-01-04,,1 2.5 -3e-1", "102,slide,2031-01-04,,1 2.5 x"]
    (folder / "embeddings.csv").write_text(
        "\n".join([",".join(TABLES["embeddings"].columns), *rows])
    )
    assert places(folder) == [("embeddings.csv", 3, "vector")]


WAVES = [
    (lambda t: t.slice(0, 150), "found 150 samples, expected 200 samples"),
    (lambda t: t.rename_columns(["I", "V9"]), "found column V9 of float, expected numbers in"),
    (lambda t: t.append_column("note", pa.array(["x"] * 200)), "found column note of string"),
    (lambda t: t.select([]), "found no column, expected at least one channel of I, II"),
]


@pytest.mark.parametrize(("change", "words"), WAVES)
def test_a_record_of_something_else_is_a_fault(
    folder: Path, change: Callable[[pa.Table], pa.Table], words: str
) -> None:
    path = folder / "ecg" / "2.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    (line,) = faults_of(folder).lines()
    assert line.startswith("waves.csv, row 3, column path: ")
    assert words in line


def test_records_that_are_absent_truncated_or_of_another_rate_are_faults(folder: Path) -> None:
    (folder / "ecg" / "1.parquet").unlink()
    path = folder / "ecg" / "2.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    edit(folder, "waves.csv", ",50,ecg/3", ",500,ecg/3")
    assert faults_of(folder).lines() == [
        "waves.csv, row 4, column rate: found 500, expected 50 samples a second, as of ecg",
        "waves.csv, row 2, column path: found 1.parquet, which is not there, expected the path of"
        " a file",
        "waves.csv, row 3, column path: found 2.parquet, which cannot be read, expected a whole"
        " Parquet file",
    ]


def test_a_record_may_lack_channels_and_samples(folder: Path) -> None:
    path = folder / "ecg" / "2.parquet"
    second = pq.read_table(path)["II"].to_pylist()
    pq.write_table(pa.table({"II": [None, *second[1:]]}), path)
    assert not len(faults_of(folder))


def test_times_with_a_zone_in_parquet_are_refused(folder: Path) -> None:
    path = folder / "embeddings.parquet"
    table = pq.read_table(path)
    times = table["time"].cast(pa.timestamp("us"))
    pq.write_table(table.set_column(2, "time", times), path)
    assert not len(faults_of(folder))
    zoned = times.cast(pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(2, "time", zoned), path)
    faults = faults_of(folder)
    assert len(faults) == len(table)
    assert "without a zone" in faults.lines()[0]


def test_words_of_a_document_are_never_shown(folder: Path) -> None:
    edit(folder, "documents.csv", "Seen in room 1.", "Mr Secret\ufffd")
    edit(folder, "documents.csv", "Seen in room 2.", '"Mr Secret, ill"')
    edit(folder, "documents.csv", "Seen in room 4.", "Mr Secret, ill")
    lines = faults_of(folder).lines()
    assert [line.split(":")[0] for line in lines] == [
        "documents.csv, row 4",  # the comma
        "documents.csv, row 2, column text",
    ]
    assert not any("Secret" in line for line in lines)


def test_text_that_is_not_utf8_is_named(folder: Path) -> None:
    path = folder / "codes.csv"
    path.write_bytes(path.read_bytes().replace(b"I50.0", "Schädel".encode("latin-1"), 1))
    (line,) = faults_of(folder).lines()
    assert line.startswith("codes.csv, row 2, column code")
    assert line.endswith("expected text in UTF-8")


@pytest.mark.parametrize("damage", ["subjects", "stays", "variables.toml"])
def test_what_must_be_there_is_missed(folder: Path, damage: str) -> None:
    next(folder.glob(f"{damage}*")).unlink()
    assert any(line.startswith(damage) for line in faults_of(folder).lines())


@pytest.mark.parametrize("name", ["evnets.csv", "events.parquet"])
def test_a_table_of_another_name_or_twice_is_a_fault(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / "events.csv").read_bytes())
    assert any(file in (name, "events.parquet") for file, _, _ in places(folder))


def test_a_damaged_file_is_a_fault(folder: Path) -> None:
    (folder / "embeddings.parquet").write_bytes(b"PAR1 nothing")
    packed = gzip.compress((folder / "events.csv").read_bytes())
    (folder / "events.csv").unlink()
    (folder / "events.csv.gz").write_bytes(packed[: len(packed) // 2])
    assert {"embeddings.parquet", "events.csv.gz"} <= {file for file, _, _ in places(folder)}


def test_check_ends_with_1_where_something_is_wrong(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "events.csv", "101,age", "101,weight")
    with pytest.raises(SystemExit) as ended:
        main(["check", "flat", str(folder)])
    assert ended.value.code == 1
    assert capsys.readouterr().out.endswith(f"{folder}: 1 fault\n")


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        faults_of(tmp_path / "nowhere")


def test_the_template_overwrites_nothing(folder: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        write_template(folder)
