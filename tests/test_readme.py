"""The README's tree is the tree."""

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
