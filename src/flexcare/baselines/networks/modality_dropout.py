"""Fusion with modality dropout (ModDrop: Neverova et al. 2016, "ModDrop: adaptive multi-modal
gesture recognition", arXiv 1501.00102)."""

from collections.abc import Sequence

import torch
from torch import nn

from flexcare.baselines.networks.parts import Answers, Vectors
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.network import Network, Output
from flexcare.schema import ModalityInfo, TaskInfo

DROPPED = 0.3  # share of the modalities of a row that a training step leaves out


class ModalityDropout(Network):
    """Vectors of all modalities side by side, 0 where absent, through a hidden layer; linear heads.

    In training each modality of each row is left out with probability `DROPPED`, by itself.
    Chosen: that probability; a row that would lose everything keeps everything; one hidden layer;
    all is trained at once, while the paper trains each modality alone first.
    """

    name = "modality_dropout"

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        names = [info.name for info in self.modalities]
        self.vectors = Vectors(config, names)
        self.fusion = nn.Linear(len(names) * config.hidden, config.hidden)
        self.answers = Answers(config, config.hidden, tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        encoded = self.encoded(batch)
        vectors, there = self.vectors(encoded, batch.size, self.fusion.weight)
        if self.training:
            kept = there & (torch.rand(there.shape, device=there.device) >= DROPPED)
            kept = torch.where(kept.any(1, keepdim=True), kept, there)
            vectors = torch.where(kept[..., None], vectors, 0)
        patient = self.fusion(vectors.flatten(1)).relu()
        return Output(self.answers(batch.tasks, patient), batch.tasks)
