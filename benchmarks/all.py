"""Run every benchmark, one after the other, and write docs/performance.md. About 40 minutes."""

import json
import platform
import subprocess
import sys
from importlib.metadata import version

from measure import HERE, RESULTS, machine

from flexcare.files import whole

# In the order of a patient's data.
SCRIPTS = (
    "prepare", "films", "notes", "reuse", "step", "loading", "hours", "patients", "serving",
    "evaluation", "processes", "growth",
)  # fmt: skip
PAGE = HERE.parent / "docs" / "performance.md"
HEAD = """# Performance

Written by `make bench` from `benchmarks/results.json`. A ratio (x) has two sides, run by turns in
one go on the same machine; the figure is the median of at least five pairs unless its note says
less, the range their smallest and largest. `docs/scale.md` extrapolates preparation to the whole of
MIMIC-IV; `docs/decisions.md` says what was tried and left out.

Machine: {machine}. Python {python}, torch {torch}, DuckDB {duckdb}.

![How costs grow](growth.png)

| what | figure | goal | | range | seconds of both sides, or a note | command |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """docs/performance.md."""
    head = HEAD.format(
        machine=machine(),
        python=platform.python_version(),
        torch=version("torch"),
        duckdb=version("duckdb"),
    )
    rows = [
        f"| {one['name']} | {one['ratio']:.3g} {one['unit']} | {one['goal']} |"
        f" {'met' if one['met'] else '**missed**'} | {one['low']:.3g} to {one['high']:.3g} |"
        f" {one['note']} | `{one['command']}` |"
        for one in json.loads(RESULTS.read_text())
    ]
    return head + "\n".join(rows) + "\n"


def main() -> None:
    """The scripts named on the command line, or all."""
    if not sys.argv[1:]:
        RESULTS.unlink(missing_ok=True)
    for name in sys.argv[1:] or SCRIPTS:
        subprocess.run([sys.executable, HERE / f"{name}.py"], check=True)
    with whole(PAGE) as temporary:
        temporary.write_text(page())


if __name__ == "__main__":
    main()
