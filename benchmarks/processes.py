"""Training with two processes against one: the same store, the same steps, the same losses.

Above: one process on one core. Below: two processes by torchrun, a thread and a core each. The
cost is the epoch's wall time in metrics.jsonl (its steps and its look at the tuning split), so the
start of the processes is not in it. Nothing is drawn at random in the network, or the losses could
not be compared.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from measure import process, ratio
from stored import write_store

TRAIN, TUNING = 640, 64
SETTINGS = """
[model]
dropout = 0.0
gate_noise = false
[training]
epochs = 1
schedule = "parallel"
"""
BIN = Path(sys.executable).parent
ONE = ["taskset", "-c", "0", BIN / "flexcare"]
TWO = [BIN / "torchrun", "--standalone", "--no-python", "--nproc-per-node", "2", BIN / "flexcare"]


def numbers(value: Any) -> list[float]:
    """All numbers in a line of metrics, in order."""
    if isinstance(value, dict):
        return [number for name in sorted(value) for number in numbers(value[name])]
    return [float(value)] if isinstance(value, int | float) else []


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    losses = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        store = write_store(folder / "store", TRAIN + TUNING, TUNING).path
        (folder / "settings.toml").write_text(SETTINGS)

        def epoch(kind: str, command: list[Path | str]) -> float:
            out = folder / kind
            shutil.rmtree(out, ignore_errors=True)
            rest = ["train", store, "--config", folder / "settings.toml", "--out", out]
            process([*command, *rest])
            line = json.loads((out / "metrics.jsonl").read_text())
            losses[kind] = numbers(line["train"])
            return float(line["wall_s"])

        ratio(
            "two processes",
            "at least 1.6",
            lambda: epoch("one", ONE),
            lambda: epoch("two", TWO),
        )
        np.testing.assert_allclose(losses["two"], losses["one"], rtol=1e-4)


if __name__ == "__main__":
    main()
