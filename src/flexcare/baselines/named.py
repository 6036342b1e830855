"""Baselines that learn from a store by themselves: each answers the very samples of a network."""

from collections.abc import Callable, Iterable, Iterator

from flexcare.baselines.logistic import logistic
from flexcare.baselines.majority import Answered, majority
from flexcare.baselines.trees import trees
from flexcare.store import Store

# (store, tasks, split, seed) -> by task: its info, sample rows (n,), probabilities (n, outputs).
BASELINES: dict[str, Callable[[Store, Iterable[str], str, int], Iterator[Answered]]] = {
    "trees": trees,
    "logistic": logistic,
    "majority": majority,
}
