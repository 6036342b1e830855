"""Trains, in whatever processes this is started in: [torchrun] train_worker.py JOBS

JOBS: a JSON list of {"store", "out", "settings", "resume", "exact", "stop_at"}. exact: in double
precision, so that sums may be taken in any order. stop_at: a step during which the last process
is asked to stop.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from flexcare.serving import bundle
from flexcare.training import checkpoint, folder
from flexcare.training.loop import Loop
from flexcare.training.run import train

step = Loop._step


def main(jobs: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    for job in jobs:
        torch.set_default_dtype(torch.float64 if job.get("exact") else torch.float32)
        with pytest.MonkeyPatch.context() as patch:
            if os.environ.get("RANK", "0") != "0":
                for module in (bundle, checkpoint, folder):
                    patch.setattr(module, "whole", refuse)
            if "stop_at" in job:
                patch.setattr(Loop, "_step", stopping(job["stop_at"]))
            run(job)


def refuse(path: Path) -> None:
    raise AssertionError(f"{path} is written by another process than the first")


def stopping(at: int) -> Any:
    """A step that is interrupted in the middle of its work."""

    def stepped(loop: Loop, *given: Any) -> None:
        step(loop, *given)
        if loop.progress.total == at and loop.fabric.global_rank == loop.fabric.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return stepped


def run(job: dict[str, Any]) -> None:
    keywords = {"settings": job.get("settings"), "resume": job.get("resume", False)}
    try:
        train(job["store"], job["out"], quiet=True, **keywords)
    except KeyboardInterrupt:
        assert "stop_at" in job
    else:
        assert "stop_at" not in job


if __name__ == "__main__":
    warnings.simplefilter("error")
    main(json.loads(Path(sys.argv[1]).read_text()))
