"""LSTM fusion as in MedFuse (Hayat et al. 2022, "MedFuse: multi-modal fusion with clinical
time-series data and chest X-ray images", arXiv 2207.07027)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flexcare.baselines.networks.parts import Answers, Vectors
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.encoders import ENCODERS, Encoder
from flexcare.models.network import Network, Output
from flexcare.schema import ModalityInfo, TaskInfo


class Stacked(Encoder):
    """(n, L, columns), (n, L) -> states of a two-layer LSTM over the bins (n, L, D), and valid."""

    ordered = True

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        super().__init__((None, info.width), info.width, config)
        width = config.hidden
        self.lstm = nn.LSTM(width, width, 2, batch_first=True, dropout=config.dropout)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        states: Tensor = self.lstm(self.projected(values, valid))[0]
        return states, valid


class MedFuse(Network):
    """An LSTM reads one vector a modality, as many as a patient has; linear heads on its state.

    The paper has a series and a film, in this order, and a sequence of one where there is no film.
    Chosen for more: time series first, then the others by name. Films, texts and all else come
    through transformer layers of their own instead of a convolutional network. The paper trains
    each encoder alone first; here all is trained at once, as every network compared is. Of a
    patient with nothing known the state is 0.
    """

    name = "medfuse"
    kinds = ENCODERS | {"time_series": Stacked}

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        series = [info.name for info in self.modalities if info.kind == "time_series"]
        others = [info.name for info in self.modalities if info.kind != "time_series"]
        self.vectors = Vectors(config, series + others, series)
        self.fusion = nn.LSTMCell(config.hidden, config.hidden)
        self.answers = Answers(config, config.hidden, tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        like = self.fusion.weight_hh
        vectors, there = self.vectors(self.encoded(batch), batch.size, like)
        state = memory = like.new_zeros(batch.size, self.config.hidden)
        for column in range(there.shape[1]):
            new, kept = self.fusion(vectors[:, column], (state, memory))
            read = there[:, column, None]
            state, memory = torch.where(read, new, state), torch.where(read, kept, memory)
        return Output(self.answers(batch.tasks, state), batch.tasks)
