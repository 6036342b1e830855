"""From the combinations of a patient to one vector, and from that to a task's logits (SPEC 6)."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.models.layers import widened


class Pooling(nn.Module):
    """a_S = softmax over present S of w2 . tanh(W1 [task token; s_S]) / temperature."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.temperature = config.attention_temperature
        self.inner = nn.Linear(2 * config.hidden, config.hidden, bias=False)
        self.outer = nn.Linear(config.hidden, 1, bias=False)

    def forward(self, s: Tensor, task_tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Patient vectors (B, T, D) and weights (B, T, S), 0 where absent.

        Args:
            s: (B, T, S, D).
            task_tokens: (B, T, D).
            present: (B, S) bool.
        """
        asking = task_tokens[:, :, None].expand_as(s)
        scores = widened(self.outer(self.inner(torch.cat([asking, s], -1)).tanh())[..., 0])
        shown = present[:, None]
        some = shown.any(-1, keepdim=True)  # of nothing at all, a softmax would be NaN
        scores = torch.where(shown | ~some, scores / self.temperature, -math.inf)
        weights = torch.where(shown, scores.softmax(-1), 0)
        return torch.einsum("bts,btsd->btd", weights.to(s.dtype), s), weights


class Heads(nn.Module):
    """One linear head a task on [task token; LayerNorm(patient vector)]."""

    def __init__(self, config: ModelConfig, outputs: dict[str, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden)
        self.linear = nn.ModuleDict(
            {task: nn.Linear(2 * config.hidden, count) for task, count in outputs.items()}
        )

    def forward(
        self, tasks: tuple[str, ...], task_tokens: Tensor, patient: Tensor, known: Tensor
    ) -> dict[str, Tensor]:
        """Logits (B, outputs) by task.

        Args:
            tasks: the T tasks asked.
            task_tokens, patient: (B, T, D).
            known: (B,) bool; where nothing is known of a patient, the second half is 0.
        """
        normed = torch.where(known[:, None, None], self.norm(patient), 0)
        both = torch.cat([task_tokens, normed], -1).to(self.norm.weight.dtype)
        # In bfloat16 a probability has three digits, and patients would tie.
        with torch.autocast(both.device.type, enabled=False):
            return {task: self.linear[task](both[:, index]) for index, task in enumerate(tasks)}


class Direct(nn.Module):
    """A linear head a modality and task on the mean of the modality's tokens. Not in the paper.

    What is simply more or less of something need not pass through norms and experts, which few
    patients teach to let it through. Starts at 0.
    """

    def __init__(
        self, config: ModelConfig, modalities: Iterable[str], outputs: dict[str, int]
    ) -> None:
        super().__init__()
        self.linear = nn.ModuleDict(
            {
                f"{modality}+{task}": nn.Linear(config.hidden, count, bias=False)
                for modality in modalities
                for task, count in outputs.items()
            }
        )
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(
        self, encoded: Mapping[str, Sequence[Tokens]], logits: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Logits (B, outputs) by task, with what each modality adds for the rows that have it.

        Args:
            encoded: by modality, tokens of width D; every row of them knows one at least.
        """
        out = dict(logits)
        for modality, groups in encoded.items():
            for group in groups:
                known = group.known()[..., None]
                some = torch.where(known, group.values[group.of], 0)
                mean = (widened(some).sum(1) / known.sum(1)).to(next(self.parameters()).dtype)
                with torch.autocast(mean.device.type, enabled=False):
                    for task, before in out.items():
                        added = self.linear[f"{modality}+{task}"](mean)
                        out[task] = before.index_add(0, group.rows, added)
        return out
