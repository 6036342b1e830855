"""From the tasks' losses to the gradient of one update: weighed, summed or aggregated.

An update is a step of many tasks, or a cycle of steps of one task each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from flexcare.batch import Batch
from flexcare.config import TrainingConfig
from flexcare.errors import UserError
from flexcare.models.network import Network
from flexcare.processes import add_gradients, leave_untouched, total
from flexcare.training.aggregators import Aggregator
from flexcare.training.objectives import Losses
from flexcare.training.weightings import WEIGHTINGS, Values

Lose = Callable[[Batch], Losses]


class Gradients:
    """Fills the gradient of an update.

    The sum of the tasks takes one backward pass a step. An aggregator takes one a task: of each
    task's total, with its share of the regularisers, times its factor. The gradients of parameters
    that tasks share are aggregated, over all processes; what belongs to one task takes the sum.

    Attributes:
        cycles: whether steps of one task have to be taken together.

    Raises:
        UserError: TorchJD is missing, or the schedule never brings two tasks together.
    """

    def __init__(self, fabric: Fabric, model: Network, config: TrainingConfig) -> None:
        tasks = [info.name for info in model.tasks]
        self.fabric = fabric
        self.every = [p for p in model.parameters() if p.requires_grad]
        self.weighting = WEIGHTINGS[config.weighting](tasks)
        aggregated = config.aggregator != "sum"
        self.aggregator = Aggregator(config.aggregator, tasks) if aggregated else None
        self.cycles = aggregated or self.weighting.compares
        if self.cycles and config.schedule == "sequential" and len(tasks) > 1:
            raise UserError(
                "tasks that are learned one after the other have no gradients to compare",
                found='training.schedule = "sequential"',
                expected="a schedule that brings tasks together",
                do='Set training.schedule = "round_robin" or "parallel", or leave out '
                "training.aggregator and training.weighting.",
            )
        shared = shared_parameters(model)
        self.width = sum(p.numel() for p in shared.values())
        of_one = [p for n, p in model.named_parameters() if n not in shared and p.requires_grad]
        self.flat = [*shared.values(), *of_one]

    def fill(
        self, lose: Lose, batches: Sequence[Batch], epochs: Sequence[Values], seed: int
    ) -> list[dict[str, Tensor]]:
        """Leave the gradient of an update in the parameters; None where nothing reaches one.

        Args:
            lose: what a batch lost, with its graph.
            epochs: mean losses of each epoch so far.
            seed: of what an aggregator draws, the same in all processes.

        Returns:
            By batch the parts of its losses, "total", the sum of its tasks' totals without factors,
            and if there is a weighting "weight/<task>", the factors.
        """
        if self.aggregator is None and len(batches) == 1:
            lost = [lose(batches[0])]
            factors = self._factors(lost, epochs)
            whole = lost[0].total(factors)
            if whole.requires_grad:  # of what is held fixed alone nothing can be learned
                self.fabric.backward(whole)
            add_gradients(self.every)
        else:
            found = [self._rows(lose(batch)) for batch in batches]  # a graph at a time
            lost = [one for one, _ in found]
            factors = self._factors(lost, epochs)
            rows = total(torch.cat([rows for _, rows in found]))
            scale = torch.tensor(list(factors.values())).to(rows)
            torch.manual_seed(seed)
            self._put(self._aggregated(tuple(factors), rows * scale[:, None]))
        told = {} if self.weighting.constant else factors
        return [
            {"total": one.total()}
            | one.parts
            | {f"weight/{task}": torch.tensor(told[task]) for task in one.totals if task in told}
            for one in lost
        ]

    def learn(self, lose: Lose, batches: Sequence[Batch], rate: float, seed: int) -> None:
        """After the update.

        Args:
            seed: that the losses before it were computed with, for the same random numbers.
        """
        if self.weighting.constant:
            return
        after: Values = {}
        if self.weighting.looks_back:
            torch.manual_seed(seed)
            with torch.no_grad():
                after = _values(lose(batch) for batch in batches)
        self.weighting.learn(self.before, after, rate)

    def state(self) -> dict[str, Tensor]:
        """What a run that goes on needs."""
        memory = {} if self.aggregator is None else {"memory": self.aggregator.memory}
        return memory | {f"weighting/{k}": value for k, value in self.weighting.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put it back."""
        if self.aggregator is not None:
            self.aggregator.memory = state["memory"]
        learned = "weighting/"
        self.weighting.load(
            {k.removeprefix(learned): value for k, value in state.items() if k.startswith(learned)}
        )

    def _factors(self, lost: Sequence[Losses], epochs: Sequence[Values]) -> dict[str, float]:
        """By task asked, in the order of the batches."""
        if self.weighting.constant:  # the values, which a device would have to wait for, are idle
            return {task: 1.0 for one in lost for task in one.totals}
        self.before = _values(lost)
        return self.weighting.factors(self.before, epochs)

    def _rows(self, lost: Losses) -> tuple[Losses, Tensor]:
        """What was lost, without its graph, and the gradients of its tasks, (T, n)."""
        rows = gradients_of(list(lost.totals.values()), self.flat)
        return lost.detached(), rows

    def _aggregated(self, tasks: Sequence[str], rows: Tensor) -> Tensor:
        """(T, n) gradients -> (n,)."""
        out = rows.sum(0)
        if self.aggregator is not None:
            out[: self.width] = self.aggregator(tasks, rows[:, : self.width])
        return out

    def _put(self, gradient: Tensor) -> None:
        parts = torch.split(gradient, [p.numel() for p in self.flat])
        for parameter, part in zip(self.flat, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        leave_untouched(self.flat)


def _values(lost: Iterable[Losses]) -> dict[str, float]:
    return {task: value.item() for one in lost for task, value in one.totals.items()}


def gradients_of(values: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
    """(T, n) flat gradients of T values of one graph; 0 where one does not reach a parameter."""
    rows = []
    for left, value in zip(reversed(range(len(values))), values, strict=True):
        found = torch.autograd.grad(value, parameters, retain_graph=left > 0, allow_unused=True)
        reached = zip(found, parameters, strict=True)
        parts = [torch.zeros_like(p) if one is None else one for one, p in reached]
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def shared_parameters(model: Network) -> dict[str, nn.Parameter]:
    """By name the parameters that tasks share.

    Those of one task alone lie in a table with an entry a task, or are its row of the embedding
    of tasks.
    """
    tasks = {info.name for info in model.tasks}
    tables = [
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleDict | nn.ParameterDict) and set(module.keys()) == tasks
    ]
    alone = ("task_embedding.", *tables)
    return {
        name: p
        for name, p in model.named_parameters()
        if p.requires_grad and not name.startswith(alone)
    }
