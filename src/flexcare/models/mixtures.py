"""The experts, and what stands in their place to ask what they are worth."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flexcare.config import ModelConfig
from flexcare.models.experts import Experts, Mixture, Routed
from flexcare.models.layers import widened

NEVER = -1e4  # a gate's score that no noise makes up for


class OneExpert(Experts):
    """The first expert serves everything: a gate that does not work."""

    def scores(self, z: Tensor, task_tokens: Tensor) -> Tensor:
        scores = task_tokens.new_full((self.count,), NEVER)
        scores[0] = 0
        return widened(scores.expand(len(z), task_tokens.shape[1], z.shape[2], -1))


class Dense(Mixture):
    """One perceptron D -> h -> D that all combinations and tasks share.

    Args:
        experts: h is such that there are as many parameters as these many experts and the gates
            have, to within half a column.
    """

    def __init__(self, config: ModelConfig, experts: int) -> None:
        super().__init__()
        d = config.hidden
        wanted = experts * 2 * (d * d + d) + 3 * d * config.experts
        inner = round((wanted - d) / (2 * d + 1))
        self.up, self.down = nn.Linear(d, inner), nn.Linear(inner, d)

    def forward(self, z: Tensor, task_tokens: Tensor, present: Tensor) -> Routed:
        """As `Experts.forward`, without gates."""
        made = torch.where(present[:, None, :, None], self.down(self.up(z).relu()), 0)
        shape = (len(z), task_tokens.shape[1], *z.shape[2:])
        return Routed(made.expand(shape), made.new_zeros(*shape[:3], 0), None)


MIXTURES: dict[str, Callable[[ModelConfig], Mixture]] = {
    "experts": Experts,
    "one_expert": OneExpert,
    "dense_active": lambda config: Dense(config, config.experts_per_token),
    "dense_total": lambda config: Dense(config, config.experts),
}
