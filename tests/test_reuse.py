"""A store that takes parts of an earlier one equals a fresh one, and the parts are really taken."""

import gzip
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import flexcare.features.films as films
import flexcare.preparation as preparing
import flexcare.storing as storing
from flexcare.errors import UserError
from flexcare.features.text import HashedNgrams
from flexcare.files import read_json, write_json
from flexcare.preparation import prepare
from flexcare.store import Store
from hospital import HEART_RATE, picture
from prepared import everything

TASKS = "in_hospital_mortality,phenotyping"


class Work:
    """Counts what is read, decoded and embedded, and keeps what is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events, self.films, self.texts, self.said = 0, 0, 0, list[str]()
        self.replace(monkeypatch, storing.Parts, "write_events", "events")
        self.replace(monkeypatch, films, "read_film", "films")
        embed = HashedNgrams.embed

        def counted(encoder: HashedNgrams, texts: list[str]) -> Iterator[Any]:
            self.texts += len(texts)
            return embed(encoder, texts)

        monkeypatch.setattr(HashedNgrams, "embed", counted)

    def replace(self, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, count: str) -> None:
        before = getattr(place, name)

        def counted(*args: Any) -> Any:
            setattr(self, count, getattr(self, count) + 1)
            return before(*args)

        monkeypatch.setattr(place, name, counted)

    def done(self) -> tuple[int, int, int]:
        """Events, films and texts since the last call."""
        out = self.events, self.films, self.texts
        self.events = self.films = self.texts = 0
        return out


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hospital = everything(5)
    stay = hospital.tables["icu/icustays"][0]
    hospital.chart(stay, 40, HEART_RATE, 10_000)  # implausible: counted as dropped
    return hospital.write(tmp_path / "h")


Prepare = Callable[..., Store]


@pytest.fixture
def prepared(folder: Path, work: Work) -> Prepare:
    """Prepares the hospital; companions=("note",) leaves out the others."""
    count = iter(range(100))

    def made(
        companions: Sequence[str] = ("cxr", "note", "ed"), tasks: str = TASKS, **given: Any
    ) -> Store:
        out = folder.parent / f"s{next(count)}"
        there: dict[str, Any] = {name: folder / name for name in companions}
        settings = {"film_side": 28} | given.pop("settings", {})
        prepare("mimic-iv", folder, out, tasks=tasks, settings=settings, say=work.said.append,
                **there, **given)  # fmt: skip
        return Store(out)

    return made


# name -> (how the earlier store is made, how the new one is, whether events are read, films are
# decoded and texts embedded)
BITS = {"settings": {"embedding_bits": 8}}
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[bool, bool, bool]]] = {
    "nothing": ({}, {}, (False, False, False)),
    "tasks added": ({}, {"tasks": f"drg,{TASKS},diagnosis"}, (False, True, True)),
    "a task removed": ({}, {"tasks": "phenotyping"}, (False, False, False)),
    "films added": (
        {"companions": ["note"]},
        {"companions": ["note", "cxr"]},
        (False, True, False),
    ),
    "notes added": ({"companions": ["cxr"]}, {"companions": ["cxr", "note"]}, (False, False, True)),
    "another clock": ({}, {"clock": "storetime"}, (True, False, False)),
    "larger films": ({}, {"settings": {"film_side": 56}}, (False, True, False)),
    "8 bits": ({}, BITS, (False, False, True)),
    "8 bits as before": (BITS, BITS, (False, False, False)),
    "8 bits, a task added": (BITS, BITS | {"tasks": f"{TASKS},drg"}, (False, False, True)),
    "another seed": ({}, {"settings": {"seed": 1}}, (False, False, False)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_store_made_of_an_earlier_one_equals_a_fresh_one(
    prepared: Prepare, work: Work, change: str
) -> None:
    before, after, expected = CHANGES[change]
    old, fresh = prepared(**before), prepared(**after)
    work.done()
    new = prepared(**after, reuse=old.path)
    assert new.manifest == fresh.manifest
    done = work.done()
    assert tuple(map(bool, done)) == expected
    texts = len(set(fresh.texts["text_hash"].to_pylist()))
    if before.get("companions") == after.get("companions") and "film_side" not in str(after):
        assert done[1] < len(fresh.films), "films that both have are not decoded again"
    if change not in ("notes added", "8 bits"):
        assert done[2] < texts, "texts that both have are not embedded again"


def rows_added(folder: Path) -> None:
    """One more heart rate in a stay that is kept."""
    path = folder / "icu" / "chartevents.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(gzip.compress("\n".join([*lines, lines[-1]]).encode()))


def table_added(folder: Path) -> None:
    """A table that might be read as well appears beside those that were."""
    (folder / "icu" / "d_items.csv").write_text("itemid,linksto\n")


def film_changed(folder: Path) -> None:
    next((folder / "cxr").rglob("*.jpg")).write_bytes(picture(200))


def film_damaged(folder: Path) -> None:
    next((folder / "cxr").rglob("*.jpg")).write_bytes(b"no film")


def film_touched(folder: Path) -> None:
    os.utime(next((folder / "cxr").rglob("*.jpg")), (0, 0))


def variables_changed(folder: Path) -> None:
    """Other limits of a variable."""
    text = (Path(preparing.__file__).with_name("sources") / "mimic_iv_variables.toml").read_text()
    changed = re.sub(r"range = \[(\d+), (\d+)\]", r"range = [\1, 3\2]", text, count=1)
    assert changed != text
    (folder.parent / "variables.toml").write_text(changed)


def encoder_changed(folder: Path) -> None:
    HashedNgrams.fingerprint = "another"


FILES: dict[str, tuple[Callable[[Path], None], tuple[int, int, bool]]] = {
    "a row added": (rows_added, (1, 0, False)),
    "a table added": (table_added, (1, 0, False)),
    "a film changed": (film_changed, (0, 1, False)),
    "a film damaged": (film_damaged, (0, 1, False)),
    "a film touched": (film_touched, (0, 1, False)),
    "variables changed": (variables_changed, (1, 0, False)),
    "encoder changed": (encoder_changed, (0, 0, True)),
}


@pytest.mark.parametrize("change", FILES)
def test_what_has_changed_is_made_anew(
    folder: Path, prepared: Prepare, work: Work, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(HashedNgrams, "fingerprint", HashedNgrams.fingerprint)
    apply, expected = FILES[change]
    old = prepared()
    apply(folder)
    variables = folder.parent / "variables.toml"
    given = {"variables": variables} if variables.exists() else {}
    fresh = prepared(**given)
    work.done()
    assert prepared(**given, reuse=old.path).manifest == fresh.manifest
    events, decoded, embedded = work.done()
    assert (events, decoded, bool(embedded)) == expected


def test_it_says_what_is_taken(prepared: Prepare, work: Work) -> None:
    old = prepared()
    work.said.clear()
    prepared(tasks=f"{TASKS},drg", reuse=old.path)
    assert "series: taken from s0" in work.said
    assert any(re.fullmatch(r"films: \d+, \d+ of them from s0", line) for line in work.said)
    assert any(re.search(r"different texts, \d+ of them from s0$", line) for line in work.said)


def test_the_earlier_store_may_go(prepared: Prepare) -> None:
    old = prepared()
    new = prepared(reuse=old.path)
    want = {path.name: path.read_bytes() for path in new.path.rglob("*.npy")}
    shutil.rmtree(old.path)
    assert {path.name: path.read_bytes() for path in new.path.rglob("*.npy")} == want


TAKEN = (
    "events/value.npy", "events/spans.npy", "films.npy", "films.parquet", "tokens.npy",
    "texts.parquet",
)  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_a_damaged_part_is_not_taken(prepared: Prepare, name: str) -> None:
    old = prepared()
    path = next(path for path in old.path.rglob("*") if str(path).endswith(name))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"{name} of store s0 is damaged"):
        prepared(reuse=old.path)


def test_nothing_is_taken_from_another_version(prepared: Prepare, work: Work) -> None:
    old = prepared()
    manifest = read_json(old.path / "manifest.json", "")
    write_json(old.path / "manifest.json", manifest | {"flexcare": "0.0.1"})
    work.done()
    prepared(reuse=old.path)
    assert all(work.done())
    assert "nothing is taken from s0: flexcare 0.0.1 wrote it" in work.said


def test_what_is_no_store_is_refused(prepared: Prepare, folder: Path) -> None:
    with pytest.raises(UserError, match="is not a store"):
        prepared(reuse=folder)
    assert [path.name for path in folder.parent.iterdir()] == ["h"]
