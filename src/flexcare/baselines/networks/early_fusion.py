"""Plain early fusion: one transformer over all tokens of all modalities."""

from collections.abc import Sequence

import torch
from torch import nn

from flexcare.baselines.networks.parts import Answers
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.dense import all_rows
from flexcare.models.encoders import learned
from flexcare.models.layers import Layer, hiding
from flexcare.models.network import Network, Output
from flexcare.schema import ModalityInfo, TaskInfo


class EarlyFusion(Network):
    """[class token | H_1 | ... | H_M], where every token sees every token that is there.

    A learned vector is added to the tokens of each modality. All tasks share the class token's
    output, on which each has a linear head. No paper's in particular: the usual way, with the
    encoders and layers of FlexCare.
    """

    name = "early_fusion"

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        self.first = learned(1, config.hidden)
        self.marks = nn.ParameterDict({m.name: learned(config.hidden) for m in self.modalities})
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.answers = Answers(config, config.hidden, tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        parts = [self.first.expand(batch.size, -1, -1)]
        known = [torch.ones(batch.size, 1, dtype=torch.bool, device=self.first.device)]
        for name, groups in self.encoded(batch).items():
            values, valid = all_rows(groups, batch.size)
            parts.append(values + self.marks[name])
            known.append(valid)
        x, bias = torch.cat(parts, 1), hiding(torch.cat(known, 1))[:, None, None]
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = layer.finish(x, layer.attend(*layer.split(x), bias))
        return Output(self.answers(batch.tasks, x[:, 0]), batch.tasks)
