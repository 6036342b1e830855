"""How long training waits for data: seven tasks, batch 32, the paper's size.

Above: the seconds that a step waits for its batch, which another thread makes ahead of time.
Below: the whole step. The note has the seconds that the other thread needs for a batch.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from invented import NAMES, network
from measure import ROUNDS, keep, seconds
from stored import write_store

from flexcare.batch import Batch
from flexcare.config import ObjectiveConfig
from flexcare.loading.loader import Loader, prefetch
from flexcare.training.objectives import objective

BATCH, STEPS = 32, 10


def main() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    shares, made = [], []
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", 2000)
        loader = Loader(store, store.manifest["scaling"])
        rows = np.column_stack([store.rows(name, "train") for name in NAMES])
        random = np.random.default_rng(0)

        def batches() -> Iterator[Batch]:
            order = random.permutation(rows)
            for first in range(0, BATCH * STEPS, BATCH):
                yield loader.batch(order[first : first + BATCH], NAMES)

        for _ in range(ROUNDS + 1):  # the first one warms up
            started, waited = time.perf_counter(), 0.0
            items = prefetch(batches())
            for _ in range(STEPS):
                asked = time.perf_counter()
                batch = next(items)
                waited += time.perf_counter() - asked
                loss = objective(model(batch), batch, model.tasks, ObjectiveConfig())["total"]
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            shares.append(waited / (time.perf_counter() - started))
            made.append(seconds(lambda: list(batches())) / STEPS)
    note = f"a batch is made in {1000 * median(made[1:]):.1f} ms"
    keep("waiting for data", "at most 0.03", shares[1:], "of a step", note)


if __name__ == "__main__":
    main()
