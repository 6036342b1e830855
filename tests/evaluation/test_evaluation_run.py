"""A network judged on all tasks at once: the answers and the routing of each task alone."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from flexcare.config import ModelConfig
from flexcare.evaluation.run import network_predictions
from flexcare.models.flexcare import FlexCare
from flexcare.serving.bundle import Bundle
from prepared import everything, prepare_there


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    return prepare_there(everything(6).write(folder / "h"), folder / "s")


def test_routing_and_answers_are_those_of_each_task_alone(store):
    torch.manual_seed(0)
    config = ModelConfig(hidden=16, layers=1, patch=14, experts=4)
    model = FlexCare(config, list(store.modalities.values()), list(store.tasks.values())).eval()
    bundle = Bundle(model, model.modalities, model.tasks, store.manifest["scaling"], {})
    table, routing = network_predictions(bundle, store, "train")
    parts = [
        network_predictions(replace(bundle, tasks=(info,)), store, "train") for info in model.tasks
    ]
    alone = pa.concat_tables([part for part, _ in parts])
    assert table["sample_id"] == alone["sample_id"]
    found, expected = (np.concatenate(t["probabilities"].to_pylist()) for t in (table, alone))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for info, (_, one) in zip(model.tasks, parts, strict=True):
        usage = np.array(routing["usage"][info.name])
        assert usage.any() == bool(len(store.rows(info.name, "train")))
        np.testing.assert_allclose(usage, one["usage"][info.name], atol=1e-6)
        # Where a combination is present, the experts' weights add up to 1.
        assert np.isin(usage.sum(0).round(5), [0, 1]).all()
