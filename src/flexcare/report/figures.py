"""Curves as SVG text for the page: the same content gives the same bytes, nothing is loaded."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Points = Sequence[Sequence[float]]
Panels = Mapping[str, Mapping[str, Mapping[str, Points]]]
INK, QUIET, FAINT = "#22282c", "#6b7378", "#dcdcd5"
# In the order of the models: the network, then what it is compared with.
COLOURS = ("#0b6470", "#c2711a", "#8b9196", "#7a4f9a", "#4f7d3a", "#a33b4b")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.5, 1, 1.5)))
SETTINGS: Any = {
    "svg.hashsalt": "flexcare",
    "svg.fonttype": "none",  # text stays text: it takes the page's typeface and can be searched
    "font.size": 8.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
}


def colour(place: int) -> str:
    """Of the model at this place."""
    return COLOURS[place % len(COLOURS)]


def svg(figure: Figure, label: str) -> Markup:
    """The bare <svg> element, described by `label`, without date and without shared ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for noise in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r" font-family: [^;]*;"):
        text = re.sub(noise, "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    named = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(text.strip().replace("<svg", named, 1))


def _axes(width: float, height: float, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _square(axes: Axes, limit: float = 1.0) -> None:
    axes.set_xlim(-0.01 * limit, 1.02 * limit)
    axes.set_ylim(-0.01 * limit, 1.02 * limit)


def roc(curves: dict[str, Points]) -> Markup:
    """Sensitivity against 1 - specificity, by model."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _axes(3.3, 3.1, "1 − specificity", "sensitivity")
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.6)
        _curves(axes, curves)
        return svg(figure, "ROC curves")


def precision_recall(curves: dict[str, Points], prevalence: float) -> Markup:
    """Precision against recall, by model, drawn as the steps they are."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _axes(3.3, 3.1, "sensitivity (recall)", "precision (PPV)")
        axes.axhline(prevalence, color=QUIET, linewidth=0.6)
        _curves(axes, curves, "steps-pre")
        return svg(figure, "precision and recall curves")


def _curves(axes: Axes, curves: dict[str, Points], drawn: Any = "default") -> None:
    for place, points in reversed(list(enumerate(curves.values()))):
        style = DASHES[place % len(DASHES)]
        xs, ys = zip(*points, strict=True)
        axes.plot(xs, ys, color=colour(place), lw=1.5, linestyle=style, drawstyle=drawn)
    _square(axes)


def calibration(
    groups: dict[str, list[dict[str, Any]]], after: Sequence[dict[str, Any]] = ()
) -> Markup:
    """Observed frequency against prediction, with intervals; the diagonal is perfect.

    Args:
        after: of the first model once it is calibrated, drawn as rings.
    """
    every = [*(row for rows in groups.values() for row in rows), *after]
    highest = max((max(row["predicted"], row["high"]) for row in every), default=1.0)
    limit = min(1.0, max(0.05, highest * 1.05))
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _axes(3.3, 3.1, "predicted probability", "how often it happened")
        axes.plot([0, limit], [0, limit], color=QUIET, linewidth=0.6)
        for place, rows in reversed(list(enumerate(groups.values()))):
            x, y = [row["predicted"] for row in rows], [row["observed"] for row in rows]
            low, high = [row["low"] for row in rows], [row["high"] for row in rows]
            tint = colour(place)
            axes.vlines(x, low, high, color=tint, linewidth=0.8, alpha=0.6)
            style = DASHES[place % len(DASHES)]
            axes.plot(x, y, "o", color=tint, markersize=3.5, linewidth=1, linestyle=style)
        x, y = [row["predicted"] for row in after], [row["observed"] for row in after]
        axes.plot(x, y, "o-", color=colour(0), markersize=5, linewidth=0.6, markerfacecolor="white")
        _square(axes, limit)
        return svg(figure, "calibration")


def learning(rows: Sequence[tuple[float, float | None, float | None]]) -> Markup:
    """Training and tuning loss by epoch; a ring marks the lowest tuning loss."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _axes(2.6, 1.8, "epoch", "loss")
        train = [(epoch, loss) for epoch, loss, _ in rows if loss is not None]
        tuning = [(epoch, loss) for epoch, _, loss in rows if loss is not None]
        if train:
            axes.plot(
                *zip(*train, strict=True), color=COLOURS[2], linewidth=1.2, linestyle=DASHES[1]
            )
        if tuning:
            axes.plot(*zip(*tuning, strict=True), color=COLOURS[0], linewidth=1.4)
            best = min(tuning, key=lambda point: point[1])
            axes.plot(*best, "o", color=COLOURS[0], markersize=4.5, markerfacecolor="white")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return svg(figure, "training and tuning loss by epoch")


def taken_away(panels: Panels, labels: Mapping[str, str]) -> Markup:
    """A measure against the share of patients who lose a modality.

    Args:
        panels: by question, by modality, by how they are chosen (solid, then dashed): points.
        labels: by question, of the measure.
    """
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(2.9 * across, 2.1 * down + 0.4), layout="constrained")
        every = figure.subplots(down, across, squeeze=False).ravel()
        for axes, (name, lines) in zip(every, panels.items(), strict=False):
            axes.set_title(name, fontsize=8.5, loc="left")
            axes.set_ylabel(labels[name])
            axes.grid(color=FAINT, linewidth=0.5)
            for place, (modality, ways) in enumerate(lines.items()):
                for dash, (how, points) in zip(DASHES, ways.items(), strict=False):
                    xs, ys = zip(*points, strict=True)
                    label = f"{modality}, {how}"
                    axes.plot(xs, ys, color=colour(place), lw=1.4, linestyle=dash, label=label)
        for axes in every[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("share of the patients with it who lose it", fontsize=8.5, color=INK)
        handles, names = every[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=min(3, len(names)))
        return _svg(figure, "measures while modalities are taken away")


def companions(
    curves: Sequence[tuple[str, Points, str]], metric: str, guess: float | None
) -> Markup:
    """Tuning metric by epoch; (label, points, colour), named at the end of each line."""
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _axes(4.6, 3.0, "epoch", f"{metric} on the tuning split")
        if guess is not None:
            axes.axhline(guess, color=QUIET, linewidth=0.6)
        for place, (label, points, tint) in enumerate(curves):
            xs, ys = zip(*points, strict=True)
            axes.plot(xs, ys, color=tint, linewidth=2, linestyle=DASHES[place % len(DASHES)])
            # The first line's name goes above its end, the others' below.
            height = max(ys[len(ys) // 2 :]) if place == 0 else min(ys[len(ys) // 2 :])
            axes.annotate(
                label,
                (xs[-1], height),
                xytext=(0, 7 if place == 0 else -14),
                textcoords="offset points",
                ha="right",
                color=tint,
                fontweight="bold",
            )
        axes.margins(y=0.14)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return svg(figure, f"{metric} by epoch")
