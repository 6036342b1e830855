"""The run folder, and what is shown while training; only the first process writes.

config.json              every setting, resolved      metrics.jsonl   one line an epoch
checkpoint.safetensors   to resume                    bundle/         the best model, to predict
gradients.jsonl          cosines between the tasks' gradients, if measured
task_bests/TASK/         the best model of each task, if asked for
tensorboard/             the same metrics, if TensorBoard is installed
"""

import importlib.metadata
import json
import platform
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flexcare.files import whole, write_json
from flexcare.serving.bundle import save_bundle
from flexcare.store import Store
from flexcare.training.checkpoint import Progress as Place
from flexcare.training.checkpoint import save_checkpoint
from flexcare.training.loop import Hooks, Loop

CHECKPOINT = "checkpoint.safetensors"


class RunFolder:
    """What a loop leaves behind.

    All of it follows from the checkpoint, which is written first: a run that was killed between
    two writes is put right when it is resumed.
    """

    def __init__(
        self, out: Path, store: Store, loop: Loop, quiet: bool, extends: dict[str, Any] | None
    ) -> None:
        self.out, self.store, self.loop, self.config = out, store, loop, loop.config
        self.extends = {"extends": extends} if extends else {}
        self.first, self.stopping = loop.fabric.is_global_zero, False
        self.board: Any = None  # of TensorBoard
        self.console = Console(stderr=True, quiet=quiet or not self.first)
        columns = (
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console)
        self.task = self.bar.add_task("training", total=None)

    def hooks(self) -> Hooks:
        if self.first:
            return Hooks(self.step, self.checkpoint, self.epoch, lambda: self.stopping)
        return Hooks(lambda p, n: None, lambda p: None, lambda p: None, lambda: self.stopping)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The run folder begun, a bar with the time left, and an ear for ctrl-C."""
        try:
            if self.first:
                self.begin(self.loop.progress)
            with self.bar, self.listening():
                yield
            for name, text in self.loop.progress.lines[-1].get("warnings", {}).items():
                if name != "mask":  # which is said at once
                    self.say(f"warning: {text}")
            if self.loop.progress.epoch < self.config.training.epochs:
                self.say(f"no better mean for {self.config.training.patience} epochs: stopped")
        except KeyboardInterrupt:
            self.say(f"stopped; go on with --resume --out {self.out}")
            raise
        finally:
            if self.board is not None:
                self.board.close()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM wait for the end of the step; a second ctrl-C does not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {n: signal.signal(n, hear) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    def begin(self, place: Place) -> None:
        """Write the configuration and what follows from the place that the run stands at."""
        self.out.mkdir(parents=True, exist_ok=True)
        for left_over in [*self.out.rglob(".*.partial"), *self.out.rglob(".*.old")]:
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        write_json(
            self.out / "config.json",
            {
                "artefact": "run",
                "store": str(self.store.path.resolve()),
                "store_content": self.store.manifest["content"]["samples.parquet"],
                "config": self.config.model_dump(mode="json"),
                "versions": versions(),
                "processes": self.loop.fabric.world_size,
                "parameters": sum(p.numel() for p in self.loop.model.parameters()),
            }
            | self.extends,
        )
        self.checkpoint(place)
        shutil.rmtree(self.out / "tensorboard", ignore_errors=True)
        with suppress(ImportError):  # an extra
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.out / "tensorboard"))
        self.publish(place)
        for line in place.lines:
            self.plot(line)
        passes = (f"{task} {count:.3g}" for task, count in self.loop.plan.passes().items())
        self.say("passes over the samples in an epoch: " + ", ".join(passes))

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def step(self, place: Place, steps: int) -> None:
        """Move the bar."""
        done, total = place.epoch * steps + place.step, steps * self.config.training.epochs
        self.bar.update(self.task, completed=done, total=total)

    def checkpoint(self, place: Place) -> None:
        loop = self.loop
        save_checkpoint(
            self.out / CHECKPOINT, loop.model, loop.optimizer, place, loop.averaged, loop.gradients
        )

    def epoch(self, place: Place) -> None:
        """Publish an epoch, and say what it reached."""
        self.publish(place)
        line, epochs = place.lines[-1], self.config.training.epochs
        self.plot(line)
        seen = line["tuning"].items()
        left = timedelta(seconds=round(line["wall_s"] * (epochs - place.epoch)))
        reached = [f"{task} {one['primary']:.3f}" for task, one in seen if "reason" not in one]
        self.say(f"epoch {place.epoch} of {epochs}, {left} left: " + "  ".join(reached))
        if "mask" in line["warnings"]:
            self.say(f"warning: {line['warnings']['mask']}")
        if place.epoch == 1:
            for task, one in seen:
                if "reason" in one:
                    self.say(f"{task} has no metric on the tuning split: {one['reason']}")
            if line["mean"] is None:
                self.say("no task has one: the last model is kept as the best")

    def publish(self, place: Place) -> None:
        """The metrics and, where an epoch has just ended, the models it is the best of."""
        self.write("metrics.jsonl", place.lines)
        if place.measured:
            self.write("gradients.jsonl", place.measured)
        if place.step or not place.lines:
            return
        if place.best_epoch == place.lines[-1]["epoch"]:
            self.keep(self.out / "bundle", "the mean over tasks", place)
        for task in place.improved if self.config.training.keep_task_bests else ():
            self.keep(self.out / "task_bests" / task, task, place)

    def write(self, name: str, lines: list[dict[str, Any]]) -> None:
        with whole(self.out / name) as temporary:
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
            temporary.write_text(text)

    def keep(self, folder: Path, best_of: str, place: Place) -> None:
        """Write the model as it is judged now as a bundle."""
        manifest = self.store.manifest
        provenance = {
            "epoch": place.lines[-1]["epoch"],
            "best_of": best_of,
            "store": {k: manifest[k] for k in ("source", "preset", "settings", "source_files")},
            "config": self.config.model_dump(mode="json"),
            "versions": versions(),
        } | self.extends
        save_bundle(folder, self.loop.judged, self.loop.loader.scaling, provenance)

    def plot(self, line: dict[str, Any]) -> None:
        """One line of metrics for TensorBoard."""
        if self.board is None:
            return
        values = {f"train/{name}": value for name, value in line["train"].items()}
        for task, seen in line["tuning"].items():
            values |= {f"tuning/{task}/{name}": seen[name] for name in ("loss", "primary")}
        for name, value in values.items():
            if value is not None:
                self.board.add_scalar(name, value, line["step"])


def versions() -> dict[str, str]:
    """What the numbers of this run depend on."""
    packages = ("flexcare", "torch", "numpy", "lightning-fabric")
    out = {name: importlib.metadata.version(name) for name in packages}
    return out | {"python": sys.version.split()[0], "machine": platform.machine()}
