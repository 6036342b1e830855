"""Pictures: bare SVG with words in it, the same every time, and no state left behind."""

import matplotlib
import pytest

from flexcare.report import figures

CURVE = [[0.0, 0.0], [0.2, 0.7], [1.0, 1.0]]
GROUP = {"samples": 10, "predicted": 0.1, "observed": 0.2, "low": 0.1, "high": 0.3}
WAYS = {"film": {"at random": CURVE, "sicker first": CURVE}, "note": {"at random": CURVE}}
DRAWN = {
    "roc": lambda: figures.roc({"a": CURVE, "b": CURVE}),
    "pr": lambda: figures.precision_recall({"a": CURVE}, 0.1),
    "calibration": lambda: figures.calibration({"a": [GROUP]}),
    "calibrated": lambda: figures.calibration({"a": [GROUP]}, [GROUP]),
    "learning": lambda: figures.learning([(1, 0.9, 0.8), (2, None, 0.7), (3, 0.5, None)]),
    "companions": lambda: figures.companions([("both", CURVE, "#000000")], "AUROC", 0.5),
    "taken": lambda: figures.taken_away({"one": WAYS, "two": WAYS}, {"one": "AUROC", "two": "F1"}),
}


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_picture_is_bare_svg_without_date_or_ids_of_groups(name):
    text = DRAWN[name]()
    assert text.startswith('<svg role="img" aria-label="')
    assert text.endswith("</svg>")
    assert not any(word in text for word in ("metadata", "<g id", "<style", "?xml", "font-family"))
    assert text == DRAWN[name]()


def test_words_stay_words():
    assert ">sensitivity</text>" in figures.roc({"a": CURVE})


def test_settings_of_others_are_left_alone():
    before = matplotlib.rcParams["svg.fonttype"]
    figures.roc({"a": CURVE})
    assert matplotlib.rcParams["svg.fonttype"] == before


def test_rings_show_what_calibration_makes_of_the_first_model():
    plain, rings = DRAWN["calibration"](), DRAWN["calibrated"]()
    assert "#ffffff" in rings
    assert "#ffffff" not in plain


def test_empty_calibration_and_losses_do_not_crash():
    assert figures.calibration({}).startswith("<svg")
    assert figures.learning([]).startswith("<svg")
