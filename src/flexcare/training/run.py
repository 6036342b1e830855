"""Puts the right half together: store -> run folder."""

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from flexcare.baselines.networks import NETWORKS
from flexcare.config import Config, TrainingConfig, check, over
from flexcare.errors import UserError, unknown
from flexcare.files import read_json, refuse_existing
from flexcare.loading.loader import Loader
from flexcare.models.network import Network
from flexcare.presets import read_preset
from flexcare.store import HAS, Store
from flexcare.training.checkpoint import load_checkpoint
from flexcare.training.folder import CHECKPOINT, RunFolder
from flexcare.training.labels import labelled
from flexcare.training.loop import Loop
from flexcare.training.schedules import Plan, Rows, one_hour


def train(
    store: str | Path,
    out: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    settings: dict[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Path:
    """Train a model on a store.

    Args:
        store: a folder that `prepare` wrote.
        out: the run folder; with `resume`, one that stands there.
        tasks, modalities: None: all of the store.
        epochs, seed: of the training.
        settings: what else differs from the defaults and the store's preset (config.Config);
            with `resume`, nothing but training.epochs.
        resume: go on from the last checkpoint, with the run's own settings.

    Returns:
        The path of the run.

    Raises:
        UserError: bad input (nothing is left at `out` if training never began), or the training
            diverged.
        KeyboardInterrupt: ctrl-C or SIGTERM, after a checkpoint.
    """
    out, opened = Path(out), Store(Path(store))
    asked = _asked(settings or {}, tasks, modalities, {"epochs": epochs, "seed": seed})
    if not resume:
        refuse_existing(out)
    config = resumed(out, opened, asked) if resume else resolved(opened, asked)
    learn(assembled(opened, config), out, resume=resume, quiet=quiet)
    return out


def assembled(
    store: Store,
    config: Config,
    model: Network | None = None,
    scaling: dict[str, Any] | None = None,
    with_any: Collection[str] = (),
) -> Loop:
    """A loop at its beginning.

    Args:
        config: as `resolved` gives it.
        model: None: a new one.
        scaling: of the store's numbers; None: its own.
        with_any: only samples with one of these modalities are learned from; (): all.
    """
    tasks = config.tasks or ()
    rows = {task: having(store, store.rows(task, "train"), with_any) for task in tasks}
    rows = labelled(store, rows, config.training)
    _refuse_empty(rows)
    tuning = {task: _tuning_rows(store, task, config.training, with_any) for task in tasks}
    fabric = _fabric(config)
    if model is None:
        torch.manual_seed(config.training.seed)
        model = NETWORKS[config.network](
            config.model,
            [store.modalities[name] for name in config.modalities or ()],
            [store.tasks[name] for name in tasks],
        )
    plan = Plan(store, rows, config.training)
    own = store.manifest["scaling"] if scaling is None else scaling
    loader = Loader(store, own, config.modalities, config.model)
    return Loop(fabric, model, loader, plan, tuning, config)


def learn(
    loop: Loop,
    out: Path,
    *,
    held: Mapping[str, Tensor] | None = None,
    extends: dict[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> None:
    """Train, and leave a run.

    Args:
        held: by parameter its first rows, which stay as they are.
        extends: what the network was before, for those who read the run.

    Raises:
        UserError, KeyboardInterrupt: as `train`.
    """
    _hold(loop.optimizer, loop.model, held or {})
    if resume:
        loop.progress = load_checkpoint(
            out / CHECKPOINT, loop.model, loop.optimizer, loop.averaged, loop.gradients
        )
    folder = RunFolder(out, loop.loader.store, loop, quiet, extends)
    with folder.shown():
        loop.run(folder.hooks())


def having(store: Store, rows: Rows, modalities: Collection[str]) -> Rows:
    """Those of the samples that have one of the modalities; all where none is named."""
    if not modalities:
        return rows
    has = [store.samples[HAS + name].to_numpy()[rows] for name in modalities]
    return rows[np.any(has, axis=0)]


def _hold(optimizer: Optimizer, model: Network, held: Mapping[str, Tensor]) -> None:
    """Put the first rows of parameters back after each step, whatever the optimizer does."""

    def put_back(*_: object) -> None:
        with torch.no_grad():
            for name, first in held.items():
                model.get_parameter(name)[: len(first)].copy_(first)

    if held:
        optimizer.register_step_post_hook(put_back)


def _asked(
    settings: dict[str, Any],
    tasks: Sequence[str] | None,
    modalities: Sequence[str] | None,
    training: dict[str, int | None],
) -> dict[str, Any]:
    """The settings, checked, with what the arguments say over them."""
    check(Config, settings, "the settings of train")
    above: dict[str, Any] = {}
    for name, values in (("tasks", tasks), ("modalities", modalities)):
        if values is not None:
            if not values:
                raise UserError(f"no {name} given", expected="at least one name, or nothing at all")
            above[name] = list(values)
    given = {name: value for name, value in training.items() if value is not None}
    return over(settings, above | ({"training": given} if given else {}))


def _preset(store: Store) -> dict[str, Any]:
    """What the store's preset says about training."""
    training: dict[str, Any] = read_preset(store.manifest["preset"]).get("training", {})
    return training


def resolved(store: Store, settings: dict[str, Any]) -> Config:
    """The configuration of a new run, with the store's tasks and modalities named."""
    config = check(Config, over(_preset(store), settings), "the settings of train")
    if config.network not in NETWORKS:
        raise unknown("network", config.network, NETWORKS)
    weights = config.objective.task_weights
    for kind, asked, there in (
        ("task", config.tasks, store.tasks),
        ("task in objective.task_weights:", weights, store.tasks),
        ("modality", config.modalities, store.modalities),
    ):
        for name in asked or ():
            if name not in there:
                raise unknown(kind, name, there, f"Store {store.path} has these.")
    tasks = config.tasks or tuple(name for name in store.tasks if len(store.rows(name, "train")))
    modalities = config.modalities or tuple(store.modalities)
    # One file of settings serves runs with fewer tasks: weights of others do not matter.
    objective = config.objective.model_copy(
        update={"task_weights": {name: weights[name] for name in weights if name in tasks}}
    )
    return config.model_copy(
        update={"tasks": tasks, "modalities": modalities, "objective": objective}
    )


def resumed(
    out: Path, store: Store, settings: dict[str, Any], extends: dict[str, Any] | None = None
) -> Config:
    """The configuration of the run at `out`, perhaps with more epochs.

    Raises:
        UserError: no run, or one that another command began.
    """
    found = read_json(out / "config.json", "a run that `flexcare train` wrote")
    if not isinstance(found, dict) or found.get("artefact") != "run":
        raise UserError(f"{out} is not a run", expected="a folder that `flexcare train` wrote")
    if found["store_content"] != store.manifest["content"]["samples.parquet"]:
        raise UserError(
            f"run {out} was not trained on store {store.path}",
            found="other samples",
            expected=f"the store that was at {found['store']}",
            do="Resume with that store, or start a new run.",
        )
    if found.get("extends") != extends:
        raise UserError(
            f"run {out} was not begun so",
            found=_begun(found.get("extends")),
            expected="the command, the bundle and the names that it was begun with",
        )
    check(Config, settings, "the settings of train")
    others = [key for key in settings if key != "training"]
    others += [f"training.{key}" for key in settings.get("training", {}) if key != "epochs"]
    if others:
        raise UserError(
            "a run is resumed with the settings it was started with",
            found=", ".join(others),
            expected="no setting but training.epochs",
            do="Leave these out, or start a new run with another --out.",
        )
    return check(Config, over(found["config"], settings), f"{out / 'config.json'}")


def _begun(extends: dict[str, Any] | None) -> str:
    """What began a run, in words."""
    if extends is None:
        return "a run of `flexcare train`"
    what = ", ".join(extends["tasks"] + extends["modalities"])
    return f"an extension by {what}{'' if extends['frozen'] else ', unfrozen'}"


def _refuse_empty(rows: dict[str, Rows]) -> None:
    empty = [task for task, found in rows.items() if not len(found)]
    if empty or not rows:
        raise UserError(
            "nothing to learn from",
            found="no training sample of " + (", ".join(empty) or "any task"),
            expected="at least one of each task",
            do="Leave these tasks out with --tasks; `flexcare show STORE` counts the samples.",
        )


class _Together(DDPStrategy):
    """Processes whose gradients the loop adds up (flexcare.processes).

    The wrapper that this strategy would put around the model averages gradients, and has to guess
    what a step leaves out.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


def _fabric(config: Config) -> Fabric:
    """This process alone, or those that torchrun started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    fabric = Fabric(
        accelerator="auto",
        devices=here,
        num_nodes=world // here,
        strategy=_Together() if world > 1 else "auto",
        # Named, or Fabric would look around for a cluster's job and warn of how it was started.
        plugins=TorchElasticEnvironment() if world > 1 else LightningEnvironment(),
        precision=config.training.precision,
    )
    fabric.launch()
    fabric.barrier()  # all have looked at the place for the run before the first one writes there
    return fabric


def _tuning_rows(
    store: Store, task: str, config: TrainingConfig, with_any: Collection[str] = ()
) -> Rows:
    """Tuning samples; of an hourly task one hour a stay, the same in every epoch, or every hour."""
    # differs from the paper: it draws one hour a stay once for all; evaluation here asks all.
    rows = having(store, store.rows(task, "tuning"), with_any)
    drawn = store.tasks[task].hourly and config.hours == "one" and len(rows)
    return one_hour(store, rows, config.seed, -1) if drawn else rows
