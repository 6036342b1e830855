"""The Challenge 2019: an hour's row is known when the hour ends, and is asked about then."""

from collections import Counter
from datetime import datetime, timedelta
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from challenges import (
    events_of,
    hours2019,
    pack,
    ready,
    record2019,
    some2019,
    truncate,
    with_xz,
)
from flexcare.errors import UserError
from flexcare.features.variables import read_variables
from flexcare.sources.physionet2019 import KNOWN, MEASURED
from prepared import answers
from test_leakage import same_inputs

NAMES = ("physionet2019", "physionet2019_iculos")
WITHOUT, WITH = (
    read_variables(Path(str(files("flexcare.sources") / f"{name}_variables.toml")))
    for name in NAMES
)
START = datetime(2000, 1, 1)


def one(folder: Path, *hours: dict[str, float], **known: float) -> Path:
    pack(folder / "training_setA.tar.xz", {"p000007.psv": record2019(list(hours), 3, **known)})
    return folder


@pytest.mark.parametrize("ending", [".tar.xz", ".tar.gz", ".zip", ""])
def test_archives_and_folders_give_the_same(tmp_path: Path, ending: str) -> None:
    store = ready("physionet2019", some2019(tmp_path / "h", ending), tmp_path / "s")
    other = ready("physionet2019", some2019(tmp_path / "h0"), tmp_path / "s0")
    assert store.manifest["content"] == other.manifest["content"]


def test_a_folder_of_psv_files_is_read_as_it_is(tmp_path: Path) -> None:
    folder = some2019(tmp_path / "h", "") / "training_setA"
    assert len(ready("physionet2019", folder, tmp_path / "s").samples) == sum(range(8, 18))


def test_every_hour_is_asked_when_it_ends(tmp_path: Path) -> None:
    store = ready("physionet2019", some2019(tmp_path / "h"), tmp_path / "s")
    found = answers(store, "p2019_sepsis")
    want = {
        f"{n}/{hour + 1}": row["SepsisLabel"]
        for n in range(1, 11)
        for hour, row in enumerate(hours2019(n, 7 + n))
    }
    assert found == want
    assert 0 < sum(want.values()) < len(want)
    assert store.tasks["p2019_sepsis"].hourly
    times = {r["hours"]: r["prediction_time"] for r in store.samples.to_pylist()}
    assert times[3.0] == START + timedelta(hours=3)


def test_a_row_is_of_its_hour_and_visible_at_its_end(tmp_path: Path) -> None:
    folder = one(tmp_path, {"HR": 70}, {"Lactate": 2.5}, {"HR": 71, "FiO2": 40}, Unit1=1, Unit2=0)
    known = {("age", 61.5), ("sex", 0), ("unit", 0), ("hours_in_hospital", -3.5)}
    static = {(7, name, 0, 0, value) for name, value in known}
    charted = {(7, "heart_rate", 0, 3600, 70), (7, "lactate", 3600, 7200, 2.5),
               (7, "heart_rate", 7200, 10800, 71),
               (7, "fraction_inspired_oxygen", 7200, 10800, np.float32(0.4))}  # fmt: skip
    assert set(events_of("physionet2019", folder, WITHOUT)) == static | charted
    hours = {(7, "hour_in_icu", 3600 * k, 3600 * (k + 1), k + 3) for k in range(3)}
    assert set(events_of("physionet2019", folder, WITH)) == static | charted | hours


def test_the_hour_in_the_icu_is_an_input_only_with_its_variables_file(tmp_path: Path) -> None:
    assert "hour_in_icu" not in WITHOUT.names
    own = WITH.to_dict()
    assert own.pop("hour_in_icu")["items"] == ["ICULOS"]
    assert own == WITHOUT.to_dict()
    items = {item for one in WITHOUT.variables.values() for item in one.items}
    assert items == {*MEASURED, *KNOWN, "Unit"} - {"Unit1", "Unit2"}
    folder = some2019(tmp_path / "h")
    for name, there in zip(NAMES, (False, True), strict=True):
        store = ready("physionet2019", folder, tmp_path / name, variables=name)
        assert ("hour_in_icu" in str(store.manifest["modalities"])) == there


def test_nothing_after_the_prediction_time_is_used(tmp_path: Path) -> None:
    """Rows from a random hour on altered, removed or added, their labels with them."""
    folder, draw = some2019(tmp_path / "h"), np.random.default_rng(0)
    damaged, moments = {}, {}
    for number in range(1, 11):
        length, kept = 7 + number, int(draw.integers(1, 7 + number))
        moments[number] = START + timedelta(hours=kept)
        rows = (
            hours2019(number, length)[:kept]
            + hours2019(number, 20, seed=1)[kept : int(draw.integers(kept, 21))]
        )
        for row in rows[kept:]:
            row["SepsisLabel"] = int(draw.integers(0, 2))
        damaged[f"p{number:06}.psv"] = record2019(rows, number)
    pack(tmp_path / "h1" / "training_setA.tar.xz", damaged)
    for name in NAMES:
        store, other = (
            ready("physionet2019", tmp_path / h, tmp_path / f"{h}{name}", variables=name)
            for h in ("h", "h1")
        )
        assert folder.is_dir()
        for causal in (False, True):
            seen, different = same_inputs(store, other, moments, causal)
            assert +different["p2019_sepsis"] == Counter()
            assert sum(seen["p2019_sepsis"].values()) >= 10
        _, different = same_inputs(store, other, dict.fromkeys(moments, datetime.max))
        assert sum(different["p2019_sepsis"].values()) > 0  # the comparison would notice


def test_another_hospital_is_held_out(tmp_path: Path) -> None:
    folder = some2019(tmp_path / "h")
    pack(folder / "training_setB.tar.xz", {"p100001.psv": record2019(hours2019(1, 9))})
    store = ready("physionet2019", folder, tmp_path / "s")
    split = dict(zip(*(store.samples[n].to_pylist() for n in ("subject_id", "split")), strict=True))
    assert {subject for subject, name in split.items() if name == "held_out"} == {100001}


def test_odd_values_are_counted(tmp_path: Path) -> None:
    folder = one(tmp_path / "h", {"HR": 900}, {"HR": 70, "SepsisLabel": "NaN"}, Age=-4)
    path = folder / "training_setA.tar.xz"
    text = record2019([{"HR": 900}, {"HR": 70, "SepsisLabel": "NaN"}], Age=-4)
    nothing = record2019([{"HR": 60}], **dict.fromkeys(KNOWN, "NaN"))
    pack(path, {"p000007.psv": text + "1|2\n", "p000008.psv": nothing,
                "p000009.psv": record2019([])})  # fmt: skip
    store = ready("physionet2019", folder, tmp_path / "s")
    assert answers(store, "p2019_sepsis") == {"7/1": 0, "8/1": 0}  # an unknown label is left out
    assert store.manifest["dropped"] == {
        "training_setA.tar.xz: lines with another number of fields": 1,
        "impossible ages, taken as missing": 1,
        "records without descriptors, kept": 2,
        "events outside the plausible range": 1,
    }


def test_a_gap_in_the_hours_stays_a_gap(tmp_path: Path) -> None:
    folder = one(tmp_path / "h", {"HR": 70}, {"HR": 71, "ICULOS": 6})
    assert answers(ready("physionet2019", folder, tmp_path / "s"), "p2019_sepsis") == {
        "7/1": 0, "7/4": 0,
    }  # fmt: skip


BAD = {
    "truncated": ("checksum", lambda path: truncate(path)),
    "cut in the middle": ("checksum", lambda path: truncate(path, 500)),
    "no archive": ("checksum", lambda path: path.write_text("nothing")),
    "a tar under another name": ("checksum", lambda path: path.write_bytes(with_xz(path.parent))),
    "no record": ("no record", lambda path: pack(path, {"readme.txt": "hello"})),
    "a text for a number": ("cannot be read, the first in p2.psv, column HR", lambda path: pack(
        path, {"p1.psv": record2019([{}]), "p2.psv": record2019([{}, {"HR": "fast"}])})),
    "another header": ("other columns", lambda path: pack(
        path, {"p1.psv": record2019([{}]), "p2.psv": record2019([{}]).replace("HR", "Pulse")})),
    "a column renamed": ("no column HR", lambda path: pack(
        path, {"p1.psv": record2019([{}]).replace("HR|", "Pulse|")})),
    "hours that fall": ("count the hours", lambda path: pack(
        path, {"p1.psv": record2019([{"ICULOS": 5}, {"ICULOS": 4}])})),
    "an hour twice": ("count the hours", lambda path: pack(
        path, {"p1.psv": record2019([{"ICULOS": 5}, {"ICULOS": 5}])})),
    "no hour": ("count the hours", lambda path: pack(
        path, {"p1.psv": record2019([{"ICULOS": "NaN"}])})),
    "a record twice": ("not unique", lambda path: pack(
        path, {"p1.psv": record2019([{}]), "p01.psv": record2019([{}])})),
    "in both sets": ("both sets", lambda path: pack(
        path.with_name("training_setB.tar.xz"), {"p000001.psv": record2019([{}])})),
    "a label that is none": ("no class", lambda path: pack(
        path, {"p1.psv": record2019([{"SepsisLabel": 3}])})),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    word, damage = BAD[name]
    damage(some2019(tmp_path / "h") / "training_setA.tar.xz")
    with pytest.raises(UserError, match=word):
        ready("physionet2019", tmp_path / "h", tmp_path / "s")
    assert [path.name for path in tmp_path.iterdir()] == ["h"]


def test_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the Challenge 2019"):
        ready("physionet2019", tmp_path, tmp_path / "s")


def test_nobody_is_said_to_have_lived(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not say who died"):
        ready("physionet2019", some2019(tmp_path / "h"), tmp_path / "s", "decompensation")


def test_the_real_set(open_data: Path, tmp_path: Path) -> None:
    """The published counts: 20,336 stays, 790,215 hours, 1,790 septic stays."""
    folder = open_data / "physionet2019"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    store = ready("physionet2019", folder, tmp_path / "s")
    samples = store.samples
    assert len(samples) == len(samples["sample_id"].unique()) == 790_215
    assert len(samples["stay_id"].unique()) == 20_336
    label = samples["label"].combine_chunks().flatten().to_numpy()
    stay = samples["stay_id"].to_numpy()
    assert label.sum() == 17_136
    assert len(np.unique(stay[label == 1])) == 1_790
    assert set(store.manifest["dropped"]) == {"events outside the plausible range"}
