"""The README's tree is the tree, and its numbers are those of the results."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "flexcare"


def tree() -> list[str]:
    """The lines of the README's file tree."""
    text = (ROOT / "README.md").read_text()
    found = re.search(r"## Where things are\n```\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1).splitlines()


def named() -> list[Path]:
    """Every path that the tree names."""
    out = []
    for line in tree():
        inside = line.startswith("  ")
        words = line.split()
        names = words if all(word.endswith(".py") for word in words) else words[:1]
        out += [(PACKAGE if inside else ROOT) / name for name in names]
    return out


def test_readme_names_only_what_exists():
    assert [path for path in named() if not path.exists()] == []


def test_readme_tree_names_every_module():
    there = {p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert {p.name for p in there - set(named())} == {"__init__.py"}


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_readme_repeats_the_results():
    every = json.loads((ROOT / "docs" / "results.json").read_text())
    found = [one for one in every if one["protocol"] == "physionet2012"]
    values = {(one["task"], one["model"], one["metric"]): one for one in found}
    text = " ".join((ROOT / "README.md").read_text().split())
    for metric, name in (("auroc", "AUROC"), ("average_precision", "average precision")):
        own, trees = (values["p2012_death", n, metric]["value"] for n in ("flexcare", "trees"))
        assert f"{name} {own:.3f} against {trees:.3f}" in text
    assert values["p2012_death", "flexcare minus trees", "average_precision"]["low"] > 0
    # "Ahead of every baseline in the mean, and of the trees in each."
    for (task, model, metric), one in values.items():
        of_mean = (task, metric) == ("mean over tasks", "own_metric")
        if of_mean and model.startswith("flexcare minus ") and "flexcare_" not in model:
            assert one["value"] > 0, model
        areas = ("average_precision", "auroc", "quadratic_kappa")
        assert not (model == "flexcare minus trees" and metric in areas and one["value"] <= 0), task
