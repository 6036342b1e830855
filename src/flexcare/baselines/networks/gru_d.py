"""GRU with decay (Che et al. 2018, "Recurrent neural networks for multivariate time series with
missing values", arXiv 1606.01865)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flexcare.baselines.networks.parts import Answers, Vectors
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.features.variables import variable_set
from flexcare.models.encoders import ENCODERS, Encoder
from flexcare.models.network import Network, Output
from flexcare.schema import ModalityInfo, TaskInfo

DAY = 24  # bins


class Decaying(Encoder):
    """(n, L, columns), (n, L) -> the state after each bin (n, L, D).

    Values, masks and time since the last value come from the columns of the store: value columns,
    then a mask a variable. Where a variable has no value in a bin, its value columns carry the
    last one. Time since counts bins of one hour from the last bin with a value before this one,
    or from the first that is read; it is given in days.

    Chosen: what values fade to is 0, which for numbers is the centre of the training split (the
    paper's is the mean) and for categories is none of them. Before its first value a variable
    fades from what the loader carries then: a value of the day before admission, or the normal.
    """

    ordered = True

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        super().__init__((None, info.width), info.width, config)
        tables = info.settings.get("variables")
        if tables:
            owners = [n for n, _ in variable_set(tables, info.name).value_columns()]
        else:  # an imported network's columns do not say which are masks
            owners = list(range(info.width))
        self.masked = bool(tables)
        self.register_buffer("owner", torch.tensor(owners), persistent=False)
        variables, d = max(owners) + 1, config.hidden
        self.project = nn.Linear(len(owners) + variables, 3 * d)
        self.fade_value = nn.Parameter(torch.rand(2, len(owners)))
        nn.init.zeros_(self.fade_value.data[1])  # slopes, then offsets
        self.fade_state = nn.Linear(variables, d)
        self.gates, self.candidate = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, d, bias=False)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        values = torch.where(valid[..., None], values, 0).to(self.fade_value.dtype)
        owner = self.get_buffer("owner")
        values, seen = values[..., : len(owner)], values[..., len(owner) :] > 0
        if not self.masked:
            seen = valid[..., None].expand_as(values)
        since = days_since(seen).to(values.dtype)
        slope, offset = self.fade_value
        kept = (-(slope * since[..., owner] + offset).relu()).exp()
        kept = torch.where(seen[..., owner], values, kept * values)
        inputs = self.project(torch.cat([kept, seen.to(kept.dtype)], -1))
        fading = (-self.fade_state(since).relu()).exp()
        state, states = torch.zeros_like(fading[:, 0]), []
        for bin in range(valid.shape[1]):
            new = self._step(inputs[:, bin], fading[:, bin] * state)
            state = torch.where(valid[:, bin, None], new, state)
            states.append(state)
        return torch.stack(states, 1), valid

    def _step(self, given: Tensor, state: Tensor) -> Tensor:
        """(n, 3D), (n, D) -> (n, D)."""
        width = state.shape[1]
        update, reset = (given[:, : 2 * width] + self.gates(state)).sigmoid().chunk(2, 1)
        new = (given[:, 2 * width :] + self.candidate(reset * state)).tanh()
        out: Tensor = state + update * (new - state)
        return out


def days_since(seen: Tensor) -> Tensor:
    """(n, L, V) bool -> (n, L, V): time from the last bin seen before each, or from the first."""
    number = torch.arange(seen.shape[1], device=seen.device)[:, None]
    last = torch.where(seen, number, 0).cummax(1).values
    before = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], 1)
    return (number - before) / DAY


class GruD(Network):
    """The last state of each series beside a vector of each other modality, and linear heads.

    The paper has one series and nothing else. Chosen: every time series has a unit of its own; the
    other modalities come through their own transformer layers, absent ones are 0, and a flag says
    which are there; the heads are linear on all of it.
    """

    name = "gru_d"
    kinds = ENCODERS | {"time_series": Decaying}

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        names = [info.name for info in self.modalities]
        series = [info.name for info in self.modalities if info.kind == "time_series"]
        self.vectors = Vectors(config, names, series)
        self.answers = Answers(config, len(names) * (config.hidden + 1), tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        like = next(self.answers.parameters())
        vectors, there = self.vectors(self.encoded(batch), batch.size, like)
        known = torch.cat([vectors.flatten(1), there.to(vectors.dtype)], 1)
        return Output(self.answers(batch.tasks, known), batch.tasks)
