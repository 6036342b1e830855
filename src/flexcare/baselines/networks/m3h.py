"""One trunk and attention across tasks, as in M3H (Bertsimas and Ma 2024, "M3H: multimodal
multitask machine learning for healthcare", arXiv 2404.18975)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flexcare.baselines.networks.parts import Answers, Vectors
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.network import Network, Output
from flexcare.schema import ModalityInfo, TaskInfo


class M3H(Network):
    """A vector of the patient, from it one a task, and each task looks at its own and others'.

    Vectors of all modalities, 0 where absent, go side by side through one hidden layer. Each task
    makes of it a vector of its own, and mixes with it what attention finds in the other tasks',
    in a learned proportion: what it gets from itself, and what from others.

    Chosen: modalities come through transformer layers that learn with the rest, not through
    pretrained ones; attention has one head, queries and keys but no values; the proportion is one
    number a task, a half at first. All tasks of the network take part, whichever are asked.
    """

    name = "m3h"

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        names, d = [info.name for info in self.modalities], config.hidden
        self.vectors = Vectors(config, names)
        self.trunk = nn.Linear(len(names) * d, d)
        self.own = nn.ModuleDict({info.name: nn.Linear(d, d) for info in tasks})
        self.query, self.key = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.proportion = nn.ParameterDict({i.name: nn.Parameter(torch.zeros(1)) for i in tasks})
        self.answers = Answers(config, d, tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        encoded = self.encoded(batch)
        vectors, _ = self.vectors(encoded, batch.size, self.trunk.weight)
        patient = self.trunk(vectors.flatten(1)).relu()
        own = torch.stack([layer(patient).relu() for layer in self.own.values()], 1)  # (B, T, D)
        mixed = self._mixed(own) if len(self.tasks) > 1 else own
        asked = [list(self.own).index(task) for task in batch.tasks]
        return Output(self.answers(batch.tasks, mixed[:, asked]), batch.tasks)

    def _mixed(self, own: Tensor) -> Tensor:
        """(B, T, D): each task's vector with what it finds in the others'."""
        scores = self.query(own) @ self.key(own).transpose(1, 2) / math.sqrt(own.shape[-1])
        itself = torch.eye(own.shape[1], dtype=torch.bool, device=own.device)
        others = scores.masked_fill(itself, -math.inf).softmax(-1).to(own.dtype) @ own
        share = torch.cat([self.proportion[name] for name in self.own]).sigmoid()[:, None]
        mixed: Tensor = share * own + (1 - share) * others
        return mixed
