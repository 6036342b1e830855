"""Preparation that is interrupted, at any step, leaves nothing behind but what is embedded, and the
next one goes on from there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flexcare.features.films as films
import flexcare.files as files
import flexcare.preparation as preparing
import flexcare.storing as storing
from flexcare.features.text import HashedNgrams
from prepared import everything, prepare_there


@pytest.mark.parametrize("step", ["read_film", "text_hash", "fit_events", "sha256"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, kind: type[BaseException]
) -> None:
    folder = everything(2).write(tmp_path / "h")

    def stop(*args: Any) -> None:
        raise kind

    place = next(module for module in (films, storing, preparing, files) if hasattr(module, step))
    monkeypatch.setattr(place, step, stop)
    with pytest.raises(kind):
        prepare_there(folder, folder.parent / "out")
    embedded = step in ("fit_events", "sha256")
    left = {"h", ".out.embeddings"} if embedded else {"h"}
    assert {p.name for p in folder.parent.iterdir()} == left


def test_an_interruption_in_the_midst_of_a_stream_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = everything(2).write(tmp_path / "h")
    calls = iter(range(1000))

    def stop(self: HashedNgrams, texts: list[str]) -> Any:
        for _ in texts:
            if next(calls) == 1:
                raise KeyboardInterrupt
            yield np.zeros((1, 256), np.float16)

    monkeypatch.setattr(HashedNgrams, "embed", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare_there(folder, folder.parent / "out")
    assert [p.name for p in folder.parent.iterdir()] == ["h"]
