"""Ways to train compared at equal cost: as many steps each, or as many seconds."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from flexcare.config import over
from flexcare.errors import UserError
from flexcare.store import Store
from flexcare.training.checkpoint import Progress
from flexcare.training.loop import Hooks, Loop
from flexcare.training.run import assembled, resolved

ENDLESS = {"training": {"epochs": 10**9, "patience": None}}


def compare(
    store: str | Path,
    arms: Mapping[str, dict[str, Any]],
    *,
    steps: int | None = None,
    seconds: float | None = None,
    seeds: Iterable[int] = (0,),
    looks: int = 1,
) -> list[dict[str, Any]]:
    """Train every arm with every seed until its budget is spent; nothing is written.

    Args:
        arms: by name its settings (config.Config). Epochs and patience are of no account.
        steps: batches to be learned from. A cycle of steps that makes one update is not cut.
        seconds: of training alone, without looks at the tuning split.
        looks: at the tuning split, evenly over the budget; the last is at its end.

    Returns:
        For each arm and seed "arm", "seed" and "curve", a table a look: "steps", "updates",
        "seconds", "mean" (of the primary metrics) and "tuning" (by task "loss" and "primary"), of
        the model as it is then, or of the running mean of its weights.

    Raises:
        UserError: settings that cannot be used, or an arm that diverged.
    """
    if (steps is None) == (seconds is None):
        raise UserError("a comparison needs one budget", expected="steps, or seconds")
    limit, opened = float(steps if steps is not None else seconds or 0), Store(Path(store))
    out = []
    for seed in seeds:  # one after the other, so that a slow minute of the machine hits all arms
        for name, settings in arms.items():
            own = over(over(settings, ENDLESS), {"training": {"seed": seed}})
            loop = assembled(opened, resolved(opened, own))
            spent = Spent(loop, limit, "seconds" if steps is None else "steps", looks)
            out.append({"arm": name, "seed": seed, "curve": spent.all()})
    return out


def price(
    store: Store, settings: dict[str, Any], plain: dict[str, Any], *, updates: int = 6
) -> float:
    """Seconds of a step of a training over those of another: the ratio of their medians.

    Both go on in turn, an update each, so that a slow minute of the machine hits both; the first
    of each is not counted. An update of several steps counts a part for each.

    Args:
        settings, plain: of the two (config.Config).

    Raises:
        UserError: settings that cannot be used, or a training that diverged.
    """
    loops = [assembled(store, resolved(store, one)) for one in (settings, plain)]
    coming = [loop._batches(loop.updates(0)[: 1 + updates]) for loop in loops]
    took: list[list[float]] = [[], []]
    for loop in loops:
        loop.model.train()
    for _ in range(1 + updates):
        for loop, some, seconds in zip(loops, coming, took, strict=True):
            started = time.perf_counter()
            if (update := next(some, None)) is not None:
                loop._step(*update)
                seconds.append((time.perf_counter() - started) / len(update[1]))
    own, other = (median(seconds[1:] or seconds) for seconds in took)
    return own / other


class Spent:
    """Runs a loop until its budget is spent, and notes where it stood.

    Args:
        of: what the limit is of, "steps" or "seconds".
    """

    def __init__(self, loop: Loop, limit: float, of: str, looks: int) -> None:
        self.loop, self.of = loop, of
        self.marks = [limit * (number + 1) / looks for number in range(looks)]
        self.spent: dict[str, float] = {"steps": 0, "seconds": 0.0}
        self.before = 0  # steps of earlier epochs
        self.curve: list[dict[str, Any]] = []

    def all(self) -> list[dict[str, Any]]:
        """The curve."""
        self.since = time.perf_counter()
        try:
            self.loop.run(Hooks(self._step, lambda _: None, self._epoch, self._over))
        except KeyboardInterrupt:
            if not self._over():  # somebody's, not ours
                raise
        return self.curve

    def _over(self) -> bool:
        return len(self.curve) == len(self.marks)

    def _step(self, progress: Progress, _: int) -> None:
        self.spent["seconds"] += time.perf_counter() - self.since
        self.spent["steps"] = self.before + progress.counts["total"]
        if self.spent[self.of] >= self.marks[len(self.curve)]:
            tuning = self.loop.look()
            known = [seen["primary"] for seen in tuning.values() if seen["primary"] is not None]
            mean = sum(known) / len(known) if known else None
            cost = self.spent | {"updates": progress.total}
            while not self._over() and self.spent[self.of] >= self.marks[len(self.curve)]:
                self.curve.append(cost | {"mean": mean, "tuning": tuning})
        self.since = time.perf_counter()

    def _epoch(self, _: Progress) -> None:
        self.before = int(self.spent["steps"])
        self.since = time.perf_counter()  # what the end of an epoch took is not training
