"""The network: what is known of some patients -> an answer to every question asked (SPEC 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError, unknown
from flexcare.models.dense import DenseFusion
from flexcare.models.encoders import ENCODERS, Encoder, encode
from flexcare.models.experts import Experts
from flexcare.models.fusion import Combination, Fusion, combination_name, combinations, members
from flexcare.models.heads import Heads, Pooling
from flexcare.schema import ModalityInfo, TaskInfo

FUSIONS: dict[str, type[Fusion]] = {
    "boolean": Fusion,
    "additive": DenseFusion,
    "none": DenseFusion,
}


@dataclass
class Output:
    """Answers, and what they came from. B samples, T tasks, S combinations, E experts.

    Attributes:
        logits: by task, (B, outputs).
        tasks: names along T.
        combinations: names along S ("film+series"), always all of the model's.
        combined_by_task: z_S (B, K, S, D), 0 where absent. K is 1 where no task token is seen by
            what it asks (the boolean mask), else T.
        present: (B, S) bool.
        gates: (B, T, S, E), each expert's weight.
        weights: (B, T, S), each combination's share in the answer.
        balance: squared variation of the experts' importance plus that of their load.
    """

    logits: dict[str, Tensor]
    tasks: tuple[str, ...]
    combinations: tuple[str, ...]
    combined_by_task: Tensor
    present: Tensor
    gates: Tensor
    weights: Tensor
    balance: Tensor

    @property
    def combined(self) -> Tensor:
        """z_S (B, S, D); with a mask that leaks, as the first task asked has it."""
        return self.combined_by_task[:, 0]


class FlexCare(nn.Module):
    """One network for many questions, from whatever modalities a patient has.

    Parameters are named by modality, by combination and by task, so neither the order of the
    modalities nor that of a batch changes anything. Starting values come from torch's own
    generator: seed it first.

    Raises:
        UserError: settings that do not fit together, an unknown kind, a name that cannot be used.
    """

    def __init__(
        self, config: ModelConfig, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo]
    ) -> None:
        super().__init__()
        _check_names("modality", [info.name for info in modalities])
        _check_names("task", [info.name for info in tasks])
        if config.hidden % config.heads:
            raise UserError(
                "model.hidden cannot be shared among the heads",
                found=f"hidden {config.hidden}, heads {config.heads}",
                expected="a multiple of model.heads",
            )
        self.config, self.tasks = config, tuple(tasks)
        self.modalities = tuple(sorted(modalities, key=lambda info: info.name))
        self.combinations = combinations([m.name for m in modalities], config.max_combination)
        self.encoders = nn.ModuleDict(
            {info.name: _encoder(info, config) for info in self.modalities}
        )
        self.task_embedding = nn.Embedding(len(tasks), config.hidden)
        self.fusion = FUSIONS[config.mask](config, self.combinations, self._causal())
        self.experts = Experts(config)
        self.pooling = Pooling(config)
        self.heads = Heads(config, {info.name: info.outputs for info in tasks})

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

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row.

        Raises:
            UserError: the batch names a modality or a task that the network does not have.
        """
        self._check(batch)
        encoded = {
            info.name: groups
            for info in self.modalities
            if info.name in batch.inputs
            and (groups := encode(self.encoders[info.name], batch.inputs[info.name]))
        }
        combos = self._formed(encoded)
        present = self._present(batch, encoded, combos)
        z, task_tokens = self.fusion(encoded, combos, present, self._embedded(batch.tasks))
        routed, gates, balance = self.experts(z, task_tokens, present)
        patient, weights = self.pooling(routed, task_tokens, present)
        logits = self.heads(batch.tasks, task_tokens, patient, present.any(1))
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

    def _check(self, batch: Batch) -> None:
        if batch.size < 1 or not batch.tasks:
            raise UserError(
                "nothing to predict",
                found=f"{batch.size} samples, {len(batch.tasks)} tasks",
                expected="at least one of each",
            )
        tasks = [info.name for info in self.tasks]
        for task in batch.tasks:
            if task not in tasks:
                raise unknown("task", task, tasks, "The model was not trained for it.")
        for name, tokens in batch.inputs.items():
            if name not in self.encoders:
                raise unknown("modality", name, self.encoders, "The model does not take it.")
            encoder = self.encoders[name]
            assert isinstance(encoder, Encoder)
            encoder.check(name, tokens)
            shared = name in self.fusion.causal and tokens.valid.shape[1] <= self.config.max_bins
            if tokens.until is not None and not shared:
                raise ValueError(f"rows know parts of {name}, which is not causal or too long")


def _encoder(info: ModalityInfo, config: ModelConfig) -> Encoder:
    if info.kind not in ENCODERS:
        raise unknown(f"kind of modality {info.name}:", info.kind, ENCODERS)
    return ENCODERS[info.kind](info, config)


def _check_names(what: str, names: Sequence[str]) -> None:
    """Names become parts of parameters' names, where some characters and words are taken."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UserError(f"{what} {name!r} is there twice", expected="each name once")
        if not name or "." in name or "+" in name or hasattr(nn.ModuleDict, name):
            raise UserError(
                f"a {what} cannot be called {name!r}",
                expected="a name without . and +, and not a method of torch's modules",
                do="Give it another name.",
            )
    if not names:
        raise UserError(f"a model without any {what}", expected=f"at least one {what}")
