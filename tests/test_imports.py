"""Two halves, one door: imports point only backwards along the flow of the data."""

import ast
from pathlib import Path

import pytest

import flexcare

ROOT = Path(flexcare.__file__).parent
LEFT = (
    "sources", "cohort", "features", "tasks", "preparation", "storing", "embedding", "reuse",
    "store",
)  # fmt: skip
RIGHT = (
    "models",
    "training",
    "baselines",
    "evaluation",
    "analysis",
    "explain",
    "report",
    "serving",
    "loading",
)
RAW = ("sources", "cohort", "preparation", "storing", "embedding", "reuse")
# What each part may not import; parts that are not there yet are checked as soon as they are.
FORBIDDEN = (
    {part: {"torch", *RIGHT} for part in LEFT}
    | {part: set(RAW) for part in RIGHT}
    | {"models": {*RAW, "store", "loading", "tasks", "baselines"}}
    | {part: {"torch", *LEFT, *RIGHT} for part in ("errors", "files", "schema")}
    | {"config": {"torch", *LEFT, *RIGHT}, "batch": {*LEFT, *RIGHT}}
    | {"loading": {*RAW, "models", "training", "serving", "report", "evaluation", "baselines"}}
)
# A frozen text encoder of a user is a network: torch is imported when it is used, never before.
ALLOWED = {("features/text.py", "torch")}


def imports(path: Path) -> set[str]:
    """The parts of flexcare, and torch, that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides its part"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            found.add(parts[1] if parts[0] == "flexcare" and len(parts) > 1 else parts[0])
    return found


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_imports_point_backwards(part: str) -> None:
    folder = ROOT / part
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [ROOT / f"{part}.py"]
    wrong = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        if path.is_file()
        for name in imports(path) & FORBIDDEN[part]
    }
    assert wrong - ALLOWED == set()


def test_torch_is_imported_inside_a_function_only_in_the_left_half() -> None:
    for name, module in ALLOWED:
        tree = ast.parse((ROOT / name).read_text())
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert module not in {alias.name for node in top for alias in node.names}
