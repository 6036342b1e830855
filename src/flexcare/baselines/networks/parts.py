"""What the compared networks share: vectors of modalities, heads of tasks, perceptrons."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.models.encoders import learned
from flexcare.models.layers import Layer, hiding
from flexcare.schema import TaskInfo


class Vectors(nn.Module):
    """Each modality of each row as one vector (B, M, D), and which there are (B, M).

    Tokens go through transformer layers of their modality with a class token, whose output it is.

    Args:
        names: of the M modalities, in order.
        recurrent: those whose last known token is the vector, for it has read the others.
    """

    def __init__(
        self, config: ModelConfig, names: Sequence[str], recurrent: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.names, self.width = tuple(names), config.hidden
        attended = [name for name in names if name not in recurrent]
        self.tokens = nn.ParameterDict({name: learned(config.hidden) for name in attended})
        self.layers = nn.ModuleDict(
            {name: nn.ModuleList(Layer(config) for _ in range(config.layers)) for name in attended}
        )

    def forward(
        self, encoded: dict[str, list[Tokens]], size: int, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors, 0 where absent, and presence.

        Args:
            encoded: by modality, groups of tokens (n, L, D).
            size: B.
            like: a tensor of the device and precision wanted.
        """
        out = like.new_zeros(size, len(self.names), self.width)
        there = torch.zeros(out.shape[:2], dtype=torch.bool, device=like.device)
        for column, name in enumerate(self.names):
            read = self._attended if name in self.layers else self._last
            for group in encoded.get(name, ()):
                out[group.rows, column] = read(name, group).to(out.dtype)
                there[group.rows, column] = True
        return out, there

    def _attended(self, name: str, group: Tokens) -> Tensor:
        """(m, D)."""
        if group.until is not None:  # rows know different parts of one sequence
            group = Tokens(group.values[group.of], group.known(), group.rows)
        first = self.tokens[name].expand(len(group.values), 1, -1)
        x = torch.cat([first.to(group.values.dtype), group.values], 1)
        bias = hiding(functional.pad(group.valid, (1, 0), value=True))[:, None, None]
        layers = self.layers[name]
        assert isinstance(layers, Iterable)
        for layer in layers:
            x = layer.finish(x, layer.attend(*layer.split(x), bias))
        return x[group.of, 0]

    def _last(self, name: str, group: Tokens) -> Tensor:
        """(m, D)."""
        known = group.known()
        number = torch.arange(known.shape[1], device=known.device)
        return group.values[group.of, torch.where(known, number, 0).amax(1)]


class Answers(nn.Module):
    """One linear head a task."""

    def __init__(self, config: ModelConfig, width: int, tasks: Iterable[TaskInfo]) -> None:
        super().__init__()
        self.drop = nn.Dropout(config.dropout)
        self.linear = nn.ModuleDict({info.name: nn.Linear(width, info.outputs) for info in tasks})

    def forward(self, tasks: tuple[str, ...], x: Tensor) -> dict[str, Tensor]:
        """Logits (B, outputs) by task.

        Args:
            tasks: those asked.
            x: (B, width), or (B, T, width) where each task asked has its own.
        """
        own = self.drop(x[:, None].expand(-1, len(tasks), -1) if x.ndim == 2 else x)
        # In bfloat16 a probability has three digits, and patients would tie.
        with torch.autocast(x.device.type, enabled=False):
            own = own.to(next(self.parameters()).dtype)
            return {task: self.linear[task](own[:, index]) for index, task in enumerate(tasks)}


class Perceptrons(nn.Module):
    """E two-layer perceptrons D -> D -> D side by side."""

    def __init__(self, config: ModelConfig, count: int) -> None:
        super().__init__()
        d = config.hidden
        self.weights = nn.Parameter(torch.empty(2, count, d, d).uniform_(-(d**-0.5), d**-0.5))
        self.biases = nn.Parameter(torch.zeros(2, count, d))

    def forward(self, x: Tensor) -> Tensor:
        """(B, E or 1, D) -> (B, E, D), each expert's answer."""
        x = x.expand(-1, self.weights.shape[1], -1)
        for weight, bias, last in zip(self.weights, self.biases, (False, True), strict=True):
            x = torch.einsum("bed,edf->bef", x, weight) + bias
            x = x if last else x.relu()
        return x
