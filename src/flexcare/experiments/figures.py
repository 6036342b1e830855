"""Figures of an experiment as SVG text."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flexcare.experiments.measures.trained import Found
from flexcare.experiments.plan import AT, Drawing, Experiment, Size, at_value
from flexcare.experiments.verdict import Estimate, estimate
from flexcare.report.figures import DASHES, FAINT, QUIET, SETTINGS, colour, svg

LONGEST = 60  # letters of a row of a table
BESIDE = 2  # tables in a figure
LEGEND = 1.4  # inches
ACROSS = 3  # panels
INCH = 96  # pixels of CSS
ByArm = dict[str, list[Found]]
Epochs = dict[str, list[list[dict[str, Any]]]]


def draw(
    drawing: Drawing, plan: Experiment, size: Size, found: ByArm, epochs: Epochs
) -> Markup | None:
    """One figure of an experiment; None: there is nothing of it on this set of data.

    Args:
        found: by arm, of each seed; epochs: by arm and seed, the lines of metrics.jsonl.
    """
    known = {
        "dots": {name for runs in found.values() for run in runs for name in run.values},
        "epochs": {n for runs in epochs.values() for n in ("mean", *runs[0][0]["tuning"])},
        "heat": {name for runs in found.values() for name in runs[0].shown},
    }
    known["lines"] = known["dots"]
    names = [name for name in drawing.of if name in known[drawing.kind]]
    if not names:
        return None
    with matplotlib.rc_context(SETTINGS):
        if drawing.kind == "dots":
            figure = _dots(names, found)
        elif drawing.kind == "lines":
            figure = _lines(names, plan, size, found)
        elif drawing.kind == "epochs":
            figure = _epochs(names, epochs)
        else:
            tables = {arm: runs[0].shown.get(names[0]) for arm, runs in found.items()}
            figure = _heat({arm: table for arm, table in tables.items() if table})
        # A page is to shrink it, never to blow it up.
        most = Markup('<svg style="max-width: {:.0f}px"').format(figure.get_figwidth() * INCH)
        return svg(figure, drawing.title).replace("<svg", most, 1)


def _panels(names: Sequence[Any], height: float, legend: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Axes beside each other, with some inches for a legend."""
    across = min(len(names), ACROSS)
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.1 * across + legend, height * down), layout="constrained")
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for one in axes[len(names) :]:
        one.remove()
    axes = axes[: len(names)]
    for one in axes:
        one.grid(color=FAINT, linewidth=0.5)
        one.set_axisbelow(True)
    return figure, axes


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Names of all lines, beside the panels."""
    told = [axes.get_legend_handles_labels() for axes in panels]
    by_name = {name: line for lines, names in told for line, name in zip(lines, names, strict=True)}
    figure.legend(by_name.values(), by_name, loc="outside right upper", fontsize=7)


def _dots(measures: Sequence[str], found: ByArm) -> Figure:
    """Arms below each other: every seed a small dot, the mean with its interval."""
    figure, panels = _panels(measures, 0.8 + 0.34 * len(found))
    for panel, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
        for place, runs in enumerate(found.values()):
            told = estimate([run.values.get(measure) for run in runs])
            if told.value is None:
                continue
            axes.plot(told.seeds, [place] * len(told.seeds), "o", color=QUIET, markersize=2)
            axes.plot(told.value, place, "o", color=colour(0), markersize=5)
            if told.low is not None and told.high is not None:
                axes.hlines(place, told.low, told.high, color=colour(0), linewidth=1.4)
        axes.set_yticks(range(len(found)), [""] * len(found) if panel % ACROSS else list(found))
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel(_label(measure))
    return figure


def _lines(measures: Sequence[str], plan: Experiment, size: Size, found: ByArm) -> Figure:
    """Along the sweep, a line an arm."""
    assert plan.sweep is not None
    points = plan.points(size)
    # A logarithm has no place for 0: places are then numbered.
    even = plan.sweep.log and 0 in points
    xs = list(range(len(points))) if even else [float(point) for point in points]
    figure, panels = _panels(measures, 2.8, LEGEND)
    for axes, measure in zip(panels, measures, strict=True):
        for number, arm in enumerate(plan.arms):
            told = [
                estimate([run.values.get(measure) for run in found[at_value(arm, point)]])
                for point in points
            ]
            _line(axes, xs, told, number, arm)
        if even:
            axes.set_xticks(xs, [str(point) for point in points])
        elif plan.sweep.log:
            axes.set_xscale("log")
        axes.set_xlabel(plan.sweep.axis)
        axes.set_ylabel(_label(measure))
    _legend(figure, panels)
    return figure


def _line(
    axes: Axes, xs: Sequence[float], told: Sequence[Estimate], number: int, label: str
) -> None:
    """A line with the band of its interval."""
    known = [(x, one.value) for x, one in zip(xs, told, strict=True) if one.value is not None]
    style = DASHES[number % len(DASHES)]
    if known:
        axes.plot(*zip(*known, strict=True), "o", color=colour(number), markersize=3)
        axes.plot(
            *zip(*known, strict=True), color=colour(number), linestyle=style, lw=1.5, label=label
        )
    banded = [
        (x, one.low, one.high)
        for x, one in zip(xs, told, strict=True)
        if one.low is not None and one.high is not None
    ]
    if banded:
        x, low, high = zip(*banded, strict=True)
        axes.fill_between(x, low, high, color=colour(number), alpha=0.12, linewidth=0)


def _epochs(tasks: Sequence[str], epochs: Epochs) -> Figure:
    """The metric on the tuning split by optimiser step: mean over seeds, a line an arm; a panel a
    task and value of the sweep.
    """
    found: dict[str, Epochs] = {}  # by value and arm
    for name, lines in epochs.items():
        arm, _, value = name.partition(AT)
        found.setdefault(value, {})[arm] = lines
    names = [(task, value) for task in tasks for value in found]
    figure, panels = _panels(names, 2.8, LEGEND)
    for axes, (task, value) in zip(panels, names, strict=True):
        for number, (arm, seeds) in enumerate(found[value].items()):
            length = min(map(len, seeds))
            steps = [line["step"] for line in seeds[0][:length]]
            reached = [[_reached(line, task) for line in lines[:length]] for lines in seeds]
            values = np.ma.masked_invalid(np.array(reached, dtype=float))
            if values.count():
                style = DASHES[number % len(DASHES)]
                axes.plot(steps, values.mean(0), color=colour(number), ls=style, lw=1.5, label=arm)
        axes.set_xlabel("steps")
        axes.set_ylabel(f"{_label(task)}: own metric, tuning split")
        axes.set_title(f"at {value}" if value else "", fontsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    _legend(figure, panels)
    return figure


def _reached(line: dict[str, Any], task: str) -> float | None:
    """What an epoch reached on a task, or in the mean over tasks."""
    told = {name: one.get("primary") for name, one in line["tuning"].items()}
    value: float | None = ({"mean": line["mean"]} | told).get(task)
    return value


def _heat(tables: dict[str, dict[str, Any]]) -> Figure:
    """Tables of the first two arms that show one, beside each other with one scale: darker where
    more; of numbers of both signs, blue above 0, red below; white where there is none.
    """
    arms = list(tables)[:BESIDE]
    values = [np.array(tables[arm]["values"], dtype=float) for arm in arms]
    every = np.concatenate([one.ravel() for one in values])
    most = max(np.nanmax(np.abs(every), initial=0), 1e-9)
    colours, least = ("RdBu", -most) if np.nanmin(every, initial=0) < 0 else ("GnBu", 0.0)
    width = 4.8 + 0.3 * sum(one.shape[1] for one in values)
    height = 1.2 + 0.17 * max(map(len, values))
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(arms)))
    for number, (axes, arm, one) in enumerate(zip(panels, arms, values, strict=True)):
        mesh = axes.pcolormesh(one, cmap=colours, vmin=least, vmax=most)
        columns, rows = tables[arm]["columns"], tables[arm]["rows"]
        axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90, fontsize=6)
        told = number == 0 or rows != tables[arms[0]]["rows"]
        rows = [row if len(row) <= LONGEST else f"{row[: LONGEST - 1]}…" for row in rows]
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows if told else [""] * len(rows), fontsize=6)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        if len(tables) > 1:
            axes.set_title(arm, fontsize=7)
    scale = figure.colorbar(mesh, ax=list(panels), aspect=30, pad=0.02)
    scale.ax.tick_params(labelsize=6, length=0)
    return figure


def _label(measure: str) -> str:
    return measure.replace("_", " ").replace("/", ": ")
