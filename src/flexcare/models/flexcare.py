"""The network: what is known of some patients -> an answer to every question asked (SPEC 6)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.models.dense import DenseFusion
from flexcare.models.fusion import Combination, Fusion, combination_name, combinations, members
from flexcare.models.heads import Direct, Heads, Pooling
from flexcare.models.mixtures import MIXTURES
from flexcare.models.network import Network, Output
from flexcare.schema import ModalityInfo, TaskInfo

FUSIONS: dict[str, type[Fusion]] = {
    "boolean": Fusion,
    "additive": DenseFusion,
    "none": DenseFusion,
}


class FlexCare(Network):
    """One network for many questions, from whatever modalities a patient has."""

    name = "flexcare"

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__(config, modalities, tasks)
        self.combinations = combinations([m.name for m in modalities], config.max_combination)
        self.task_embedding = nn.Embedding(len(tasks), config.hidden)
        self.fusion = FUSIONS[config.mask](config, self.combinations, self._causal())
        self.experts = MIXTURES[config.mixture](config)
        self.routes = self.experts.count
        self.pooling = Pooling(config)
        outputs = {info.name: info.outputs for info in tasks}
        self.heads = Heads(config, outputs)
        # Last, so that with or without it all else starts from the same values.
        self.direct = Direct(config, self.encoders, outputs) if config.direct else None

    def _causal(self) -> tuple[str, ...]:
        """The modalities whose tokens see no later one."""
        if not self.config.causal_series:
            return ()
        if FUSIONS[self.config.mask] is not Fusion:
            raise UserError(
                "model.causal_series needs streams",
                found=f"model.mask = {self.config.mask!r}",
                expected='model.mask = "boolean"',
            )
        ordered = [name for name, encoder in self.encoders.items() if encoder.ordered]
        return tuple(ordered)

    def reads_parts(self, name: str) -> bool:
        return name in self.fusion.causal

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row.

        Raises:
            UserError: the batch names a modality or a task that the network does not have.
        """
        encoded = self.encoded(batch)
        combos = self._formed(encoded)
        present = self._present(batch, encoded, combos)
        z, task_tokens = self.fusion(encoded, combos, present, self._embedded(batch.tasks))
        routed, gates, balance = self.experts(z, task_tokens, present)
        patient, weights = self.pooling(routed, task_tokens, present)
        logits = self.heads(batch.tasks, task_tokens, patient, present.any(1))
        if self.direct is not None:
            logits = self.direct(encoded, logits)
        return Output(
            logits,
            batch.tasks,
            tuple(combination_name(combo) for combo in self.combinations),
            self._all(combos, z, 2),
            self._all(combos, present, 1),
            self._all(combos, gates, 2),
            self._all(combos, weights, 2),
            balance,
        )

    def _formed(self, encoded: dict[str, list[Tokens]]) -> tuple[Combination, ...]:
        """The combinations worth forming: hidden ones that no row can have are left out.

        So a network that learned a further modality computes what it did before without it.
        """
        if self.config.absent_combinations == "visible":
            return self.combinations
        return tuple(combo for combo in self.combinations if encoded.keys() >= set(combo))

    def _present(
        self, batch: Batch, encoded: dict[str, list[Tokens]], combos: Sequence[Combination]
    ) -> Tensor:
        """(B, S) bool: a combination is present if all its modalities are."""
        device = self.task_embedding.weight.device
        has = torch.zeros(batch.size, len(self.modalities), dtype=torch.bool, device=device)
        for column, info in enumerate(self.modalities):
            for group in encoded.get(info.name, ()):
                has[group.rows, column] = True
        needed = members(combos, [info.name for info in self.modalities]).to(device)
        return (has[:, None] | ~needed).all(-1)

    def _embedded(self, tasks: tuple[str, ...]) -> Tensor:
        row = {info.name: index for index, info in enumerate(self.tasks)}
        weight = self.task_embedding.weight
        out: Tensor = self.task_embedding(
            torch.tensor([row[task] for task in tasks], device=weight.device)
        )
        return out

    def _all(self, combos: Sequence[Combination], values: Tensor, dim: int) -> Tensor:
        """`values` of the combinations formed, among all combinations; 0 for the others."""
        if len(combos) == len(self.combinations):
            return values
        place = {combo: index for index, combo in enumerate(self.combinations)}
        index = torch.tensor([place[combo] for combo in combos], dtype=torch.long)
        shape = list(values.shape)
        shape[dim] = len(self.combinations)
        return values.new_zeros(shape).index_copy(dim, index.to(values.device), values)
