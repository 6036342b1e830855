"""Experts by combination and a bank for what is missing, as in Flex-MoE (Yun et al. 2024,
"Flex-MoE: modeling arbitrary modality combination via the flexible mixture-of-experts",
arXiv 2410.08245)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexcare.baselines.networks.parts import Answers, Perceptrons, Vectors
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.encoders import learned
from flexcare.models.experts import variation
from flexcare.models.layers import widened
from flexcare.models.network import Network, Output
from flexcare.processes import mean, total
from flexcare.schema import ModalityInfo, TaskInfo

BANKED = 10  # modalities whose absence chooses what stands for the missing ones


class FlexMoE(Network):
    """One vector a modality, from a bank where it is missing; attention among them; experts.

    The bank has a vector for every set of modalities that are there and every one that is not. The
    vectors pass a transformer layer whose feed-forward part is a mixture of experts. Patients with
    everything use the experts that the gate likes best, and a balance keeps all in use; for those
    with less, the expert of their set of modalities is always one of them, and the gate learns so.

    Chosen: one such layer, linear heads on all M vectors. Sets share an expert where there are more
    of them than experts, and vectors of the bank where they differ in modalities after the tenth.
    Samples with everything are not moved to the front of an epoch: the loop's order is everybody's.
    What the gate is to learn is added to the balance and has its weight.
    """

    name = "flex_moe"

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        names = [info.name for info in self.modalities]
        self.vectors = Vectors(config, names)
        self.bank = learned(2 ** min(len(names), BANKED), len(names), config.hidden)
        self.among = nn.MultiheadAttention(
            config.hidden, config.heads, config.dropout, batch_first=True
        )
        self.gate = nn.Linear(config.hidden, config.experts, bias=False)
        self.experts = Perceptrons(config, config.experts)
        self.norm1, self.norm2 = nn.LayerNorm(config.hidden), nn.LayerNorm(config.hidden)
        self.answers = Answers(config, len(names) * config.hidden, tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        vectors, there = self.vectors(self.encoded(batch), batch.size, self.bank)
        number = (there * 2 ** torch.arange(there.shape[1], device=there.device)).sum(1)
        x = torch.where(there[..., None], vectors, self.bank[number % len(self.bank)])
        x = self.norm1(x + self.among(x, x, x, need_weights=False)[0])
        logits = widened(self.gate(x))
        wanted = (number % self.config.experts)[:, None].expand(there.shape)
        gates = self._gates(logits, wanted, there.all(1))
        answers = self.experts(x.flatten(0, 1)[:, None]).unflatten(0, x.shape[:2])
        x = self.norm2(x + torch.einsum("bme,bmed->bmd", gates.to(answers.dtype), answers))
        lessons = self._lessons(logits, gates, there, wanted) if self.training else None
        return Output(self.answers(batch.tasks, x.flatten(1)), batch.tasks, balance=lessons)

    def _gates(self, logits: Tensor, wanted: Tensor, whole: Tensor) -> Tensor:
        """(B, M, E): a softmax over the experts chosen; the one wanted is, unless all is there."""
        own = functional.one_hot(wanted, logits.shape[-1]).bool() & ~whole[:, None, None]
        chosen = logits.masked_fill(own, math.inf).topk(self.config.experts_per_token).indices
        return torch.zeros_like(logits).scatter(-1, chosen, logits.gather(-1, chosen).softmax(-1))

    def _lessons(self, logits: Tensor, gates: Tensor, there: Tensor, wanted: Tensor) -> Tensor:
        """Balance among patients with everything; for those with less, their set's expert."""
        whole, part = there.all(1), there.any(1) & ~there.all(1)
        importance = total(torch.where(whole[:, None, None], gates, 0).sum((0, 1)))
        wrong = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        chosen = part[:, None].expand(there.shape).flatten()
        return variation(importance) + mean(torch.where(chosen, wrong, 0).sum(), chosen.sum())
