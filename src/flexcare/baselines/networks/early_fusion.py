"""Plain early fusion: one transformer over all tokens of all modalities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flexcare.baselines.networks.parts import Answers
from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.models.dense import all_rows
from flexcare.models.encoders import learned
from flexcare.models.groups import by_length
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
        patient = self._read(torch.cat(parts, 1), torch.cat(known, 1))
        return Output(self.answers(batch.tasks, patient), batch.tasks)

    def _read(self, values: Tensor, valid: Tensor) -> Tensor:
        """(B, L, D), (B, L) -> (B, D), the class token's output."""
        # Their order means nothing, so padding can go to the end, and rows of like length together.
        order = (~valid).int().argsort(dim=1, stable=True)
        values = values.take_along_dim(order[..., None], 1)
        rows = torch.arange(len(values), device=values.device)
        out = torch.zeros_like(values[:, 0])
        for group in by_length(Tokens(values, valid.take_along_dim(order, 1), rows)):
            x, bias = group.values, hiding(group.valid)[:, None, None]
            for layer in self.layers:
                assert isinstance(layer, Layer)
                x = layer.finish(x, layer.attend(*layer.split(x), bias))
            out[group.rows] = x[:, 0].to(out.dtype)
        return out
