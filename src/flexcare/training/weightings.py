"""How loud each task is: factors of the tasks' totals that follow from how their losses go.

They come on top of the fixed weights of the objective. Only values of losses are needed, no
gradients, so a weighting costs next to nothing; FAMO computes the losses of a step twice.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

TINY = 1e-8
Values = Mapping[str, float]  # by task, its total in this step


class Fixed:
    """All tasks alike: the weights of the objective are all there is."""

    constant = True  # whether there is nothing to it
    compares = False  # whether it has to see several tasks in one update
    looks_back = False  # whether it has to see the totals again after the update

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)

    def factors(self, totals: Values, epochs: Sequence[Values]) -> dict[str, float]:
        """The factor of each task asked.

        Args:
            epochs: mean losses of each epoch so far, by name of the metric ("loss/<task>").
        """
        return dict.fromkeys(totals, 1.0)

    def learn(self, before: Values, after: Values, rate: float) -> None:
        """After an update.

        Args:
            before, after: totals of its batches before it and (if it looks back) after it.
            rate: the learning rate of the update.
        """

    def state(self) -> dict[str, Tensor]:
        """What a run that goes on needs."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put it back."""


class DWA(Fixed):
    """Dynamic weight average (Liu et al. 2019, arXiv 1803.10704): slow tasks become louder.

    The ratio of a task's mean losses (without regularisers) in the last two epochs goes through a
    softmax over all tasks; the factors' mean is 1. The first two epochs weigh all alike.
    """

    constant = False
    temperature = 2.0

    def factors(self, totals: Values, epochs: Sequence[Values]) -> dict[str, float]:
        if len(epochs) < 2:
            return dict.fromkeys(totals, 1.0)
        old, new = ([epoch.get(f"loss/{task}") for task in self.tasks] for epoch in epochs[-2:])
        rates = [b / a if a and b is not None else 1.0 for a, b in zip(old, new, strict=True)]
        shares = (torch.tensor(rates, dtype=torch.float64) / self.temperature).softmax(0)
        of = dict(zip(self.tasks, (len(self.tasks) * shares).tolist(), strict=True))
        return {task: of[task] for task in totals}


class _Learned(Fixed):
    """A number a task, 0 at first, that an Adam of its own learns.

    Tasks that an update does not ask keep theirs.
    """

    constant = False
    decay = 0.0

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.numbers = {t: torch.zeros((), dtype=torch.float64, requires_grad=True) for t in tasks}
        self.adam = torch.optim.Adam(self.numbers.values(), weight_decay=self.decay)

    def move(self, gradients: Mapping[str, float], rate: float) -> None:
        for task, number in self.numbers.items():
            given = task in gradients
            number.grad = torch.full_like(number, gradients[task]) if given else None
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        moments = self.adam.state_dict()["state"]
        return {
            f"{task}/{key}": value
            for place, (task, number) in enumerate(self.numbers.items())
            for key, value in ({"number": number.detach()} | moments.get(place, {})).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            task, key = name.rsplit("/", 1)
            if key == "number":
                self.numbers[task].data.copy_(value)
            else:
                moments.setdefault(self.tasks.index(task), {})[key] = value
        groups = self.adam.state_dict()["param_groups"]
        self.adam.load_state_dict({"state": moments, "param_groups": groups})


class Uncertainty(_Learned):
    """Learned uncertainties (Kendall et al. 2018, arXiv 1705.07115).

    The sum over tasks of exp(-s) / 2 x total + s / 2 is minimised in the network and in each
    task's s alike, with the network's learning rate.
    """

    def factors(self, totals: Values, epochs: Sequence[Values]) -> dict[str, float]:
        return {task: math.exp(-self.numbers[task].item()) / 2 for task in totals}

    def learn(self, before: Values, after: Values, rate: float) -> None:
        factors = self.factors(before, ())
        self.move({task: 0.5 - factors[task] * value for task, value in before.items()}, rate)


class FAMO(_Learned):
    """Fast adaptive multitask optimisation (Liu et al. 2023, arXiv 2306.03792).

    The tasks' totals shall fall at one rate. Their logarithms are summed with shares that a
    softmax makes of learned numbers; whose total fell less in an update gets a larger share. Only
    tasks of one update are compared, and none whose total is 0: it has no logarithm.
    """

    compares, looks_back = True, True
    decay, rate = 1e-3, 0.025

    def factors(self, totals: Values, epochs: Sequence[Values]) -> dict[str, float]:
        shares = self._shares(totals)
        scaled = {task: share / (totals[task] + TINY) for task, share in shares.items()}
        whole = sum(scaled.values())
        return {task: scaled[task] / whole if task in scaled else 1.0 for task in totals}

    def learn(self, before: Values, after: Values, rate: float) -> None:
        shares = self._shares(before)
        fell = {t: math.log(before[t] + TINY) - math.log(after[t] + TINY) for t in shares}
        mean = sum(shares[task] * fell[task] for task in shares)
        self.move({task: shares[task] * (fell[task] - mean) for task in shares}, self.rate)

    def _shares(self, totals: Values) -> dict[str, float]:
        tasks = [task for task, value in totals.items() if value > 0]
        numbers = torch.tensor([self.numbers[task].item() for task in tasks], dtype=torch.float64)
        return dict(zip(tasks, numbers.softmax(0).tolist(), strict=True))


WEIGHTINGS: dict[str, type[Fixed]] = {
    "fixed": Fixed,
    "uncertainty": Uncertainty,
    "dwa": DWA,
    "famo": FAMO,
}
