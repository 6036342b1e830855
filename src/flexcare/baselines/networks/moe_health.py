"""Experts by the set of modalities at hand, as in MoE-Health (Wang et al. 2025, "MoE-Health: a
mixture of experts framework for robust multimodal healthcare prediction", arXiv 2508.21793)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flexcare.baselines.networks.parts import Answers, Perceptrons, Vectors
from flexcare.batch import Batch
from flexcare.config import ModelConfig
from flexcare.models.encoders import learned
from flexcare.models.experts import top_k, variation
from flexcare.models.fusion import combinations, members
from flexcare.models.layers import widened
from flexcare.models.network import Network, Output
from flexcare.processes import total
from flexcare.schema import ModalityInfo, TaskInfo

FEW = 1e-10


class MoEHealth(Network):
    """One expert a set of modalities; a gate weighs those whose modalities are all there.

    The gate sees the vectors of all modalities, a learned one where a modality is absent, and
    which are there. Of the experts at hand it takes the best `experts_per_token`.

    Chosen: an expert is a perceptron on the mean of its modalities' vectors, each through a linear
    layer of its modality; sets have at most `max_combination` modalities, for there are 2^M of
    them; the balance is that of each expert's mean weight where it is at hand. Of a patient with
    nothing known the heads see 0.
    """

    name = "moe_health"

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        names = [info.name for info in self.modalities]
        sets = combinations(names, config.max_combination)
        self.register_buffer("members", members(sets, names), persistent=False)
        self.vectors = Vectors(config, names)
        self.absent = learned(len(names), config.hidden)
        self.inputs = nn.ModuleList(nn.Linear(config.hidden, config.hidden) for _ in names)
        self.gate = nn.Linear(len(names) * (config.hidden + 1), len(sets))
        self.experts = Perceptrons(config, len(sets))
        self.norm = nn.LayerNorm(config.hidden)
        self.answers = Answers(config, config.hidden, tasks)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row."""
        vectors, there = self.vectors(self.encoded(batch), batch.size, self.absent)
        sets = self.get_buffer("members")  # (S, M)
        at_hand = (there[:, None] | ~sets).all(-1)  # (B, S)
        gates = self._gates(vectors, there, at_hand)
        own = torch.stack([layer(vectors[:, m]) for m, layer in enumerate(self.inputs)], 1)
        shares = sets / sets.sum(1, keepdim=True)
        answers = self.experts(torch.einsum("sm,bmd->bsd", shares.to(own.dtype), own))
        patient = torch.einsum("bs,bsd->bd", gates.to(answers.dtype), answers)
        patient = torch.where(there.any(1, keepdim=True), self.norm(patient), 0)
        balance = self._balance(gates, at_hand) if self.training else None
        return Output(self.answers(batch.tasks, patient), batch.tasks, balance=balance)

    def _gates(self, vectors: Tensor, there: Tensor, at_hand: Tensor) -> Tensor:
        """(B, S), 0 for what is not at hand."""
        seen = torch.where(there[..., None], vectors, self.absent)
        known = torch.cat([seen.flatten(1), there.to(seen.dtype)], 1)
        # Not minus infinity: a row may have no expert at all.
        logits = torch.where(at_hand, widened(self.gate(known)), -1e9)
        gates, _ = top_k(logits, logits, None, self.config.experts_per_token)
        return torch.where(at_hand, gates, 0)

    def _balance(self, gates: Tensor, at_hand: Tensor) -> Tensor:
        """Squared variation of the experts' mean weights, of those that were at hand."""
        weight, count = total(torch.stack([gates.sum(0), at_hand.sum(0).to(gates.dtype)]))
        some = weight[count > 0] / (count[count > 0] + FEW)
        return variation(some) if len(some) > 1 else weight.sum() * 0
