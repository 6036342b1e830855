"""What a step, an epoch and a look at the tuning split do."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from flexcare.config import TrainingConfig
from flexcare.evaluation.metrics import measure_arrays
from flexcare.loading.loader import Loader
from flexcare.models.flexcare import FlexCare
from flexcare.serving.bundle import load_bundle
from flexcare.serving.predictor import predict_rows
from flexcare.training.folder import RunFolder
from flexcare.training.loop import Loop, share_of
from flexcare.training.run import _tuning_rows, train
from small_store import TINY, small_store

TASKS = ("death", "stay", "findings")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return small_store(tmp_path_factory.mktemp("data") / "store")


def run(store, out, model=None, **training):
    rest = {"epochs": 1, "batch_size": 8, "schedule": "round_robin", "checkpoint_minutes": 1000}
    settings = {"model": TINY | (model or {}), "training": rest | training}
    train(store.path, out, settings=settings, quiet=True)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def watched(monkeypatch):
    """After each step: its tasks, the learning rate, and all weights."""
    seen = []
    real = Loop._step

    def stepped(loop, tasks, batches):
        real(loop, tasks, batches)
        weights = {name: p.detach().clone() for name, p in loop.model.named_parameters()}
        seen.append((tasks, loop.optimizer.param_groups[0]["lr"], weights))

    monkeypatch.setattr(Loop, "_step", stepped)
    return seen


def test_losses_fall(store, tmp_path):
    lines = run(store, tmp_path / "run", epochs=8, learning_rate=3e-3)
    for task in TASKS:
        name = f"loss/{task}"
        assert lines[-1]["train"][name] < 0.9 * lines[0]["train"][name]


def test_a_rate_halves_where_a_tuning_loss_did_not_fall_below_its_best(store, tmp_path):
    lines = run(store, tmp_path / "run", epochs=8, learning_rate=0.03)
    rates, best = dict.fromkeys(TASKS, 0.03), dict.fromkeys(TASKS, float("inf"))
    for line in lines:
        assert line["learning_rate"] == rates
        for task in TASKS:
            loss = line["tuning"][task]["loss"]
            rates[task] /= 1 if loss < best[task] else 2
            best[task] = min(loss, best[task])
    assert len(set(lines[-1]["learning_rate"].values())) > 1  # each task for itself
    assert min(lines[-1]["learning_rate"].values()) < 0.03


def test_rates_stay_if_told_so(store, tmp_path):
    lines = run(store, tmp_path / "run", epochs=8, learning_rate=0.03, halve_on_plateau=False)
    assert lines[-1]["learning_rate"] == dict.fromkeys(TASKS, 0.03)


def test_a_step_takes_the_rate_of_its_task(store, tmp_path, watched):
    lines = run(store, tmp_path / "run", epochs=6, learning_rate=0.03)
    for number, (tasks, rate, _) in enumerate(watched):
        assert rate == lines[number // 9]["learning_rate"][tasks[0]]


def test_a_step_of_many_tasks_takes_their_mean_rate(store, tmp_path, watched):
    lines = run(store, tmp_path / "run", epochs=6, learning_rate=0.03, schedule="parallel")
    steps = len(watched) // 6
    for number, (tasks, rate, _) in enumerate(watched):
        rates = lines[number // steps]["learning_rate"]
        assert rate == pytest.approx(np.mean([rates[task] for task in tasks]))
    assert max(len(tasks) for tasks, *_ in watched) == 3


def test_warmup_raises_the_rate_evenly(store, tmp_path, watched):
    run(store, tmp_path / "run", learning_rate=1.0e-3, warmup_steps=4)
    rates = [rate for _, rate, _ in watched]
    assert rates == pytest.approx([0.2e-3, 0.4e-3, 0.6e-3, 0.8e-3] + [1e-3] * 5)


def test_a_task_that_a_step_does_not_ask_keeps_its_head(store, tmp_path, watched):
    """In spite of Adam's momentum."""
    run(store, tmp_path / "run", epochs=2)
    for (_, _, before), (tasks, _, after) in pairwise(watched):
        for task in TASKS:
            name = f"heads.linear.{task}.weight"
            assert torch.equal(before[name], after[name]) == (task not in tasks)


def test_clipping_bounds_the_gradient(store, tmp_path, monkeypatch):
    norms = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            grads = [p.grad for p in self.param_groups[0]["params"] if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    run(store, tmp_path / "clipped", clip=0.01)
    assert len(norms) == 9
    assert norms == pytest.approx([0.01] * 9, rel=1e-3)
    run(store, tmp_path / "free")
    assert min(norms[9:]) > 0.02


def test_the_tuning_metrics_are_those_of_the_model(store, tmp_path):
    line = run(store, tmp_path / "run", learning_rate=0.01)[0]
    bundle = load_bundle(tmp_path / "run" / "bundle")
    loader = Loader(store, store.manifest["scaling"])
    means = []
    for info in bundle.tasks:
        rows = _tuning_rows(store, info.name, TrainingConfig())
        answers = predict_rows(bundle.model, loader, {info.name: rows})[info.name]
        batch = loader.batch(rows[:, None], (info.name,))
        labels, mask = batch.labels[info.name].numpy(), batch.label_masks[info.name].numpy()
        expected = measure_arrays(info.metric, info.kind, labels, mask, answers)
        assert line["tuning"][info.name]["primary"] == pytest.approx(expected)
        means.append(expected)
        wide = (
            labels if info.kind != "multiclass" else np.eye(info.outputs)[labels[:, 0].astype(int)]
        )
        chance = np.where(wide > 0, answers, 1 - answers if info.kind != "multiclass" else 1)
        losses = -np.log(chance) if info.kind != "multiclass" else -np.log(chance).sum(1)[:, None]
        assert line["tuning"][info.name]["loss"] == pytest.approx(losses[mask].mean(), rel=1e-5)
    assert line["mean"] == pytest.approx(np.mean(means))


def test_the_running_mean_of_the_weights_is_what_is_kept(store, tmp_path, watched):
    lines = run(store, tmp_path / "run", epochs=3, learning_rate=0.01, average=0.6)
    mean = watched[0][2]
    for steps, (_, _, now) in enumerate(watched[1:], start=1):
        keeps = min(0.6, (1 + steps) / (10 + steps))
        mean = {name: keeps * mean[name] + (1 - keeps) * now[name] for name in mean}
        if steps % 9 == 8 and lines[steps // 9]["mean"] == max(one["mean"] for one in lines):
            best = mean
    kept = dict(load_bundle(tmp_path / "run" / "bundle").model.named_parameters())
    assert all(torch.allclose(kept[name], best[name], atol=1e-6) for name in best)
    assert not all(torch.allclose(kept[name], now[name], atol=1e-4) for name in now)


def test_the_best_epoch_may_be_that_of_the_lowest_loss(store, tmp_path):
    weights = {"death": 1.0, "stay": 2.0, "findings": 0.5}
    rest = {"epochs": 6, "batch_size": 8, "learning_rate": 0.03, "best_by": "loss"}
    settings = {"model": TINY, "objective": {"task_weights": weights}, "training": rest}
    train(store.path, tmp_path / "run", settings=settings, quiet=True)
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [
        sum(weights[task] * seen["loss"] for task, seen in line["tuning"].items()) for line in lines
    ]
    best = load_bundle(tmp_path / "run" / "bundle").provenance["epoch"]
    assert best == int(np.argmin(losses)) != int(np.argmax([line["mean"] for line in lines]))


def test_decay_pulls_weights_towards_zero(store, tmp_path, watched):
    run(store, tmp_path / "free", epochs=2)
    free = watched[-1][2]
    run(store, tmp_path / "decayed", epochs=2, weight_decay=10.0)
    decayed = watched[-1][2]
    name = "heads.linear.death.weight"
    assert decayed[name].norm() < 0.999 * free[name].norm()


def test_modalities_are_hidden_in_training_alone(store, tmp_path, monkeypatch):
    seen = {True: [], False: []}  # by whether it was a step of training
    real = FlexCare.forward

    def forward(model, batch):
        names = tuple(info.name for info in model.modalities)
        seen[model.training].append(batch.present(names))
        return real(model, batch)

    monkeypatch.setattr(FlexCare, "forward", forward)
    counts = {}
    for share in (0.0, 0.5):
        run(store, tmp_path / str(share), modality_dropout=share)
        counts[share] = {step: int(torch.cat(found).sum()) for step, found in seen.items()}
        rows = torch.cat(seen[True]).any(1)
        counts[share]["rows"] = int(rows.sum())
        seen = {True: [], False: []}
    assert counts[0.5][False] == counts[0.0][False]
    assert counts[0.5]["rows"] == counts[0.0]["rows"]
    assert counts[0.5][True] < 0.85 * counts[0.0][True]


def test_tuning_asks_one_hour_a_stay_the_same_in_every_epoch(store):
    rows = _tuning_rows(store, "stay", TrainingConfig())
    assert len(rows) == 6
    assert (rows == _tuning_rows(store, "stay", TrainingConfig())).all()
    assert len(_tuning_rows(store, "death", TrainingConfig())) == 6
    every = _tuning_rows(store, "stay", TrainingConfig(hours="every"))
    assert (every == store.rows("stay", "tuning")).all()
    assert len(every) > 6


@pytest.mark.parametrize(("rows", "world"), [(32, 1), (32, 2), (33, 4), (1, 2)])
def test_processes_share_the_rows_and_have_about_as_much_work(rows, world):
    work = np.random.default_rng(0).lognormal(5, 1, rows)
    shares = [share_of(work, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(shares)) == list(range(rows))
    assert all((np.diff(share) > 0).all() for share in shares)
    amounts = [work[share].sum() for share in shares]
    assert max(amounts) - min(amounts) <= work.max()


def test_losses_of_an_epoch_are_means_over_its_steps(store, tmp_path, monkeypatch):
    sums = []
    monkeypatch.setattr(
        RunFolder, "step", lambda folder, place, steps: sums.append(dict(place.sums))
    )
    line = run(store, tmp_path / "run")[0]
    assert len(sums) == 9
    assert line["train"]["total"] == pytest.approx(sums[-1]["total"] / 9)
    assert line["train"]["loss/death"] == pytest.approx(sums[-1]["loss/death"] / 3)


def test_what_is_random_in_a_step_differs_from_step_to_step(store, tmp_path, monkeypatch):
    seeds = []
    real = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeds.append(seed) or real(seed))
    run(store, tmp_path / "run")
    run(store, tmp_path / "other", seed=1)
    assert len(seeds) == len(set(seeds)) == 2 * (1 + 9)


def test_mixed_precision_trains(store, tmp_path):
    lines = run(store, tmp_path / "run", epochs=4, learning_rate=3e-3, precision="bf16-mixed")
    assert lines[-1]["train"]["total"] < lines[0]["train"]["total"]
