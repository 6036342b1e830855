"""What a run needs to go on as if it had never stopped: parameters, Adam's moments, its place."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from flexcare.errors import UserError
from flexcare.files import read_json, whole, write_json
from flexcare.schema import check_version

CHECKPOINT_VERSION = 1


@dataclass
class Progress:
    """Where a run is. Everything random follows from the seed and these numbers.

    Attributes:
        epoch, step: next step to take, within its epoch; total: steps taken so far.
        rates: learning rate by task.
        best_losses: lowest tuning loss by task.
        best: highest mean of the primary metrics, and its epoch (-1: none yet).
        sums, counts: of the losses of this epoch so far.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    best_losses: dict[str, float] = field(default_factory=dict)
    best: float = float("-inf")
    best_epoch: int = -1
    task_bests: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write a checkpoint folder, whole or not at all; the last one is replaced."""
    names = [name for name, _ in model.named_parameters()]
    state = optimizer.state_dict()["state"]
    moments = {
        f"{names[number]}/{key}": value.detach().cpu().contiguous()
        for number, values in state.items()
        for key, value in values.items()
    }
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    table = asdict(progress) | {"best": None if progress.best_epoch < 0 else progress.best}
    with whole(path) as folder:
        folder.mkdir()
        save_file(weights, folder / "weights.safetensors")
        save_file(moments, folder / "optimizer.safetensors")
        write_json(folder / "progress.json", {"version": CHECKPOINT_VERSION, "progress": table})


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Put model and optimizer back as they were; give the place to go on from.

    Raises:
        UserError: no checkpoint, a damaged one, or of another model.
    """
    found: dict[str, Any] = read_json(path / "progress.json", "a checkpoint of `flexcare train`")
    check_version(found.get("version"), CHECKPOINT_VERSION, f"checkpoint {path}")
    try:
        model.load_state_dict(load_file(path / "weights.safetensors"))
        moments = load_file(path / "optimizer.safetensors")
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"checkpoint {path} does not fit this run",
            found=str(error).splitlines()[0],
            expected="the checkpoint of the same store, tasks and model settings",
            do="Start a new run, or resume with the settings it was started with.",
        ) from error
    numbers = {name: number for number, (name, _) in enumerate(model.named_parameters())}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        name, part = key.rsplit("/", 1)
        state.setdefault(numbers[name], {})[part] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    table = found["progress"]
    if table["best"] is None:
        table["best"] = float("-inf")
    return Progress(**table)


def cut_lines(path: Path, epoch: int) -> None:
    """Drop the metrics lines of epochs that will be run again."""
    if path.exists():
        lines = path.read_text().splitlines()
        kept = [line for line in lines if json.loads(line)["epoch"] < epoch]
        with whole(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept))
