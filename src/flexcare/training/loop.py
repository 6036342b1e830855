"""The one training loop: step after step, each with one task or with many (SPEC 7)."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from flexcare.batch import Batch
from flexcare.config import Config
from flexcare.errors import UserError
from flexcare.evaluation.metrics import Undefined, measure_arrays
from flexcare.loading.loader import Loader, prefetch
from flexcare.models.flexcare import FlexCare
from flexcare.schema import TaskInfo
from flexcare.serving.predictor import outputs_of, probabilities
from flexcare.training.checkpoint import Progress
from flexcare.training.objectives import objective, task_loss
from flexcare.training.schedules import Plan, Step

Measured = dict[str, dict[str, float]]


@dataclass
class Hooks:
    """What the run does at the loop's events; the loop itself writes nothing."""

    step: Callable[[Progress, int], None]  # after a step: progress, steps of this epoch
    epoch: Callable[[dict[str, Any]], None]  # after an epoch: one line of metrics
    better: Callable[[str], None]  # "mean" or a task: its best so far
    checkpoint: Callable[[Progress], None]


class Loop:
    """Trains one model.

    Args:
        tuning: tuning sample rows by task.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: FlexCare,
        loader: Loader,
        plan: Plan,
        tuning: dict[str, np.ndarray[Any, np.dtype[np.int64]]],
        config: Config,
        hooks: Hooks,
    ) -> None:
        self.fabric, self.loader, self.plan, self.tuning = fabric, loader, plan, tuning
        self.config, self.hooks = config, hooks
        self.model = model
        self.infos: dict[str, TaskInfo] = {info.name: info for info in model.tasks}
        optimizer = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate)
        self.wrapped: nn.Module
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.progress = Progress(rates={task: config.training.learning_rate for task in plan.rows})
        self.saved_at = time.monotonic()

    def run(self) -> Progress:
        """Train to the last epoch, or until patience is at its end."""
        training = self.config.training
        while self.progress.epoch < training.epochs:
            self._epoch()
            if self._out_of_patience():
                break
        return self.progress

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and (
            self.progress.epoch - 1 - self.progress.best_epoch >= patience
        )

    def _epoch(self) -> None:
        """The steps of an epoch that are not yet taken, then a look at the tuning split."""
        progress, started = self.progress, time.monotonic()
        steps = self.plan.epoch(progress.epoch)
        self.model.train()
        for step, batch in prefetch(self._batches(steps[progress.step :])):
            self._step(step, batch)
            progress.step += 1
            progress.total += 1
            self.hooks.step(progress, len(steps))
            if progress.step < len(steps) and self._due():
                self._save()
        line = self._line(started)
        improved = self._judge(line)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.counts = {}, {}
        for name in improved:
            self.hooks.better(name)
        self.hooks.epoch(line)
        self._save()

    def _batches(self, steps: list[Step]) -> Iterator[tuple[Step, Batch]]:
        """This process's share of each step."""
        world, rank = self.fabric.world_size, self.fabric.global_rank
        for step in steps:
            rows = np.array_split(step.rows, world)[rank]
            yield step, self.loader.batch(rows, step.tasks)

    def _step(self, step: Step, batch: Batch) -> None:
        """One update. What is random in it depends on seed, step and process alone."""
        training, progress = self.config.training, self.progress
        torch.manual_seed(_seed(training.seed, progress.total, self.fabric.global_rank))
        rate = float(np.mean([progress.rates[task] for task in step.tasks]))
        warm = min(1.0, (progress.total + 1) / (training.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * warm
        on_device = batch.to(self.fabric.device)
        parts = objective(
            self.wrapped(on_device), on_device, self.model.tasks, self.config.objective
        )
        if not torch.isfinite(parts["total"]):
            raise UserError(
                f"training diverged at step {progress.total + 1}",
                found="a loss that is no finite number",
                expected="a falling loss",
                do="Lower training.learning_rate, or set training.clip = 1.0.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(parts["total"])
        if training.clip is not None:
            self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=training.clip)
        self.optimizer.step()
        for name, value in parts.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + float(value.detach())
            progress.counts[name] = progress.counts.get(name, 0) + 1

    def _line(self, started: float) -> dict[str, Any]:
        """What this epoch did, as one line of metrics.jsonl."""
        progress = self.progress
        means = {name: progress.sums[name] / progress.counts[name] for name in progress.sums}
        tuning = {task: self._look(task) for task in self.plan.rows}
        primary = [
            tuning[task]["primary"] for task in tuning if tuning[task]["primary"] is not None
        ]
        return {
            "epoch": progress.epoch,
            "step": progress.total,
            "train": dict(sorted(means.items())),
            "tuning": tuning,
            "mean": float(np.mean(primary)) if primary else None,
            "learning_rate": dict(progress.rates),
            "wall_s": round(time.monotonic() - started, 3),
        }

    def _look(self, task: str) -> dict[str, float | None]:
        """Loss and primary metric of a task on its tuning samples; None where undefined."""
        rows, info = self.tuning[task], self.infos[task]
        if not len(rows):
            return {"loss": None, "primary": None}
        total = count = 0.0
        labels, masks, answers = [], [], []
        for _, batch, output in outputs_of(self.model, self.loader, rows, task):
            logits, label = output.logits[task].float(), batch.labels[task]
            mask = batch.label_masks[task]
            known = float(mask.sum())
            total += float(task_loss(info, logits, label, mask)) * known
            count += known
            labels.append(label.cpu().numpy())
            masks.append(mask.cpu().numpy())
            answers.append(probabilities(info, logits).cpu().numpy())
        arrays = (np.concatenate(parts) for parts in (labels, masks, answers))
        try:
            primary: float | None = measure_arrays(info.metric, info.kind, *arrays)
        except Undefined:
            primary = None
        return {"loss": total / count if count else None, "primary": primary}

    def _judge(self, line: dict[str, Any]) -> list[str]:
        """Halve rates that earn nothing; name what is better than ever."""
        progress, training = self.progress, self.config.training
        improved = []
        for task, seen in line["tuning"].items():
            if seen["loss"] is not None:
                if seen["loss"] < progress.best_losses.get(task, float("inf")):
                    progress.best_losses[task] = seen["loss"]
                elif training.halve_on_plateau:
                    progress.rates[task] /= 2
            if seen["primary"] is not None and seen["primary"] > progress.task_bests.get(task, -2):
                progress.task_bests[task] = seen["primary"]
                improved.append(task)
        # Without a tuning metric (a task of one class, say) the last model is the best known.
        if line["mean"] is None or line["mean"] > progress.best:
            progress.best = progress.best if line["mean"] is None else line["mean"]
            progress.best_epoch = progress.epoch
            improved.append("mean")
        return improved

    def _due(self) -> bool:
        minutes = self.config.training.checkpoint_minutes
        return self.fabric.world_size == 1 and time.monotonic() - self.saved_at >= 60 * minutes

    def _save(self) -> None:
        self.hooks.checkpoint(self.progress)
        self.saved_at = time.monotonic()


def _seed(*parts: int) -> int:
    """A seed for torch's generator that differs with every part."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
