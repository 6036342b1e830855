"""Figures of an experiment."""

import re
from types import SimpleNamespace

import pytest

from flexcare.experiments.figures import draw
from flexcare.experiments.measures.trained import Found
from flexcare.experiments.plan import Drawing


def shown(*values):
    """What a training shows: a table of one row."""
    names = [f"column {number}" for number in range(len(values))]
    return [Found(shown={"t": {"rows": ["a row"], "columns": names, "values": [list(values)]}})]


def heat(**found):
    drawing = Drawing(kind="heat", of=("t",), title="a table")
    drawn = draw(drawing, SimpleNamespace(), "demo", found, {})
    return drawn and str(drawn)


def fills(svg):
    """The colours of the cells, in order; a cell without a number has none."""
    cells = re.findall(r'<path [^>]*clip-path="[^"]*" style="fill: (#\w+)"', svg)
    assert cells
    return cells


def test_two_arms_stand_beside_each_other_with_one_scale():
    drawn = heat(on=shown(0.2, 0.4), off=shown(0.4, 0.8))
    assert all(f">{arm}</text>" in drawn for arm in ("on", "off"))
    assert drawn.count(">a row</text>") == 1
    low, same, again, high = fills(drawn)
    assert same == again
    assert len({low, same, high}) == 3


def test_only_two_arms_are_drawn_and_only_those_that_show_it():
    drawn = heat(before=[Found()], on=shown(1), off=shown(1), third=shown(1))
    assert [f">{arm}</text>" in drawn for arm in ("before", "on", "off", "third")] == [
        False,
        True,
        True,
        False,
    ]
    assert len(fills(drawn)) == 2
    assert heat(before=[Found()]) is None


def test_a_single_table_has_no_arm_above_it():
    assert ">on</text>" not in heat(on=shown(1, 2))


@pytest.mark.parametrize("values", [(None, 0.3), (None, -0.3)])
def test_what_is_not_known_has_no_colour(values):
    assert len(set(fills(heat(on=shown(*values), off=shown(0.1, 0.2))))) == 3


def test_a_legend_beside_the_panels_names_every_arm_once():
    def run(value):
        return [
            {"step": step, "mean": value, "tuning": {"a": {"primary": value}}} for step in (1, 2)
        ]

    # The second arm has no number of the first panel's task.
    epochs = {"on": [run(0.5)], "off": [run(0.6)]}
    epochs["off"][0][0]["tuning"] = epochs["off"][0][1]["tuning"] = {}
    drawing = Drawing(kind="epochs", of=("a", "mean"), title="by step")
    drawn = str(draw(drawing, SimpleNamespace(), "demo", {}, epochs))
    assert drawn.startswith('<svg style="max-width: ')
    assert [drawn.count(f">{arm}</text>") for arm in epochs] == [1, 1]


def test_where_every_training_diverged_there_is_nothing_to_draw():
    drawing = Drawing(kind="epochs", of=("mean",), title="by step")
    assert draw(drawing, SimpleNamespace(), "demo", {"on": [Found(diverged=True)]}, {}) is None
