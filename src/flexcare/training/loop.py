"""The one training loop: step after step, each with one task or with many (SPEC 7)."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from flexcare.batch import Batch
from flexcare.config import Config
from flexcare.errors import Diverged
from flexcare.evaluation.metrics import Undefined, measure_arrays
from flexcare.loading.loader import Loader, prefetch
from flexcare.models.network import Network
from flexcare.processes import anyone, total
from flexcare.schema import TaskInfo
from flexcare.serving.predictor import outputs_of, probabilities
from flexcare.training.checkpoint import Progress
from flexcare.training.conflicts import conflicts
from flexcare.training.gradients import Gradients
from flexcare.training.objectives import Losses, task_loss, task_totals, task_weights
from flexcare.training.schedules import Plan, Step, cycles
from flexcare.training.watch import Watch


@dataclass
class Hooks:
    """What the run does at the loop's events; the loop itself writes nothing."""

    step: Callable[[Progress, int], None]  # after a step: progress, steps of this epoch
    checkpoint: Callable[[Progress], None]
    epoch: Callable[[Progress], None]  # after the checkpoint that ends an epoch
    stop: Callable[[], bool]  # whether to end after this step


class Loop:
    """Trains one model.

    Args:
        tuning: tuning sample rows by task.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: Network,
        loader: Loader,
        plan: Plan,
        tuning: dict[str, NDArray[np.int64]],
        config: Config,
    ) -> None:
        self.fabric, self.loader, self.plan, self.tuning = fabric, loader, plan, tuning
        self.model, self.config = model, config
        self.infos: dict[str, TaskInfo] = {info.name: info for info in model.tasks}
        training = config.training
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self.wrapped: nn.Module
        self.wrapped, self.optimizer = fabric.setup(model, optimizer)
        self.gradients = Gradients(fabric, model, training)
        self.averaged = averaged(model, training.average) if training.average else None
        self.progress = Progress(rates=dict.fromkeys(plan.rows, training.learning_rate))
        self.watch = Watch(self.judged, loader, tuning)
        self.saved_at = time.monotonic()

    @property
    def judged(self) -> Network:
        """The network that is looked at and kept."""
        kept = self.averaged.module if self.averaged else self.model
        assert isinstance(kept, Network)
        return kept

    def run(self, hooks: Hooks) -> None:
        """Train to the last epoch, or until patience is at its end.

        Raises:
            Diverged: a number that is none.
            KeyboardInterrupt: after a checkpoint, because `hooks.stop` said so.
        """
        self.hooks = hooks
        while self.progress.epoch < self.config.training.epochs and not self._out_of_patience():
            self._epoch()

    def _out_of_patience(self) -> bool:
        patience = self.config.training.patience
        return patience is not None and (
            self.progress.epoch - 1 - self.progress.best_epoch >= patience
        )

    def _epoch(self) -> None:
        """The updates of an epoch that are not yet made, then a look at the tuning split."""
        progress, started = self.progress, time.monotonic()
        updates = self.updates(progress.epoch)
        self.model.train()
        for update in prefetch(self._batches(updates[progress.step :])):
            self._measure()
            self._step(*update)
            progress.step, progress.total = progress.step + 1, progress.total + 1
            self.hooks.step(progress, len(updates))
            self._pause()
        line = self._line(started)
        self._judge(line)
        progress.lines.append(line)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.counts = {}, {}
        # First what can be resumed from: what is shown follows from it, and can be shown again.
        self._save()
        self.hooks.epoch(progress)

    def updates(self, epoch: int) -> list[tuple[Step, ...]]:
        """The steps of an epoch, those together that make one update."""
        steps = self.plan.epoch(epoch)
        return cycles(steps) if self.gradients.cycles else [(step,) for step in steps]

    def _batches(
        self, updates: Iterable[tuple[Step, ...]]
    ) -> Iterator[tuple[list[str], list[Batch]]]:
        """The tasks of each update, and this process's share of its steps."""
        for steps in updates:
            yield [task for step in steps for task in step.tasks], [*map(self._share, steps)]

    def _share(self, step: Step) -> Batch:
        rank, world = self.fabric.global_rank, self.fabric.world_size
        rows = step.rows[share_of(self.loader.work(step.rows.max(axis=1)), rank, world)]
        return self.loader.batch(rows, step.tasks) if len(rows) else self._nobody(step)

    def _nobody(self, step: Step) -> Batch:
        """The share of a process where there are fewer rows than processes.

        One row of which nothing is known and nothing can be learned: it counts in no sum.
        """
        labels = {task: torch.zeros(1, self._width(task)) for task in step.tasks}
        masks = {task: value.bool() for task, value in labels.items()}
        return Batch(1, {}, step.tasks, labels, masks)

    def _width(self, task: str) -> int:
        """Labels of a sample."""
        return 1 if self.infos[task].kind == "multiclass" else self.infos[task].outputs

    def _measure(self) -> None:
        """Every so many updates, how far the tasks' gradients agree."""
        training, progress = self.config.training, self.progress
        if training.measure_gradients and progress.total % training.measure_gradients == 0:
            steps = self.plan.one_each(progress.total)
            batches = (self._share(step).to(self.fabric.device) for step in steps)
            line = {"epoch": progress.epoch, "step": progress.total, "batch": len(steps[0].rows)}
            progress.measured.append(line | conflicts(self.model, self._lose, batches))

    def _lose(self, batch: Batch) -> Losses:
        return task_totals(self.wrapped(batch), batch, self.model.tasks, self.config.objective)

    def _step(self, tasks: list[str], batches: list[Batch]) -> None:
        """One update. What is random in it depends on seed, step and process alone."""
        training, progress = self.config.training, self.progress
        seed = _seed(training.seed, progress.total, self.fabric.global_rank)
        torch.manual_seed(seed)
        rate = float(np.mean([progress.rates[task] for task in tasks]))
        rate *= min(1.0, (progress.total + 1) / (training.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if training.modality_dropout:
            batches = [batch.dropping(training.modality_dropout) for batch in batches]
        batches = [batch.to(self.fabric.device) for batch in batches]
        self.optimizer.zero_grad(set_to_none=True)
        epochs = [line["train"] for line in progress.lines]
        lost = self.gradients.fill(
            self._lose, batches, epochs, _seed(training.seed, progress.total)
        )
        norm = self.fabric.clip_gradients(
            self.wrapped,
            self.optimizer,
            max_norm=training.clip or math.inf,
            error_if_nonfinite=False,
        )
        assert norm is not None
        self._refuse_divergence(sum((parts["total"] for parts in lost), norm))
        self.optimizer.step()
        self.gradients.learn(self._lose, batches, rate, seed)
        if self.averaged:
            self.averaged.update_parameters(self.model)
        for name, value in (item for parts in lost for item in parts.items()):
            progress.sums[name] = progress.sums.get(name, 0.0) + float(value.detach())
            progress.counts[name] = progress.counts.get(name, 0) + 1

    def _refuse_divergence(self, value: Tensor) -> None:
        if not torch.isfinite(value).all():
            raise Diverged(
                f"training diverged after {self.progress.total} steps",
                found="a loss, a gradient or an answer that is no finite number",
                expected="a falling loss",
                do="Lower training.learning_rate, or set training.clip = 1.0.",
            )

    def _line(self, started: float) -> dict[str, Any]:
        """What this epoch did, as one line of metrics.jsonl."""
        progress = self.progress
        means = {name: progress.sums[name] / progress.counts[name] for name in progress.sums}
        tuning = self.look()
        watched = self.watch.numbers(progress.epoch, self.fabric.device)
        primary = [seen["primary"] for seen in tuning.values() if seen["primary"] is not None]
        return {
            "epoch": progress.epoch,
            "step": progress.total,
            "train": dict(sorted(means.items())),
            "tuning": tuning,
            "mean": float(np.mean(primary)) if primary else None,
            "learning_rate": dict(progress.rates),
            "watch": watched,
            "warnings": self.watch.warnings(watched, self.config.objective),
            "wall_s": round(time.monotonic() - started, 3),
        }

    def look(self) -> dict[str, dict[str, Any]]:
        """By task, loss and primary metric on the tuning samples; None and why where undefined."""
        answers = self._answers()
        return {task: self._look(task, *answers[task]) for task in self.plan.rows}

    def _look(self, task: str, logits: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Any]:
        info = self.infos[task]
        self._refuse_divergence(logits)
        with torch.no_grad():
            loss = float(task_loss(info, logits, labels, mask)) if mask.any() else None
        shares = (x.cpu().numpy() for x in (labels, mask, probabilities(info, logits)))
        try:
            return {"loss": loss, "primary": measure_arrays(info.metric, info.kind, *shares)}
        except Undefined as why:
            return {"loss": loss, "primary": None, "reason": str(why)}

    def _answers(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """By task logits, labels and label masks of its tuning samples; processes share them."""
        widths = {t: [self.infos[t].outputs] + 2 * [self._width(t)] for t in self.plan.rows}
        seen = {
            task: torch.zeros(
                len(self.tuning[task]), sum(width), dtype=torch.float32, device=self.fabric.device
            )
            for task, width in widths.items()
        }
        self.watch.begin()
        share = slice(self.fabric.global_rank, None, self.fabric.world_size)
        for places, batch, output in outputs_of(self.judged, self.loader, self.tuning, share=share):
            self.watch.see(output)
            for task, place in zip(batch.tasks, places.T, strict=True):
                known = (output.logits[task], batch.labels[task], batch.label_masks[task])
                seen[task][place] = torch.cat([part.float() for part in known], 1)
        out = {}
        for task, values in seen.items():
            logits, labels, mask = torch.split(total(values), widths[task], 1)
            out[task] = logits, labels, mask > 0
        return out

    def _judge(self, line: dict[str, Any]) -> None:
        """Halve rates that earn nothing; note what is better than ever."""
        progress = self.progress
        progress.improved = []
        for task, seen in line["tuning"].items():
            if seen["loss"] is not None:
                if seen["loss"] < progress.best_losses.get(task, math.inf):
                    progress.best_losses[task] = seen["loss"]
                elif self.config.training.halve_on_plateau:
                    progress.rates[task] /= 2
            if _better(seen["primary"], progress.task_bests.get(task)):
                progress.task_bests[task] = seen["primary"]
                progress.improved.append(task)
        score = self._score(line)
        # Without a tuning metric (of tasks with one answer, say) the last model is the best known.
        if score is None or _better(score, progress.best):
            progress.best, progress.best_epoch = score, progress.epoch

    def _score(self, line: dict[str, Any]) -> float | None:
        """What the best epoch has most of."""
        if self.config.training.best_by == "metric":
            mean: float | None = line["mean"]
            return mean
        weights = task_weights(self.model.tasks, self.config.objective)
        losses = [
            weights[task] * seen["loss"]
            for task, seen in line["tuning"].items()
            if seen["loss"] is not None
        ]
        return -sum(losses) if losses else None

    def _pause(self) -> None:
        """Between two steps: a checkpoint if one is due; the end if somebody asks for it."""
        stop = anyone(self.hooks.stop(), self.fabric.device)
        minutes = self.config.training.checkpoint_minutes
        if stop or time.monotonic() - self.saved_at >= 60 * minutes:
            self._save()
        if stop:
            raise KeyboardInterrupt

    def _save(self) -> None:
        self.hooks.checkpoint(self.progress)
        self.saved_at = time.monotonic()


def averaged(model: Network, keeps: float) -> AveragedModel:
    """A copy of the model that `update_parameters` makes the running mean of its weights.

    In the first steps, when weights move far, it keeps less of its past.
    """

    def move(mean: list[Tensor], now: list[Tensor], steps: Tensor) -> None:
        early = (1 + int(steps)) / (10 + int(steps))
        torch._foreach_lerp_(mean, now, 1 - min(keeps, early))

    return AveragedModel(model, multi_avg_fn=move)  # type: ignore[arg-type]


def share_of(work: NDArray[np.float64], rank: int, world: int) -> NDArray[np.int64]:
    """Which rows are this process's, in order: every process has about as much work.

    Rows are dealt out from the heaviest to the lightest, to and fro.
    """
    turn = np.arange(len(work)) % (2 * world)
    own = np.minimum(turn, 2 * world - 1 - turn) == rank
    return np.sort(np.argsort(-work, kind="stable")[own])


def _better(value: float | None, best: float | None) -> bool:
    return value is not None and (best is None or value > best)


def _seed(*parts: int) -> int:
    """A seed for torch's generator that differs with every part."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
