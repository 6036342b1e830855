"""What more questions cost: seven tasks against one for the same 10,000 patients, to tables.

All seven ask at hour 48, so what is measured is that a patient is encoded once. Questions at other
times know other things of a patient, and cost an encoding each.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from invented import NAMES, network
from measure import ratio, seconds
from stored import write_store

from flexcare.serving.bundle import Bundle
from flexcare.serving.predictor import Predictor

PATIENTS = 10_000


def main() -> None:
    with TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", PATIENTS)
        model = network(
            modalities=list(store.modalities.values()), tasks=list(store.tasks.values())
        )
        bundle = Bundle(model.eval(), model.modalities, model.tasks, store.manifest["scaling"], {})
        predictor = Predictor(bundle)
        ratio(
            "seven tasks against one, 10,000 patients at one time",
            "at most 1.2",
            lambda: seconds(lambda: predictor.predict_store(store)),
            lambda: seconds(lambda: predictor.predict_store(store, tasks=NAMES[:1])),
        )


if __name__ == "__main__":
    main()
