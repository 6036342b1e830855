"""A prepared hospital of hand-made patients, and a bundle with strong random weights for it."""

from pathlib import Path

import pytest
import torch
from hospital import Hospital
from prepared import everything, prepare_there

from flexcare.config import ModelConfig
from flexcare.models.flexcare import FlexCare
from flexcare.serving.bundle import save_bundle
from flexcare.serving.predictor import Predictor, load
from flexcare.store import Store

SMALL = {"hidden": 16, "layers": 2, "feedforward": 2, "patch": 14, "experts": 4}


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


def random_bundle(store: Store, path: Path, modalities=None, tasks=None) -> Path:
    """A bundle for some modalities and tasks of a store, by name or as they should be."""
    torch.manual_seed(0)
    infos = store.modalities.values() if modalities is None else modalities
    asked = store.tasks.values() if tasks is None else tasks
    model = FlexCare(ModelConfig(**SMALL), list(infos), list(asked))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    save_bundle(path, model, store.manifest["scaling"], {})
    return path


@pytest.fixture(scope="session")
def bundle_folder(store_folder, tmp_path_factory) -> Path:
    return random_bundle(Store(store_folder), tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def said() -> list[str]:
    """What the predictor said."""
    return []


@pytest.fixture
def predictor(bundle_folder, said) -> Predictor:
    return load(bundle_folder, say=said.append)
