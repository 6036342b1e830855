"""Who sees whom, and the encoder that obeys it: one stream a modality, and readers (SPEC 6).

No token of a modality sees anything but its own modality, so each modality is a stream of its own,
computed only for the samples that have it. Combination tokens and task tokens only read.
"""

from collections.abc import Collection, Sequence
from itertools import combinations as subsets

import torch
from torch import Tensor, nn

from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.models.encoders import learned
from flexcare.models.layers import Layer, Part, hiding, merge, place, read

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

    Args:
        causal: modalities whose tokens see no later one.
    """

    def __init__(
        self, config: ModelConfig, combos: Sequence[Combination], causal: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.config, self.causal = config, causal
        self.combination_tokens = nn.ParameterDict(
            {combination_name(combo): learned(config.hidden) for combo in combos}
        )
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(
        self,
        encoded: dict[str, list[Tokens]],
        combos: Sequence[Combination],
        present: Tensor,
        tasks: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Encode.

        Args:
            encoded: by modality, groups of embedded tokens (n, L, D).
            combos: the S combinations to form.
            present: (B, S) bool.
            tasks: (T, D), one embedding a task asked.

        Returns:
            z_S (B, 1, S, D), 0 where absent, and the task tokens (B, T, D). z_S is the same for
            every task, and no task token sees another, so all tasks are asked at once.
        """
        size, count = len(present), len(tasks)
        readers = torch.cat([tasks, self.stacked(combos, tasks)]).expand(size, -1, -1)
        table = visibility(combos, tuple(encoded), self.config.task_token_sees)
        table = table[torch.tensor([0] * count + list(range(1, 1 + len(combos))))]
        table = table.to(present.device)  # (readers, groups)
        among = self._among(table, combos, present, count)
        streams = [
            Stream(tokens, table[:, 1 + len(combos) + index].nonzero()[:, 0], name in self.causal)
            for index, (name, groups) in enumerate(encoded.items())
            for tokens in groups
        ]
        for layer in self.layers:
            assert isinstance(layer, Layer)
            q, k, v = layer.split(readers)
            last = layer is self.layers[-1]  # nobody reads a stream after the last layer
            parts = [stream.through(layer, q, last) for stream in streams]
            readers = layer.finish(readers, merge([read(layer, q, k, v, among), *parts]))
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
        """(B, 1, R, R), what hides readers from readers: each sees itself, no task another task."""
        shown = self.shown(combos, present)
        keys = torch.cat([shown.new_zeros(len(shown), count), shown], 1)
        own = torch.eye(len(table), dtype=torch.bool, device=table.device)
        seen = torch.cat([own[:, :count], table[:, 1 : 1 + len(combos)]], 1)
        return hiding((seen & keys[:, None]) | own)[:, None]


class Stream:
    """Sequences of one modality on their way through the layers, and their readers.

    Args:
        tokens: embedded, (n, L, D), of m rows.
        readers: (r,), numbers of the readers of a row that look at them.
        causal: no token sees a later one.
    """

    def __init__(self, tokens: Tokens, readers: Tensor, causal: bool) -> None:
        self.x, self.tokens, self.readers = tokens.values, tokens, readers
        valid, of = tokens.valid, tokens.of
        # Rows that share a sequence ask it side by side, each in its slot.
        self.slot = (of[:, None] == of).tril(-1).sum(1)
        slots = int(self.slot.max()) + 1
        known = valid[:, None].repeat(1, slots, 1).index_put((of, self.slot), tokens.known())
        self.asked = hiding(known.repeat_interleave(len(readers), 1))[:, None]
        own = valid[:, None]
        if causal:
            every = torch.ones(valid.shape[1], valid.shape[1], dtype=torch.bool, device=of.device)
            own = (own & every.tril()) | torch.eye(len(every), dtype=torch.bool, device=of.device)
        self.own = hiding(own)[:, None]

    def through(self, layer: Layer, asking: Tensor, last: bool) -> Part:
        """One layer: what the readers (B, R, heads, d) learn; what comes after if not the last."""
        q, k, v = layer.split(self.x)
        rows, of = self.tokens.rows, self.tokens.of
        mine = asking[rows[:, None], self.readers]
        slots = mine.new_zeros(len(k), self.asked.shape[2] // len(self.readers), *mine.shape[1:])
        folded = slots.index_put((of, self.slot), mine).flatten(1, 2)
        part = read(layer, folded, k, v, self.asked)
        log_sum, answer = (x.reshape(*slots.shape[:3], *x.shape[2:]) for x in part)
        found = Part(log_sum[of, self.slot], answer[of, self.slot])
        if not last:
            self.x = layer.finish(self.x, layer.attend(q, k, v, self.own))
        return place(found, rows, self.readers, (asking.shape[0], asking.shape[1]))
