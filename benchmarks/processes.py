"""Training with two processes against one: the same store, the same steps, the same losses.

Above: one process on one core. Below: two processes by torchrun, a thread and a core each. The
cost is the epoch's wall time in metrics.jsonl (its steps and its look at the tuning split), so the
start of the processes is not in it. Nothing is drawn at random in the network, so that losses can
be compared; that is done after five steps: in single precision sums differ in the last digit, and
after some twenty steps a gate may choose another expert for it.
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

FEW, MANY, TUNING = 160, 640, 64  # stays: 5 and 20 steps
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
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "settings.toml").write_text(SETTINGS)
        stores = {
            stays: write_store(folder / f"store-{stays}", stays + TUNING, TUNING).path
            for stays in (FEW, MANY)
        }

        def epoch(stays: int, command: list[Path | str]) -> dict[str, Any]:
            out = folder / "run"
            shutil.rmtree(out, ignore_errors=True)
            settings = ["--config", folder / "settings.toml"]
            process([*command, "train", stores[stays], *settings, "--out", out])
            return json.loads((out / "metrics.jsonl").read_text())

        one, two = (numbers(epoch(FEW, command)["train"]) for command in (ONE, TWO))
        np.testing.assert_allclose(two, one, rtol=1e-5)
        ratio(
            "training, one process / two",
            "at least 1.6",
            lambda: float(epoch(MANY, ONE)["wall_s"]),
            lambda: float(epoch(MANY, TWO)["wall_s"]),
        )


if __name__ == "__main__":
    main()
