"""What more patients bring: metrics by the share of the training patients, as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from flexcare.evaluation.metrics import METRICS
from flexcare.files import whole
from flexcare.report.figures import DASHES, FAINT, SETTINGS, colour
from flexcare.reproduce.protocol import Protocol, given

FEWEST = 2  # points of a curve
PANELS = 4  # metrics shown
Curves = dict[str, list[tuple[float, str]]]


def growth_curves(protocol: Protocol) -> Curves:
    """By model the shares of training patients that it is tried with, and the models' names.

    Models are the same curve if nothing but their `train_share` differs.
    """
    same: dict[str, list[tuple[float, str]]] = {}
    for name, model in protocol.models.items():
        rest = given(model)
        preparation = dict(rest.pop("preparation", {}))
        share = preparation.pop("train_share", 1.0)
        key = json.dumps([rest, preparation], sort_keys=True)
        same.setdefault(key, []).append((share, name))
    curves = [sorted(points) for points in same.values()]
    return {points[-1][1]: points for points in curves if len(dict(points)) >= FEWEST}


def draw_growth(curves: Curves, entries: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a task and metric, a line a model with the band of its interval (PNG).

    Args:
        entries: objects of results.json.
    """
    found = {(one["task"], one["metric"], one["model"]): one for one in entries}
    names = {name for points in curves.values() for _, name in points}
    told = [(t, m) for t, m, name in found if name in names and m in METRICS]
    panels = list(dict.fromkeys(told))[:PANELS]
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(3.2 * len(panels), 2.8), layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (task, metric) in zip(row, panels, strict=True):
            for number, (model, points) in enumerate(curves.items()):
                ones = [(share, found.get((task, metric, name), {})) for share, name in points]
                known = [(share, one) for share, one in ones if one.get("value") is not None]
                shares = [100 * share for share, _ in known]
                low, value, high = (
                    [one[key] for _, one in known] for key in ("low", "value", "high")
                )
                look = {"color": colour(number), "linestyle": DASHES[number % len(DASHES)]}
                axes.plot(shares, value, marker="o", markersize=3, label=model, **look)
                if None not in low:
                    axes.fill_between(shares, low, high, color=colour(number), alpha=0.12, lw=0)
            axes.set_xscale("log")
            every = sorted({100 * share for points in curves.values() for share, _ in points})
            axes.set_xticks(every, [f"{share:g}" for share in every])
            axes.minorticks_off()
            axes.set_xlabel("training patients, %")
            axes.set_ylabel(f"{task}: {METRICS[metric].label}")
            axes.grid(color=FAINT, linewidth=0.5)
        row[0].legend(fontsize=7)
        with whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=130)
