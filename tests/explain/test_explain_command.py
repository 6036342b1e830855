"""`flexcare explain`: what it prints and writes, and what it refuses."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from bundles import EVERYTHING, bundle_of

from flexcare.cli import main
from flexcare.errors import UserError
from flexcare.explain import explain
from flexcare.serving.bundle import save_bundle
from prepared import quiet


@pytest.fixture(scope="module")
def bundle(store, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle"
    save_bundle(path, bundle_of(store).model, store.manifest["scaling"], {})
    return path


def run(*words: object) -> int:
    """Exit code of the command."""
    try:
        main(["explain", *map(str, words)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_prints_and_writes(store, bundle, tmp_path, capsys):
    line = (bundle, store.path, "--sample", EVERYTHING, "--task", "return_30d,findings")
    assert run(*line, "--deletion", "--out", tmp_path / "out") == 0
    told = capsys.readouterr().out
    for word in (EVERYTHING, "Shapley", "expert 1", "heart_rate", "deletion: area"):
        assert word in told
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"explain.json", "return_30d.svg", "findings.svg"}
    found = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert found["sample"] == EVERYTHING
    assert list(found["tasks"]) == ["return_30d", "findings"]
    for name in ("return_30d", "findings"):
        picture = (tmp_path / "out" / f"{name}.svg").read_text()
        ElementTree.fromstring(picture)
        assert "heart_rate" in picture
        assert "date>" not in picture
    assert "deletion" not in json.dumps(explain(bundle, store, EVERYTHING, say=quiet))


def test_no_word_of_a_note_leaves_without_being_asked(store, bundle, tmp_path, capsys):
    line = (bundle, store.path, "--sample", EVERYTHING, "--out")
    assert run(*line, tmp_path / "quiet") == 0
    assert run(*line, tmp_path / "told", "--show-text") == 0
    quietly, _, openly = capsys.readouterr().out.partition("explanation:")
    files = {
        name: "".join(path.read_text() for path in (tmp_path / name).iterdir())
        for name in ("quiet", "told")
    }
    assert "room" not in quietly + files["quiet"]
    assert "room" in openly
    assert files["told"].count("room") == 2  # in the table and in the picture


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sample", "return_30d/9/9"), "has no sample 'return_30d/9/9'"),
        (("--sample", EVERYTHING, "--task", "return_30"), "Did you mean 'return_30d'?"),
        (("--sample", EVERYTHING, "--answer", "returned"), "unknown answer of return_30d"),
        ((), "--sample"),
    ],
)
def test_a_mistake_is_one_clear_message(store, bundle, tmp_path, capsys, words, told):
    assert run(bundle, store.path, *words, "--out", tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert told in captured.err + captured.out
    assert "return_30d/101" not in captured.err.replace(EVERYTHING, "")  # nobody else's id
    assert list(tmp_path.iterdir()) == []


def test_an_existing_result_is_not_touched(store, bundle, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert run(bundle, store.path, "--sample", EVERYTHING, "--out", tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_words_of_another_encoder_are_not_made_up(store, monkeypatch):
    monkeypatch.setitem(store.modalities["note"].settings, "encoder", "another")
    bundle = bundle_of(store)
    assert explain(bundle, store, EVERYTHING, say=quiet)
    with pytest.raises(UserError, match="embedded by another text encoder"):
        explain(bundle, store, EVERYTHING, show_text=True, say=quiet)
