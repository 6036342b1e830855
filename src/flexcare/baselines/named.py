"""Baselines that learn from a store by themselves: each answers the very samples of a network."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from flexcare.baselines.logistic import logistic
from flexcare.baselines.majority import Answered, majority
from flexcare.baselines.trees import trees
from flexcare.config import LogisticConfig, Section, TreesConfig
from flexcare.store import Store


class Baseline(Protocol):
    """Gives by task: its info, sample rows (n,), probabilities (n, outputs)."""

    def __call__(
        self, store: Store, tasks: Iterable[str], split: str, seed: int = 0, settings: Any = None
    ) -> Iterator[Answered]: ...


BASELINES: dict[str, Baseline] = {"trees": trees, "logistic": logistic, "majority": majority}
# What each can be told; None in its place: the defaults.
SETTINGS: dict[str, type[Section]] = {
    "trees": TreesConfig,
    "logistic": LogisticConfig,
    "majority": Section,
}
