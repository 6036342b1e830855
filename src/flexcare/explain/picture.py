"""An explanation as one picture: modalities, then the details of each."""

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flexcare.report.figures import QUIET, SETTINGS

SHOWN = 12  # bars, or variables of a series
SIZE = 5.2, 2.8  # inches, of a panel
ACROSS = 2
ADDS, TAKES, SHADES = "#b2182b", "#2166ac", "RdBu_r"  # the ends of the map


def picture(path: Path, title: str, part: dict[str, Any]) -> None:
    """Draw one task's part of an explanation as SVG; the same part gives the same bytes."""
    panels = {"what each modality adds": partial(_bars, values=list(part["modalities"].items()))}
    for name, own in part.get("details", {}).items():
        panels[name] = partial(DRAWN.get(own["kind"], _largest), own=own)
    down, across = -(-len(panels) // ACROSS), min(len(panels), ACROSS)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(SIZE[0] * across, SIZE[1] * down), layout="constrained")
        told = f"{title}, {part['answer']}: log-odds {part['log_odds']:+.2f}"
        figure.suptitle(told, parse_math=False)
        for place, (name, draw) in enumerate(panels.items()):
            axes = figure.add_subplot(down, across, place + 1)
            axes.set_title(name, parse_math=False)
            draw(axes)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _bars(axes: Axes, values: list[tuple[str, float]]) -> None:
    """Bars to the right add, bars to the left take away; the first is on top."""
    names, lengths = [name for name, _ in values], [value for _, value in values]
    tints = [ADDS if length > 0 else TAKES for length in lengths]
    axes.barh(range(len(names)), lengths, color=tints)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color=QUIET, linewidth=0.7)
    axes.set_xlabel("log-odds")


def _largest(axes: Axes, own: dict[str, Any]) -> None:
    """The largest contributions, in order."""
    ranked = sorted(own["details"], key=lambda one: -abs(one["contribution"]))[:SHOWN]
    named = [" ".join(filter(None, (d["what"], d["where"], d["value"]))) for d in ranked]
    _bars(axes, [(name, d["contribution"]) for name, d in zip(named, ranked, strict=True)])


def _series(axes: Axes, own: dict[str, Any]) -> None:
    """Variables by hours, those that add or take most on top."""
    values = _grid(own)  # (hours, variables)
    rows = np.argsort(-np.abs(values).sum(0), kind="stable")[:SHOWN]
    first = int(own["details"][0]["where"].split()[-1])
    _shades(axes, values[:, rows].T, (first, first + len(values), len(rows), 0))
    names = [own["details"][row]["what"] for row in rows]
    axes.set_yticks(np.arange(len(rows)) + 0.5, names, parse_math=False)
    axes.set_xlabel("hour")


def _film(axes: Axes, own: dict[str, Any]) -> None:
    """Patches where they lie."""
    _shades(axes, _grid(own), None)
    axes.set_axis_off()


def _wave(axes: Axes, own: dict[str, Any]) -> None:
    """Channels by patches of time."""
    values = _grid(own)
    _shades(axes, values, (0, values.shape[1], len(values), 0))
    leads = [detail["what"] for detail in own["details"][:: values.shape[1]]]
    axes.set_yticks(np.arange(len(leads)) + 0.5, leads, parse_math=False)
    axes.set_xlabel("patch")


def _grid(own: dict[str, Any]) -> Any:
    return np.array([detail["contribution"] for detail in own["details"]]).reshape(own["grid"])


def _shades(axes: Axes, values: Any, extent: tuple[float, float, float, float] | None) -> None:
    limit = float(np.abs(values).max()) or 1.0
    shown = axes.imshow(values, SHADES, extent=extent, aspect="auto", vmin=-limit, vmax=limit)
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.colorbar(shown, ax=axes, label="log-odds")


DRAWN = {"time_series": _series, "image": _film, "wave": _wave}  # by kind; of others the largest
