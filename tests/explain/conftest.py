"""The example of flat tables as a store: every kind of modality, some of which are missing."""

import pytest

from flexcare.preparation import prepare
from flexcare.sources.flat import write_template
from flexcare.store import Store
from prepared import quiet


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("explain")
    write_template(folder / "example")
    settings = {"film_side": 28}
    prepare("flat", folder / "example", folder / "store", settings=settings, say=quiet)
    return Store(folder / "store")
