"""What tests of every folder may ask for: stores of hand-made hospitals, and the open data."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from flexcare.store import Store
from hospital import Hospital
from prepared import Make, prepare_there

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def open_data() -> Path:
    """The folder of open clinical data beside the repository, or FLEXCARE_OPEN_DATA."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FLEXCARE_OPEN_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no open data at {folder} (set FLEXCARE_OPEN_DATA)")
    return folder


@pytest.fixture(scope="session")
def spec() -> Path:
    """The folder of the specification beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "spec"
    if not folder.is_dir():
        pytest.skip(f"no specification at {folder}")
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a hospital and prepares it; every call gives a new store."""
    count = iter(range(1000))

    def made(
        hospital: Hospital, preset: str = "corrected", tasks: str | None = None, **settings: Any
    ) -> Store:
        number = next(count)
        folder = hospital.write(tmp_path / f"hospital{number}")
        return prepare_there(folder, tmp_path / f"store{number}", preset, tasks, **settings)

    return made
