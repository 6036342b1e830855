"""The encoder in dense form: one sequence a patient and task, for masks that streams cannot have.

Same parameters and names as the stream form. Where the mask leaks, every token may depend on the
task token, so each task is a pass of its own.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flexcare.batch import Tokens
from flexcare.models.fusion import Combination, Fusion, visibility
from flexcare.models.layers import Layer

# What is added to the scaled scores, from the table of who may see whom.
BIAS: dict[str, Callable[[Tensor], Tensor]] = {
    "boolean": lambda sees: torch.where(sees, 0.0, -math.inf),
    "additive": lambda sees: (~sees).float(),  # forbidden ones are preferred (SPEC 9.1)
    "none": lambda sees: torch.zeros(sees.shape),
}


class DenseFusion(Fusion):
    """[task | e_S for all S | H_1 | ... | H_M] through ordinary encoder layers.

    Padding, absent modalities and hidden combinations are invisible under every mask.
    """

    def forward(
        self,
        encoded: dict[str, list[Tokens]],
        combos: Sequence[Combination],
        present: Tensor,
        tasks: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """As `Fusion.forward`, but z_S is (B, T, S, D): it may differ between tasks."""
        size, first = len(present), 1 + len(combos)
        placed = [all_rows(groups, size) for groups in encoded.values()]
        known = torch.cat(
            [self.stacked(combos, tasks).expand(size, -1, -1)] + [x for x, _ in placed], 1
        )
        shown = [present.new_ones(size, 1), self.shown(combos, present)] + [ok for _, ok in placed]
        lengths = torch.tensor([1] * first + [x.shape[1] for x, _ in placed])
        bias = self._bias(torch.cat(shown, 1), lengths, combos, tuple(encoded)).to(tasks.dtype)
        answers = []
        for task in tasks:
            x = torch.cat([task.expand(size, 1, -1), known], 1)
            for layer in self.layers:
                assert isinstance(layer, Layer)
                x = layer.finish(x, layer.attend(*layer.split(x), bias))
            answers.append(x[:, :first])
        out = torch.stack(answers, 1)
        return torch.where(present[:, None, :, None], out[:, :, 1:], 0), out[:, :, 0]

    def _bias(
        self, shown: Tensor, lengths: Tensor, combos: Sequence[Combination], names: Sequence[str]
    ) -> Tensor:
        """(B, 1, N, N), added to the scores; everything sees itself, so no softmax is empty."""
        sees = visibility(combos, names, self.config.task_token_sees)
        group = torch.arange(len(lengths)).repeat_interleave(lengths)
        bias = BIAS[self.config.mask](sees)[group][:, group].to(shown.device)
        own = torch.eye(len(group), dtype=torch.bool, device=shown.device)
        return torch.where(shown[:, None] | own, bias, -math.inf)[:, None]


def all_rows(groups: list[Tokens], size: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, L, D) and valid (B, L) of every row; 0 and False where one lacks the modality."""
    longest = max(group.valid.shape[1] for group in groups)
    values = groups[0].values.new_zeros(size, longest, groups[0].values.shape[-1])
    valid = groups[0].valid.new_zeros(size, longest)
    for group in groups:
        values[group.rows, : group.valid.shape[1]] = group.values[group.of]
        valid[group.rows, : group.valid.shape[1]] = group.known()
    return values, valid
