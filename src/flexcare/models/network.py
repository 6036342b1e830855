"""What every network is: a batch in, answers to every question asked out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError, unknown
from flexcare.models.encoders import ENCODERS, Encoder
from flexcare.models.fusion import Combination
from flexcare.models.groups import encode
from flexcare.schema import ModalityInfo, TaskInfo


def _nothing() -> Tensor:
    return torch.zeros(0)


@dataclass
class Output:
    """Answers, and what they came from. B samples, T tasks, S combinations, E experts.

    Of a network that forms no combinations there are only `logits`, `tasks` and perhaps `balance`.

    Attributes:
        logits: by task, (B, outputs).
        tasks: names along T.
        combinations: names along S ("film+series"), always all of the model's.
        combined_by_task: z_S (B, K, S, D), 0 where absent. K is 1 where no task token is seen by
            what it asks (the boolean mask), else T.
        present: (B, S) bool.
        gates: (B, T, S, E), each expert's weight; E is 0 where no gate chooses.
        weights: (B, T, S), each combination's share in the answer.
        balance: what keeps the experts in use (without dimension), FlexCare's: squared variation
            of their importance plus that of their load. None: there is no such term.
    """

    logits: dict[str, Tensor]
    tasks: tuple[str, ...]
    combinations: tuple[str, ...] = ()
    combined_by_task: Tensor = field(default_factory=_nothing)
    present: Tensor = field(default_factory=_nothing)
    gates: Tensor = field(default_factory=_nothing)
    weights: Tensor = field(default_factory=_nothing)
    balance: Tensor | None = None

    @property
    def combined(self) -> Tensor:
        """z_S (B, S, D); with a mask that leaks, as the first task asked has it."""
        return self.combined_by_task[:, 0]

    def where(self, rows: Tensor, other: "Output") -> "Output":
        """These answers where `rows` (B,) is True, the other's elsewhere."""

        def mixed(one: Tensor, two: Tensor) -> Tensor:
            if not len(one):  # an ensemble's has no `combined`
                return one
            return torch.where(rows.reshape(-1, *[1] * (one.ndim - 1)), one, two)

        logits = {task: mixed(one, other.logits[task]) for task, one in self.logits.items()}
        return replace(
            self,
            logits=logits,
            combined_by_task=mixed(self.combined_by_task, other.combined_by_task),
            present=mixed(self.present, other.present),
            gates=mixed(self.gates, other.gates),
            weights=mixed(self.weights, other.weights),
        )


class Network(nn.Module):
    """An encoder a modality; what is made of their tokens is each network's own `forward`.

    Parameters are named by modality and by task, so neither the order of the modalities nor that
    of a batch changes anything. Starting values come from torch's own generator: seed it first.

    Attributes:
        name: in settings, bundles and tables of predictions.
        kinds: encoders by kind of modality.
        combinations: of modalities that it forms, if it does.
        routes: experts that it chooses from and tells of in `Output.gates`.

    Raises:
        UserError: settings that do not fit together, an unknown kind, a name that cannot be used.
    """

    name: ClassVar[str]
    kinds: ClassVar[Mapping[str, Callable[[ModalityInfo, ModelConfig], Encoder]]] = ENCODERS
    combinations: tuple[Combination, ...] = ()
    routes: int = 0

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
        self.encoders = nn.ModuleDict({info.name: self._encoder(info) for info in self.modalities})

    def _encoder(self, info: ModalityInfo) -> Encoder:
        if info.kind not in self.kinds:
            raise unknown(f"kind of modality {info.name}:", info.kind, self.kinds)
        return self.kinds[info.kind](info, self.config)

    def encoded(self, batch: Batch) -> dict[str, list[Tokens]]:
        """By modality that some row has, groups of tokens (n, L, D).

        Raises:
            UserError: the batch names a modality or a task that the network does not have.
        """
        self._check(batch)
        return {
            info.name: groups
            for info in self.modalities
            if info.name in batch.inputs
            and (groups := encode(self.encoders[info.name], batch.inputs[info.name]))
        }

    def answer(self, batch: Batch) -> Output:
        """`forward` for predictions: who lacks what an extension brought is answered as before it.

        To the bit. In `forward` what other rows of the batch have may change a row's last digits.
        """
        return self._answer(batch, len(self.config.joined_modalities))

    def _answer(self, batch: Batch, extensions: int) -> Output:
        """As the network after so many extensions by modalities."""
        names = self.config.joined_modalities[extensions - 1] if extensions else ()
        has = batch.present(names).any(1)
        out: Output
        if not extensions or has.all():
            out = self(batch)
            return out
        before = self._answer(batch.without(names), extensions - 1)
        if not has.any():
            return before
        out = self(batch)
        return out.where(has, before)

    def generations(self, tasks: Iterable[str]) -> list[tuple[str, ...]]:
        """The tasks by the extension that brought them, those of the first training first.

        Asked apart, the older ones get the answers of the network before it, to the bit.
        """
        came = {
            task: number
            for number, names in enumerate(self.config.joined_tasks, start=1)
            for task in names
        }
        out: dict[int, list[str]] = {}
        for task in tasks:
            out.setdefault(came.get(task, 0), []).append(task)
        return [tuple(out[number]) for number in sorted(out)]

    def reads_parts(self, name: str) -> bool:
        """Whether rows may know only the first tokens of a sequence of this modality."""
        return bool(self.encoders[name].ordered)

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
            parts = self.reads_parts(name) and tokens.valid.shape[1] <= self.config.max_bins
            if tokens.until is not None and not parts:
                raise ValueError(f"rows know parts of {name}, which is not causal or too long")


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
