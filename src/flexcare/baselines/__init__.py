"""COMPARED WITH WHAT? The baselines by name: each answers the very samples the network answers."""

from collections.abc import Callable, Iterable, Iterator

from flexcare.baselines.majority import Answered, majority
from flexcare.baselines.trees import trees
from flexcare.store import Store

# (store, tasks, split, seed) -> by task: its info, sample rows (n,), probabilities (n, outputs).
BASELINES: dict[str, Callable[[Store, Iterable[str], str, int], Iterator[Answered]]] = {
    "trees": trees,
    "majority": majority,
}
