"""A prepared hospital of hand-made patients, and a bundle with strong random weights for it."""

from pathlib import Path

import pytest
from random_bundle import random_bundle

from flexcare.serving.predictor import Predictor, load
from flexcare.store import Store
from hospital import Hospital
from prepared import everything, prepare_there, quiet


@pytest.fixture(scope="session")
def hospital() -> Hospital:
    return everything()


@pytest.fixture(scope="session")
def raw(hospital, tmp_path_factory) -> Path:
    """The hospital's folder of tables and films."""
    return hospital.write(tmp_path_factory.mktemp("serving") / "hospital")


@pytest.fixture(scope="session")
def store_folder(raw) -> Path:
    return prepare_there(raw, raw.parent / "store").path


@pytest.fixture
def store(store_folder) -> Store:
    """Opened anew, so that a test may change what it holds."""
    return Store(store_folder)


@pytest.fixture(scope="session")
def bundle_folder(store_folder, tmp_path_factory) -> Path:
    return random_bundle(Store(store_folder), tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def predictor(bundle_folder) -> Predictor:
    return load(bundle_folder, say=quiet)
