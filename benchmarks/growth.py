"""How costs grow: log-log slopes in docs/growth.png and in results.json.

Preparation against subjects; a training step against modalities (all combinations, and sets of two
at most), hours of a series (whole and causal streams), and tasks. All sizes take turns; a slope is
that of one turn, the figure the median of five.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import torch
from invented import TASKS, network
from measure import HERE, ROUNDS, keep, process, seconds
from prepare import hospital
from step import step

from flexcare.batch import Batch, Tokens
from flexcare.schema import ModalityInfo, TaskInfo

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

Costs = dict[int, list[float]]


def turns(sizes: Sequence[int], work: Callable[[int], Callable[[], float]]) -> Costs:
    """Seconds at each size, in turns; `work(size)` makes what is then timed."""
    ready = {size: work(size) for size in sizes}
    costs: Costs = {size: [] for size in sizes}
    for _ in range(ROUNDS):
        for size, run in ready.items():
            costs[size].append(run())
    return costs


def slope(costs: dict[int, float]) -> float:
    """Of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0])


def prepared(subjects: int) -> Callable[[], float]:
    """Preparation of an invented hospital of that size, tables only, as a whole process."""
    command = [
        Path(sys.executable).with_name("flexcare"),
        "prepare",
        "mimic-iv",
        hospital(subjects),
    ]

    def run() -> float:
        with tempfile.TemporaryDirectory() as place:
            return process([*command, "--out", Path(place) / "store"])[0]

    return run


def trained(batch: Batch, modalities: Sequence[ModalityInfo], tasks: Sequence[TaskInfo] = TASKS,
            **settings: object) -> Callable[[], float]:  # fmt: skip
    """A step on this batch."""
    return partial(seconds, step(network(modalities, tasks, **settings), batch))


def answers(size: int, tasks: Sequence[TaskInfo]) -> dict[str, torch.Tensor]:
    return {info.name: torch.zeros(size, info.outputs) for info in tasks}


def asked(size: int, inputs: dict[str, Tokens], tasks: Sequence[TaskInfo]) -> Batch:
    """A batch in which every task is asked and every label is there."""
    labels = answers(size, tasks)
    masks = {name: torch.ones_like(values).bool() for name, values in labels.items()}
    return Batch(size, inputs, tuple(labels), labels, masks)


def tokens(size: int, length: int, width: int) -> Tokens:
    valid = torch.ones(size, length, dtype=torch.bool)
    return Tokens(torch.randn(size, length, width), valid, torch.arange(size))


def of_modalities(count: int, cap: int | None) -> Callable[[], float]:
    """32 patients with `count` series of 48 bins."""
    infos = [ModalityInfo(f"m{number}", "time_series", 47, {}) for number in range(count)]
    batch = asked(32, {info.name: tokens(32, 48, 47) for info in infos}, TASKS[:1])
    return trained(batch, infos, max_combination=cap)


def of_hours(hours: int, causal: bool) -> Callable[[], float]:
    """32 patients with one series."""
    infos = [ModalityInfo("series", "time_series", 47, {})]
    batch = asked(32, {"series": tokens(32, hours, 47)}, TASKS[:1])
    return trained(batch, infos, max_bins=hours, causal_series=causal)


def of_tasks(count: int) -> Callable[[], float]:
    """32 patients with a series and a note, asked `count` questions at once."""
    infos = [ModalityInfo("series", "time_series", 47, {}), ModalityInfo("note", "text", 768, {})]
    tasks = [TaskInfo(f"t{number}", "?", "binary", ("yes",), "?") for number in range(count)]
    inputs = {"series": tokens(32, 48, 47), "note": tokens(32, 128, 768)}
    return trained(asked(32, inputs, tasks), infos, tasks)


# Panel -> its curves: name, goal of the slope, sizes, what is done at a size.
PANELS: dict[str, list[tuple[str, str, Sequence[int], Callable[[int], Callable[[], float]]]]] = {
    "subjects": [("prepare", "at most 1.05", (1000, 3000, 10_000, 30_000), prepared)],
    "modalities": [
        ("step, all combinations", "at most 2", range(1, 7), partial(of_modalities, cap=None)),
        ("step, sets of two at most", "at most 1.5", range(1, 7), partial(of_modalities, cap=2)),
    ],
    "hours of a series": [
        ("step", "at most 2", (24, 48, 96, 192, 384, 720), partial(of_hours, causal=False)),
        ("step, causal", "at most 2", (24, 48, 96, 192, 384, 720), partial(of_hours, causal=True)),
    ],
    "tasks": [("step", "at most 1", (1, 2, 5, 10, 20), of_tasks)],
}


def draw(axes: Axes, panel: str, curves: dict[str, dict[int, float]]) -> None:
    """A panel of log-log curves: by name, seconds at each size."""
    for name, costs in curves.items():
        axes.loglog(list(costs), list(costs.values()), "o-", label=name)
    sizes, seconds_ = list(costs), [cost for costs in curves.values() for cost in costs.values()]
    axes.set(xlabel=panel, ylabel="seconds", ylim=(min(seconds_) / 3, max(seconds_) * 4))
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.set_xticks([], minor=True)
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)


def main() -> None:
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(16, 4), layout="constrained")
    for axes, (panel, curves) in zip(panels, PANELS.items(), strict=True):
        shown = {}
        for name, goal, sizes, work in curves:
            costs = turns(sizes, work)
            middle = {size: median(found) for size, found in costs.items()}
            note = ", ".join(f"{size}: {cost:.3g} s" for size, cost in middle.items())
            each = [slope({s: c[turn] for s, c in costs.items()}) for turn in range(ROUNDS)]
            found = keep(f"{name} against {panel}, log-log slope", goal, each, "", note)
            shown[f"{name}: slope {found:.2f}"] = middle
        draw(axes, panel, shown)
    figure.savefig(HERE.parent / "docs" / "growth.png", dpi=110)


if __name__ == "__main__":
    main()
