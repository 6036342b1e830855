"""All hours of a stay against one: two hourly tasks, to finished tables.

Above: 128 stays asked at each of their 48 hours. Below: asked at the last hour alone. With causal
streams the hours of a stay share one pass through its series, its film and its note; with streams
that see the whole stay they share film and note only.
"""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from invented import network
from measure import ratio, seconds
from stored import HOURS, write_store

from flexcare.serving.bundle import Bundle
from flexcare.serving.predictor import Predictor
from flexcare.store import Store

STAYS = 128
TASKS = ("decompensation", "length_of_stay")


def predict(store: Store, causal: bool) -> object:
    """Answers of a network of the paper's size."""
    model = network(list(store.modalities.values()), list(store.tasks.values()),
                    causal_series=causal).eval()  # fmt: skip
    bundle = Bundle(model, model.modalities, model.tasks, store.manifest["scaling"], {})
    predictor = Predictor(bundle)
    return partial(seconds, partial(predictor.predict_store, store, tasks=TASKS))


def main() -> None:
    with TemporaryDirectory() as folder:
        every = write_store(Path(folder) / "every", STAYS, asked=range(1, HOURS + 1))
        last = write_store(Path(folder) / "last", STAYS)
        for name, goal, causal in (
            ("causal streams", "at most 4", True),
            ("streams of the whole stay", "at most 4", False),
        ):
            ratio(f"{HOURS} hours against one, {name}", goal,
                  predict(every, causal), predict(last, causal))  # fmt: skip


if __name__ == "__main__":
    main()
