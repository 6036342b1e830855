"""Two sides measured in one run, by turns; the figures are kept in results.json.

A figure is the median of paired ratios; `low` and `high` are the smallest and the largest pair.
Machines are shared and noisy: a ratio of two neighbours in time says more than two times.
"""

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from flexcare.files import write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
ROUNDS = 5


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def process(command: Sequence[str | Path]) -> tuple[float, float]:
    """Wall seconds and peak resident GB of a whole process, which must succeed."""
    with tempfile.TemporaryFile() as complaints:
        started = time.perf_counter()
        child = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.DEVNULL, stderr=complaints
        )
        _, status, usage = os.wait4(child.pid, 0)
        cost = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            complaints.seek(0)
            sys.stderr.write(complaints.read().decode())
            raise SystemExit(f"{shlex.join(map(str, command))} ended with {child.returncode}")
    return cost, usage.ru_maxrss * 1024 / 1e9


def ratio(
    name: str,
    goal: str,
    above: Callable[[], float],
    below: Callable[[], float],
    rounds: int = ROUNDS,
    note: str = "",
) -> float:
    """Measure above() / below(), by turns, and keep the figure.

    Args:
        goal: "at least 5", "at most 1.5".
        above, below: each does its work once and gives its cost, in the same unit.
        note: what a reader should know, for instance the two costs in seconds.
    """
    pairs = []
    for number in range(rounds):
        first, second = (above, below) if number % 2 == 0 else (below, above)
        costs = {first: first()}
        costs[second] = second()
        pairs.append((costs[above], costs[below]))
    found = [a / b for a, b in pairs]
    costs_text = f"{median(a for a, _ in pairs):.4g} s / {median(b for _, b in pairs):.4g} s"
    return keep(name, goal, found, note=note or costs_text)


def keep(name: str, goal: str, found: Sequence[float], unit: str = "x", note: str = "") -> float:
    """Put a figure into results.json in place of an older one of that name, and print it."""
    value, (bound, limit) = median(found), goal.removeprefix("at ").split()
    met = {"least": value >= float(limit), "most": value <= float(limit)}[bound]
    entry = {
        "name": name,
        "ratio": round(value, 4),
        "unit": unit,
        "goal": goal,
        "met": met,
        "low": round(min(found), 4),
        "high": round(max(found), 4),
        "note": note,
        "command": f"python benchmarks/{Path(sys.argv[0]).name}",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    write_json(RESULTS, [one for one in old if one["name"] != name] + [entry])
    print(
        f"{name}: {value:.3g} {unit} (goal {goal}, {'met' if met else 'missed'};"
        f" {min(found):.3g} to {max(found):.3g}) {note}",
        flush=True,
    )
    return value


def machine() -> str:
    """Processor, cores and memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"
