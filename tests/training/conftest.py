"""A small store, and a run on it that nothing interrupted."""

import pytest
from short_runs import run

from small_store import small_store


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("data") / "store").path


@pytest.fixture(scope="session")
def whole(store, tmp_path_factory):
    """A run that nothing interrupted."""
    return run(store, tmp_path_factory.mktemp("whole") / "run")
