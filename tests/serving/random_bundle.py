"""A bundle with strong random weights, so that everything it is given shows in its answers."""

from pathlib import Path

import torch

from flexcare.config import ModelConfig
from flexcare.models.flexcare import FlexCare
from flexcare.serving.bundle import save_bundle
from flexcare.store import Store

SMALL = {"hidden": 16, "layers": 2, "feedforward": 2, "patch": 14, "experts": 4}


def random_bundle(
    store: Store, path: Path, modalities=None, tasks=None, seed=0, network=FlexCare, **settings
) -> Path:
    """A bundle for all of a store's modalities and tasks, or for these."""
    torch.manual_seed(seed)
    infos = store.modalities.values() if modalities is None else modalities
    asked = store.tasks.values() if tasks is None else tasks
    model = network(ModelConfig(**(SMALL | settings)), list(infos), list(asked))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    save_bundle(path, model, store.manifest["scaling"], {})
    return path
