"""A noisy top-k gate and the experts it chooses (SPEC 6; Shazeer et al. 2017, arXiv 1701.06538)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.models.layers import widened
from flexcare.processes import total

NOISE_FLOOR = 0.01
TINY = 1e-10


class Routed(NamedTuple):
    """s_S (B, T, S, D), gate weights (B, T, S, E) and the balance loss (no dimension).

    Absent combinations have gate weights 0 and s_S 0. Without a gate E is 0, and no loss.
    """

    values: Tensor
    gates: Tensor
    balance: Tensor | None


class Mixture(nn.Module):
    """What z_S goes through on its way to the answers.

    Attributes:
        count: experts that a gate chooses from.
    """

    count = 0


class Experts(Mixture):
    """E two-layer perceptrons D -> D -> D, of which each combination and task uses k."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.experts_per_token > config.experts:
            raise UserError(
                "model.experts_per_token is too large",
                found=str(config.experts_per_token),
                expected=f"at most model.experts = {config.experts}",
            )
        d, e = config.hidden, config.experts
        self.count, self.chosen, self.noisy = e, config.experts_per_token, config.gate_noise
        self.gate, self.gate_task, self.gate_noise = (nn.Linear(d, e, bias=False) for _ in range(3))
        layers = [(nn.Linear(d, d), nn.Linear(d, d)) for _ in range(e)]
        # One tensor for all experts, each as (in, out).
        self.weight1 = nn.Parameter(torch.stack([a.weight.detach().T for a, _ in layers]))
        self.weight2 = nn.Parameter(torch.stack([b.weight.detach().T for _, b in layers]))
        self.bias1 = nn.Parameter(torch.stack([a.bias.detach() for a, _ in layers]))
        self.bias2 = nn.Parameter(torch.stack([b.bias.detach() for _, b in layers]))

    def forward(self, z: Tensor, task_tokens: Tensor, present: Tensor) -> Routed:
        """Send each present z_S to its experts.

        Args:
            z: (B, K, S, D), K = 1 where all tasks share it, else T.
            task_tokens: (B, T, D), outputs of the encoder.
            present: (B, S) bool.
        """
        clean = self.scores(z, task_tokens)
        noise = None
        logits = clean
        if self.training and self.noisy:
            noise = functional.softplus(widened(self.gate_noise(z))) + NOISE_FLOOR
            logits = clean + torch.randn_like(clean) * noise
        gates, load = top_k(logits, clean, noise, self.chosen)
        shown = present[:, None, :, None]
        gates, load = torch.where(shown, gates, 0), torch.where(shown, load, 0)
        amounts = torch.stack([gates.sum((0, 1, 2)), load.sum((0, 1, 2))])
        if self.training:  # of the whole step, not of this process's share
            amounts = total(amounts)
        balance = variation(amounts[0]) + variation(amounts[1])
        wanted = gates > 0
        if z.shape[1] == 1:  # an expert's answer to z_S serves every task
            wanted = wanted.any(1, keepdim=True)
        answers = self.answers(z, wanted)
        values = torch.einsum("btse,btsed->btsd", gates.to(answers.dtype), answers)
        return Routed(values, gates, balance)

    def scores(self, z: Tensor, task_tokens: Tensor) -> Tensor:
        """(B, T, S, E) what the gate makes of z_S (B, K, S, D) and the task tokens (B, T, D)."""
        return widened(self.gate(z) + self.gate_task(task_tokens)[:, :, None])

    def answers(self, z: Tensor, wanted: Tensor) -> Tensor:
        """(B, K, S, E, D): what each wanted expert makes of z_S, 0 where it is not wanted."""
        flat, asked = z.flatten(0, -2), wanted.flatten(0, -2).T  # (N, D), (E, N)
        expert, token = asked.nonzero(as_tuple=True)  # sorted by expert
        batches = torch.split(flat[token], asked.sum(1).tolist())
        done = torch.cat([self.expert(index, batch) for index, batch in enumerate(batches)])
        out = done.new_zeros(len(flat), len(asked), flat.shape[1])
        out[token, expert] = done
        return out.reshape(*z.shape[:-1], *out.shape[1:])

    def expert(self, index: int, x: Tensor) -> Tensor:
        """One expert's perceptron, (n, D) -> (n, D)."""
        inner = torch.addmm(self.bias1[index], x, self.weight1[index]).relu()
        return torch.addmm(self.bias2[index], inner, self.weight2[index])


def top_k(logits: Tensor, clean: Tensor, noise: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Gate weights (softmax over the k largest logits, else 0) and load, both (..., E).

    The load of an expert is the probability that it is among the k when its own noise alone is
    drawn anew (appendix A of arXiv 1701.06538); without noise, whether it is.
    """
    experts = logits.shape[-1]
    best, index = logits.topk(min(k + 1, experts), dim=-1)
    gates = torch.zeros_like(logits).scatter(-1, index[..., :k], best[..., :k].softmax(-1))
    if noise is None or k == experts:
        return gates, (gates > 0).to(gates.dtype)
    within = logits > best[..., k:]
    # The k-th largest of the OTHER logits: the (k+1)-th of all for one that is among the k.
    bar = torch.where(within, best[..., k:], best[..., k - 1 : k])
    return gates, torch.special.ndtr((clean - bar) / noise)


def variation(amounts: Tensor) -> Tensor:
    """Squared coefficient of variation of (E,) amounts, unbiased variance."""
    return amounts.var() / (amounts.mean().square() + TINY)
