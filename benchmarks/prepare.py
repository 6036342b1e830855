"""Tables to a finished store, against DuckDB only parsing the same seven csv.gz files.

Above: `flexcare prepare`, seven tasks, all features, without films and notes. Below:
parse_tables.py. Whole processes, so that both sides count their start. Invented hospitals of two
sizes, and the MIMIC-IV demo where FLEXCARE_OPEN_DATA (or ../shared/data) has it. Peak memory is
that of the largest process of its kind.
"""

import os
import sys
import tempfile
from pathlib import Path

from measure import HERE, keep, process, ratio

from flexcare.files import whole
from flexcare.sources.synthetic import simulate

GOALS = {2_000: "at most 2", 20_000: "at most 1.5"}  # subjects -> ratio to parsing
OPEN_DATA = Path(os.environ.get("FLEXCARE_OPEN_DATA", HERE.parents[1] / "shared" / "data"))


def hospital(subjects: int) -> Path:
    """An invented hospital without films and notes, made once and kept."""
    folder = HERE / ".data" / f"hospital-{subjects}"
    if not folder.is_dir():
        with whole(folder) as new:
            simulate(new, subjects, 0, films=False, notes=False)
    return folder


def measure(name: str, folder: Path, goal: str) -> list[float]:
    """Keep the ratio and the peak of one hospital; give the seconds of each preparation."""
    seconds, peaks = [], []

    def prepared() -> float:
        with tempfile.TemporaryDirectory() as out:
            command = [Path(sys.executable).with_name("flexcare"), "prepare", "mimic-iv", folder]
            cost, peak = process([*command, "--out", Path(out) / "store"])
        seconds.append(cost)
        peaks.append(peak)
        return cost

    def parsed() -> float:
        return process([sys.executable, HERE / "parse_tables.py", folder])[0]

    ratio(f"prepare, {name}, against parsing", goal, prepared, parsed)
    keep(f"prepare, {name}, peak memory", "at most 2", peaks, unit="GB")
    return seconds


def main() -> None:
    for subjects, goal in GOALS.items():
        measure(f"{subjects:,} subjects", hospital(subjects), goal)
    demo = OPEN_DATA / "mimic_iv_demo"
    if not demo.is_dir():
        print(f"left out: no MIMIC-IV demo at {demo} (set FLEXCARE_OPEN_DATA)")
        return
    seconds = measure("the MIMIC-IV demo", demo, "at most 2")
    keep("prepare, the MIMIC-IV demo, imports included", "at most 3", seconds, unit="s")


if __name__ == "__main__":
    main()
