"""Bundles with strong random weights, and a network whose every answer is known by hand."""

import torch

from flexcare.baselines.networks import NETWORKS
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.network import Network, Output
from flexcare.schema import TaskInfo
from flexcare.serving.bundle import Bundle
from flexcare.store import Store

SMALL = {"hidden": 16, "layers": 2, "feedforward": 2, "patch": 14, "experts": 4}
TASKS = (
    TaskInfo("return_30d", "?", "binary", ("return",), "average_precision"),
    TaskInfo("days", "?", "multiclass", ("0", "1", "2"), "quadratic_kappa", 0.5, hourly=True),
    TaskInfo("findings", "?", "multilabel", ("a", "b"), "macro_average_precision", 0.2),
)
NAMES = [task.name for task in TASKS]
EVERYTHING, SOME = "return_30d/101/48", "return_30d/112/48"  # known of them, see conftest.py


class Planted(Network):
    """2 h + h a - 3 f: h the last heart rate and a the age, both as the model takes them, f the
    mean of the film's first patch; each 0 where it is not known. Whatever else is known is ignored.
    """

    name = "planted"

    def forward(self, batch: Batch) -> Output:
        h = self.read(batch, "vitals", lambda values: values[:, -1, 0])
        a = self.read(batch, "patient", lambda values: values[:, 0, 0])
        f = self.read(batch, "film", lambda values: values[:, :14, :14].mean((1, 2)))
        logits = (2 * h + h * a - 3 * f)[:, None]
        return Output(dict.fromkeys(batch.tasks, logits), batch.tasks)

    def read(self, batch, name, number):
        found = batch.inputs.get(name)
        out = next(self.parameters()).new_zeros(batch.size)
        return (
            out if found is None else out.index_copy(0, found.rows, number(found.values)[found.of])
        )


class Deaf(NETWORKS["flexcare"]):
    """The network, which is never told of the slide."""

    name = "deaf"

    def forward(self, batch: Batch) -> Output:
        heard = {name: tokens for name, tokens in batch.inputs.items() if name != "slide"}
        return super().forward(Batch(batch.size, heard, batch.tasks))


class Pair(Network):
    """Two networks, whose mean probability is the answer."""

    name = "pair"

    def __init__(self, config, modalities, tasks):
        super().__init__(config, modalities, tasks)
        members = [NETWORKS[name](config, modalities, tasks) for name in ("flexcare", "gru_d")]
        self.members = torch.nn.ModuleList(members)

    def forward(self, batch: Batch) -> Output:
        outputs = [member(batch).logits for member in self.members]
        means = {t: sum(own[t].sigmoid() for own in outputs) / 2 for t in batch.tasks}
        return Output({task: mean.logit() for task, mean in means.items()}, batch.tasks)


def bundle_of(store: Store, network=NETWORKS["flexcare"], **settings) -> Bundle:
    """A bundle for all modalities of a store."""
    torch.manual_seed(0)
    model = network(ModelConfig(**(SMALL | settings)), list(store.modalities.values()), TASKS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    scaling = store.manifest["scaling"]
    return Bundle(model.eval(), model.modalities, model.tasks, scaling, {})
