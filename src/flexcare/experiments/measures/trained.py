"""A finished run as the measures see it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flexcare.config import Config, check
from flexcare.evaluation.compare import Judge
from flexcare.evaluation.stored import stored_predictions
from flexcare.experiments.verdict import Value
from flexcare.files import read_json
from flexcare.loading.loader import Loader
from flexcare.models.network import Network, Output
from flexcare.serving.bundle import load_bundle
from flexcare.serving.predictor import Predictor, outputs_of
from flexcare.store import Store

SPLIT = "held_out"
RESAMPLES = 200


def epochs_of(run: Path) -> list[dict[str, Any]]:
    """What each epoch of a run did."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@dataclass
class Found:
    """What a family of measures tells of a run: numbers, and tables for figures."""

    values: dict[str, Value] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0  # that the training and its measures took, on one core
    diverged: bool = False  # then there is nothing else to tell


@dataclass
class Trained:
    """A run, its store, of an invented hospital the folder of the truth, and what it extends."""

    path: Path
    store: Store
    truth: Path | None = None
    base: Path | None = None

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(load_bundle(self.path / "bundle"), say=lambda line: None)

    @property
    def model(self) -> Network:
        """The best model, in eval mode."""
        return self.predictor.bundle.model

    @cached_property
    def config(self) -> Config:
        found = read_json(self.path / "config.json", "the settings of a run")
        return check(Config, found["config"], "the settings of a run")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.model.modalities)

    def predictions(self, without: tuple[str, ...] = ()) -> pa.Table:
        """Of the held-out samples, with some modalities taken away."""
        return self.predictor.predict_store(self.store, SPLIT, without=without)

    def subsets(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every non-empty set of modalities, as a name and as what it leaves out."""
        names = self.modalities
        for size in range(1, len(names) + 1):
            for chosen in combinations(names, size):
                yield "+".join(chosen), tuple(name for name in names if name not in chosen)

    def judge(self) -> Judge:
        """Draws the same patients for every run on this store, whatever its tasks."""
        tables = []
        for name, info in self.store.tasks.items():
            rows = self.store.rows(name, SPLIT)
            guess = np.full((len(rows), info.outputs), 1 / info.outputs)
            tables.append(stored_predictions(self.store, info, rows, guess, "nobody"))
        asked = {info.name: info for info in self.model.tasks}
        return Judge(pa.concat_tables(tables), asked, RESAMPLES)

    def outputs(self, split: str = SPLIT) -> Iterator[tuple[NDArray[np.int64], Output]]:
        """By batch the sample rows (B, T) of a split, and what the model makes of them."""
        rows = {name: self.store.rows(name, split) for name in self.predictor.tasks}
        for places, batch, output in outputs_of(self.model, self.loader, rows):
            asked = [rows[t][p] for t, p in zip(batch.tasks, places.T, strict=True)]
            yield np.column_stack(asked), output

    @cached_property
    def loader(self) -> Loader:
        bundle = self.predictor.bundle
        return Loader(self.store, bundle.scaling, self.modalities, self.model.config)
