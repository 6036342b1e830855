"""Puts the right half together: store -> run folder.

config.json       every setting, resolved        metrics.jsonl   one line an epoch
checkpoint/       to resume                      bundle/         the best model, to predict
task_bests/TASK/  the best model of each task, if asked for
"""

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flexcare.config import Config, check
from flexcare.errors import UserError, unknown
from flexcare.files import read_json, refuse_existing, write_json
from flexcare.loading.loader import Loader
from flexcare.models.flexcare import FlexCare
from flexcare.serving.bundle import save_bundle
from flexcare.store import Store
from flexcare.training.checkpoint import cut_lines, load_checkpoint, save_checkpoint
from flexcare.training.checkpoint import Progress as Place
from flexcare.training.loop import Hooks, Loop
from flexcare.training.schedules import Plan, one_hour

Rows = NDArray[np.int64]


def train(
    store: str | Path,
    out: str | Path,
    *,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a model on a store.

    Args:
        store: a folder that `prepare` wrote.
        out: the run folder; with `resume`, one that stands there.
        settings: what differs from the defaults and the store's preset (config.Config).
        resume: go on from the last checkpoint, with the run's own settings.

    Returns:
        The path of the run.

    Raises:
        UserError: bad input; nothing is left at `out` if training never began.
    """
    out, opened = Path(out), Store(Path(store))
    if resume:
        config = check(Config, _run_config(out)["config"], f"{out / 'config.json'}")
    else:
        refuse_existing(out)
        config = check(Config, settings or {}, "the settings of train")
    config = _resolved(config, opened)
    fabric = _fabric(config)
    torch.manual_seed(config.training.seed)
    model = FlexCare(
        config.model,
        [opened.modalities[name] for name in config.modalities or ()],
        [opened.tasks[name] for name in config.tasks or ()],
    )
    rows = {task: opened.rows(task, "train") for task in config.tasks or ()}
    _refuse_empty(rows)
    plan = Plan(opened, rows, config.training, fabric.world_size)
    tuning = {task: _tuning_rows(opened, task, config.training.seed) for task in rows}
    loader = Loader(opened, opened.manifest["scaling"], config.modalities)
    run = _Run(out, opened, config, fabric, model, quiet)
    loop = Loop(fabric, model, loader, plan, tuning, config, run.hooks())
    run.loop = loop
    if resume:
        loop.progress = load_checkpoint(out / "checkpoint", model, loop.optimizer)
    if fabric.is_global_zero:
        run.begin(loop.progress)
    with run.shown(len(plan.epoch(0))):
        loop.run()
    return out


def _resolved(config: Config, store: Store) -> Config:
    """The configuration with the store's tasks and modalities named."""
    for kind, asked, there in (
        ("task", config.tasks, store.tasks),
        ("modality", config.modalities, store.modalities),
    ):
        for name in asked or ():
            if name not in there:
                raise unknown(kind, name, there, f"Store {store.path} has these.")
    tasks = config.tasks or tuple(name for name in store.tasks if len(store.rows(name, "train")))
    modalities = config.modalities or tuple(store.modalities)
    return config.model_copy(update={"tasks": tasks, "modalities": modalities})


def _refuse_empty(rows: dict[str, Rows]) -> None:
    empty = [task for task, found in rows.items() if not len(found)]
    if empty or not rows:
        raise UserError(
            "nothing to learn from",
            found="no training sample of " + (", ".join(empty) or "any task"),
            expected="at least one of each task",
            do="Leave these tasks out with --tasks; `flexcare show STORE` counts the samples.",
        )


def _fabric(config: Config) -> Fabric:
    """One process, or those that torchrun started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        fabric = Fabric(accelerator="auto", devices=1, precision=config.training.precision)
    else:
        strategy = DDPStrategy(
            find_unused_parameters=True,
            process_group_backend="nccl" if torch.cuda.is_available() else "gloo",
        )
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        fabric = Fabric(
            accelerator="auto",
            devices=devices,
            num_nodes=world // devices,
            strategy=strategy,
            precision=config.training.precision,
        )
    fabric.launch()
    return fabric


def _tuning_rows(store: Store, task: str, seed: int) -> Rows:
    """Tuning samples; of an hourly task one hour a stay, the same in every epoch and run."""
    rows = store.rows(task, "tuning")
    return one_hour(store, rows, seed, -1) if store.tasks[task].hourly and len(rows) else rows


class _Run:
    """The run folder and what is shown while training; only the first process writes."""

    loop: Loop

    def __init__(
        self, out: Path, store: Store, config: Config, fabric: Fabric, model: FlexCare, quiet: bool
    ) -> None:
        self.out, self.store, self.config, self.fabric = out, store, config, fabric
        self.model, self.started = model, time.monotonic()
        self.console = Console(stderr=True, quiet=quiet or not fabric.is_global_zero)
        self.bar: tuple[Progress, Any] | None = None
        self.board: Any = None

    def hooks(self) -> Hooks:
        """Nothing is written by the other processes."""
        if self.fabric.is_global_zero:
            return Hooks(self.step, self.epoch, self.better, self.checkpoint)
        return Hooks(lambda p, n: None, lambda line: None, lambda name: None, lambda p: None)

    def begin(self, place: Place) -> None:
        """Write the configuration, or make room for the epochs that will be run again."""
        self.out.mkdir(parents=True, exist_ok=True)
        cut_lines(self.out / "metrics.jsonl", place.epoch)
        write_json(
            self.out / "config.json",
            {
                "artefact": "run",
                "store": str(self.store.path.resolve()),
                "store_content": self.store.manifest["content"]["samples.parquet"],
                "config": self.config.model_dump(mode="json"),
                "versions": versions(),
                "processes": self.fabric.world_size,
                "parameters": sum(p.numel() for p in self.model.parameters()),
            },
        )
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.out / "tensorboard"))  # type: ignore[no-untyped-call]
        except ImportError:
            self.board = None  # an extra

    @contextmanager
    def shown(self, steps: int) -> Iterator[None]:
        """A bar with the time left; on ctrl-C a checkpoint is kept."""
        total = steps * self.config.training.epochs
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=self.console) as bar:
            self.bar = (bar, bar.add_task("training", total=total))
            try:
                yield
            except KeyboardInterrupt:
                if self.fabric.is_global_zero and self.fabric.world_size == 1:
                    self.checkpoint(self.loop.progress)
                    self.console.print(f"stopped; go on with --resume --out {self.out}")
                raise
            finally:
                if self.board is not None:
                    self.board.close()

    def step(self, place: Place, steps: int) -> None:
        if self.bar:
            bar, task = self.bar
            done = place.epoch * steps + place.step
            bar.update(task, completed=done, total=steps * self.config.training.epochs)

    def epoch(self, line: dict[str, Any]) -> None:
        """One line of metrics.jsonl, one line on the screen."""
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        shown = "  ".join(
            f"{task} {seen['primary']:.3f}"
            for task, seen in line["tuning"].items()
            if seen["primary"] is not None
        )
        self.console.print(f"epoch {line['epoch'] + 1}: {shown}", highlight=False)
        if self.board is not None:
            for name, value in line["train"].items():
                self.board.add_scalar(f"train/{name}", value, line["step"])
            for task, seen in line["tuning"].items():
                for name, value in seen.items():
                    if value is not None:
                        self.board.add_scalar(f"tuning/{task}/{name}", value, line["step"])

    def better(self, name: str) -> None:
        """Keep the best model of all, and those of each task if asked for."""
        place = self.out / "bundle" if name == "mean" else self.out / "task_bests" / name
        if name == "mean" or self.config.training.keep_task_bests:
            manifest = self.store.manifest
            provenance = {
                "epoch": self.loop.progress.epoch,
                "best_of": name,
                "store": {k: manifest[k] for k in ("source", "preset", "settings", "source_files")},
                "config": self.config.model_dump(mode="json"),
                "versions": versions(),
            }
            save_bundle(place, self.model, manifest["scaling"], provenance)

    def checkpoint(self, place: Place) -> None:
        save_checkpoint(self.out / "checkpoint", self.model, self.loop.optimizer, place)


def _run_config(out: Path) -> dict[str, Any]:
    """config.json of a run folder."""
    found: dict[str, Any] = read_json(out / "config.json", "a run that `flexcare train` wrote")
    return found


def versions() -> dict[str, str]:
    """What the numbers of this run depend on."""
    packages = ("flexcare", "torch", "numpy", "lightning-fabric")
    out = {name: importlib.metadata.version(name) for name in packages}
    return out | {"python": sys.version.split()[0], "machine": platform.machine()}
