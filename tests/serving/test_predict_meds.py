"""A bundle of a MEDS dataset predicts on another one, and in the columns of meds-evaluation."""

from pathlib import Path

import meds
import pyarrow.parquet as pq
import pytest

from flexcare.cli import main
from flexcare.evaluation.predictions import read_predictions
from meds_data import Dataset, ward

BINARY = ("in_hospital_mortality", "readmission")
EXTRA = ("predicted_boolean_value", "predicted_boolean_probability")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose codes no variables file fits, its store and a run on it."""
    place = tmp_path_factory.mktemp("meds")
    renamed(ward(30)).write(place / "d")
    tasks = ",".join((*BINARY, "phenotyping"))
    main(["prepare", "meds", str(place / "d"), "--out", str(place / "s"), "--tasks", tasks])
    settings = place / "c.toml"
    settings.write_text("[model]\nhidden = 8\nlayers = 1\n")
    arguments = ["--epochs", "1", "--config", str(settings)]
    main(["train", str(place / "s"), "--out", str(place / "r"), *arguments])
    return place


def renamed(data: Dataset) -> Dataset:
    for row in data.rows:
        row["code"] = row["code"].replace("LAB//", "MINE//")
    return data


def test_the_files_are_those_of_the_schema(place: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "p.parquet", tmp_path / "m"
    main(["predict", str(place / "r/bundle"), str(place / "s"), "--out", str(out),
          "--meds", str(folder)])  # fmt: skip
    assert sorted(path.stem for path in folder.iterdir()) == sorted(BINARY)
    for path in folder.iterdir():
        table = pq.read_table(path)
        assert table.column_names[-2:] == list(EXTRA)
        meds.LabelSchema.validate(table.drop_columns(list(EXTRA)))
        assert not any(column.null_count for column in table.columns)
        whole = [r for r in read_predictions(out).to_pylist() if r["task"] == path.stem]
        assert table.to_pylist() == [{n: r[n] for n in table.column_names} for r in whole]


def test_raw_tables_are_prepared_with_the_variables_of_the_bundle(
    place: Path, tmp_path: Path
) -> None:
    """Those that were most frequent in training, whatever is frequent now."""
    data = renamed(ward(6))
    for subject in range(1, 7):
        for hour in range(40):
            data.add(subject, 30.0 * subject + hour, "OTHER//a//b", 1.0)
    out, tables = tmp_path / "p.parquet", []
    for name, rows in (("more", data), ("same", renamed(ward(6)))):
        folder = rows.write(tmp_path / name)
        main(["predict", str(place / "r/bundle"), str(folder), "--source", "meds",
              "--out", str(out)])  # fmt: skip
        tables.append(read_predictions(out))
        out.unlink()
    assert len(tables[0]) > 6
    assert tables[0].equals(tables[1])


def test_a_folder_that_is_there_is_not_written_over(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["predict", str(place / "r/bundle"), str(place / "s"), "--out",
              str(tmp_path / "p.parquet"), "--meds", str(tmp_path)])  # fmt: skip
    assert "exists already" in capsys.readouterr().err
