"""The README's tree is the tree, its numbers are those of the results, and links lead somewhere."""

import json
import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_lead_to_what_exists(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    here = [one.partition("#")[0] for one in targets if "://" not in one]
    assert [one for one in here if not (page.parent / one).exists()] == []


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
    # "Ahead of the trees in each, beyond chance in the mean, and level with early fusion."
    assert values["mean over tasks", "flexcare minus trees", "own_metric"]["low"] > 0
    level = values["mean over tasks", "flexcare minus early_fusion", "own_metric"]
    assert level["low"] < 0 < level["high"]
    areas = ("average_precision", "auroc", "quadratic_kappa")
    less = {k: v for k, v in values.items() if k[1] == "flexcare minus trees" and k[2] in areas}
    assert all(one["value"] > 0 for one in less.values())
