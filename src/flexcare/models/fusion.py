"""Who sees whom, and the encoder that obeys it: one stream a modality, and readers (SPEC 6).

No token of a modality sees anything but its own modality, so each modality is a stream of its own,
computed only for the samples that have it. Combination tokens and task tokens only read.
"""

from collections.abc import Sequence
from itertools import combinations as subsets

import torch
from torch import Tensor, nn

from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.models.encoders import learned
from flexcare.models.layers import Layer, Part, merge, place, read

Combination = tuple[str, ...]


def combinations(modalities: Sequence[str], max_size: int | None) -> tuple[Combination, ...]:
    """All non-empty sets of at most `max_size` modalities, small ones first, names sorted."""
    names = sorted(modalities)
    sizes = range(1, min(max_size or len(names), len(names)) + 1)
    return tuple(subset for size in sizes for subset in subsets(names, size))


def combination_name(combination: Combination) -> str:
    return "+".join(combination)


def members(combos: Sequence[Combination], modalities: Sequence[str]) -> Tensor:
    """(S, M) bool: which combination has which modality."""
    table = [[name in combo for name in modalities] for combo in combos]
    return torch.tensor(table, dtype=torch.bool).reshape(len(combos), len(modalities))


def visibility(
    combos: Sequence[Combination], modalities: Sequence[str], task_token_sees: str
) -> Tensor:
    """The visibility table of SPEC 6, (G, G) bool: row may see column.

    The G = 1 + S + M groups are the task token, the S combination tokens, the M modalities.
    """
    first = 1 + len(combos)  # group of the first modality
    reach = {"itself": 1, "combinations": first, "all": first + len(modalities)}
    sees = torch.zeros(reach["all"], reach["all"], dtype=torch.bool)
    sees[0, : reach[task_token_sees]] = True
    sees[1:first, 1:first] = torch.eye(len(combos), dtype=torch.bool)
    sees[1:first, first:] = members(combos, modalities)
    sees[first:, first:] = torch.eye(len(modalities), dtype=torch.bool)
    return sees


class Fusion(nn.Module):
    """The encoder in stream form, for the boolean mask.

    Work: one attention over each modality's own tokens, and per layer each reader's look at the
    keys that its streams have computed anyway. The exact mathematics of one masked sequence, with
    a gradient of exactly 0 where the table forbids.
    """

    def __init__(self, config: ModelConfig, combos: Sequence[Combination]) -> None:
        super().__init__()
        self.config = config
        self.combination_tokens = nn.ParameterDict(
            {combination_name(combo): learned(config.hidden) for combo in combos}
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(
        self,
        streams: dict[str, Tokens],
        combos: Sequence[Combination],
        present: Tensor,
        tasks: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            streams: by modality, embedded tokens (n, L, D) of the rows that have it.
            combos: the S combinations to form.
            present: (B, S) bool.
            tasks: (T, D), one embedding a task asked.

        Returns:
            z_S (B, 1, S, D), 0 where absent, and the task tokens (B, T, D). z_S is the same for
            every task, and no task token sees another, so all tasks are asked at once.
        """
        size, count = len(present), len(tasks)
        readers = torch.cat([tasks, self.stacked(combos, tasks)]).expand(size, -1, -1)
        table = visibility(combos, tuple(streams), self.config.task_token_sees)
        group = torch.tensor([0] * count + list(range(1, 1 + len(combos))))
        readers_of = {
            name: table[group, 1 + len(combos) + index].nonzero()[:, 0].to(present.device)
            for index, name in enumerate(streams)
        }
        among = self._among(table[group][:, group].to(present.device), combos, present, count)
        hidden = {name: tokens.values for name, tokens in streams.items()}
        for layer in self.layers:
            assert isinstance(layer, Layer)
            q, k, v = layer.split(readers)
            parts = [read(layer, q, k, v, among)]
            for name, tokens in streams.items():
                part, hidden[name] = _stream(
                    layer, q, hidden[name], tokens, readers_of[name], layer is self.layers[-1]
                )
                parts.append(part)
            readers = layer.finish(readers, merge(parts))
        z = torch.where(present[..., None], readers[:, count:], 0)
        return z[:, None], readers[:, :count]

    def stacked(self, combos: Sequence[Combination], like: Tensor) -> Tensor:
        """The learned vectors e_S of `combos`, (S, D)."""
        tokens = [self.combination_tokens[combination_name(combo)] for combo in combos]
        return torch.stack(tokens) if tokens else like.new_zeros(0, like.shape[-1])

    def shown(self, combos: Sequence[Combination], present: Tensor) -> Tensor:
        """(B, S) bool: combination tokens that others may look at."""
        always = {"hidden": False, "visible": True}[self.config.absent_combinations]
        several = torch.tensor([len(combo) > 1 for combo in combos], dtype=torch.bool)
        return present | (several.to(present.device) & always)

    def _among(
        self, table: Tensor, combos: Sequence[Combination], present: Tensor, count: int
    ) -> Tensor:
        """(B, R, R) bool: which readers a reader sees; always itself, no task another task."""
        shown = self.shown(combos, present)
        keys = torch.cat([shown.new_zeros(len(shown), count), shown], 1)
        own = torch.eye(len(table), dtype=torch.bool, device=table.device)
        return (table & keys[:, None]) | own


def _stream(
    layer: Layer, asking: Tensor, x: Tensor, tokens: Tokens, readers: Tensor, last: bool
) -> tuple[Part, Tensor]:
    """One modality through one layer: what its readers learn, and its own tokens afterwards."""
    q, k, v = layer.split(x)
    visible = tokens.valid[:, None]
    part = read(layer, asking[tokens.rows[:, None], readers], k, v, visible)
    if not last:  # nobody reads a stream after the last layer
        x = layer.finish(x, layer.attend(q, k, v, visible[:, None]))
    return place(part, tokens.rows, readers, (asking.shape[0], asking.shape[1])), x
