"""What a run needs to go on as if it had never stopped: parameters, Adam's moments, its place.

Also what aggregators and weightings have learned.

One file, replaced in one step, so that a run that is killed while writing keeps the last one.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from flexcare.errors import UserError
from flexcare.files import whole
from flexcare.schema import check_version
from flexcare.training.gradients import Gradients

CHECKPOINT_VERSION = 1
# What the names of tensors begin with.
WEIGHTS, MOMENTS, MEANS, GRADIENTS = "weights/", "moments/", "means/", "gradients/"


@dataclass
class Progress:
    """Where a run is. Everything random follows from the seed and these numbers.

    Attributes:
        epoch, step: next step to take, within its epoch; total: steps taken so far.
        rates: learning rate by task.
        best_losses: lowest tuning loss by task.
        best: highest score so far (training.best_by); best_epoch: its epoch (-1: none yet).
        task_bests: highest primary metric by task; improved: tasks for which the last epoch was it.
        sums, counts: of the losses of this epoch so far.
        lines: what each epoch did, as metrics.jsonl has it.
        measured: how far gradients agreed, as gradients.jsonl has it.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    best_losses: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = -1
    task_bests: dict[str, float] = field(default_factory=dict)
    improved: list[str] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    averaged: AveragedModel | None = None,
    gradients: Gradients | None = None,
) -> None:
    """Write a checkpoint, whole or not at all; the last one is replaced."""
    names = [name for name, _ in model.named_parameters()]
    tensors = {WEIGHTS + name: value for name, value in model.state_dict().items()}
    if averaged:
        tensors |= {MEANS + name: value for name, value in averaged.module.state_dict().items()}
    if gradients:
        tensors |= {GRADIENTS + name: value for name, value in gradients.state().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"{MOMENTS}{names[number]}/{key}": value for key, value in moments.items()}
    about = {"version": CHECKPOINT_VERSION, "progress": asdict(progress)}
    with whole(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
            temporary,
            {"about": json.dumps(about, allow_nan=False)},
        )


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedModel | None = None,
    gradients: Gradients | None = None,
) -> Progress:
    """Put all back as it was; give the place to go on from.

    Raises:
        UserError: no checkpoint, a damaged one, or of another model.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be resumed from",
            found=str(error).splitlines()[0],
            expected="a checkpoint of `flexcare train`",
            do="Start a new run.",
        ) from error
    check_version(about["version"], CHECKPOINT_VERSION, f"checkpoint {path}")
    means, learned = (_taken(tensors, beginning) for beginning in (MEANS, GRADIENTS))
    _fill(path, tensors, model, optimizer)
    progress = Progress(**about["progress"])
    if averaged:
        averaged.module.load_state_dict(means)
        averaged.n_averaged.fill_(progress.total)
    if gradients:
        gradients.load(learned)
    return progress


def _taken(tensors: dict[str, torch.Tensor], beginning: str) -> dict[str, torch.Tensor]:
    """Take out those whose names begin so; they lose that beginning."""
    names = [name for name in tensors if name.startswith(beginning)]
    return {name.removeprefix(beginning): tensors.pop(name) for name in names}


def _fill(
    path: Path,
    tensors: dict[str, torch.Tensor],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Weights into the model, moments into the optimizer."""
    numbers = {name: number for number, (name, _) in enumerate(model.named_parameters())}
    weights: dict[str, torch.Tensor] = {}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(WEIGHTS):
            weights[name.removeprefix(WEIGHTS)] = value
        else:
            parameter, key = name.removeprefix(MOMENTS).rsplit("/", 1)
            state.setdefault(numbers.get(parameter, -1), {})[key] = value
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"checkpoint {path} does not fit this run",
            found=str(error).splitlines()[-1].strip(),
            expected="the checkpoint of the same store, tasks and model settings",
            do="Start a new run, or resume with the store it was started with.",
        ) from error
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
