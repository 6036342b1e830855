"""One patient's answers from a loaded bundle: 48 hours of series, a film and a note, seven tasks.

A call goes from plain Python values (480 charted ones, a grey picture, a text of 300 words) to
probabilities. The bundle is of the paper's size; one call warms up. Also the start of the command
line, as a whole process.
"""

import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
from invented import MODALITIES, TASKS, network
from measure import keep, process, seconds

from flexcare.features.text import HashedNgrams
from flexcare.features.variables import VariableSet, read_variables
from flexcare.schema import ModalityInfo
from flexcare.serving.bundle import Bundle
from flexcare.serving.patient import Patient
from flexcare.serving.predictor import Predictor

CALLS, WORDS = 50, 300


def patient(variables: VariableSet, random: np.random.Generator) -> Patient:
    """Everything known of somebody, as a person would write it."""
    series = []
    for hour in np.sort(random.uniform(0, 48, 480)).tolist():
        name = str(random.choice(variables.names))
        variable = variables.variables[name]
        series.append((hour, name, variable.normal))
    words = random.choice([f"word{number}" for number in range(2000)], WORDS)
    film = random.integers(0, 256, (390, 320), dtype=np.uint8)
    return {"series": series, "film": film, "note": " ".join(words)}


def predictor(variables: VariableSet) -> Predictor:
    """A loaded bundle with random weights."""
    columns = variables.columns()
    settings = {"variables": variables.to_dict(), "columns": columns}
    film = MODALITIES[1]
    modalities = [
        ModalityInfo("series", "time_series", len(columns), settings),
        film,
        ModalityInfo("note", "text", HashedNgrams.width, {"encoder": HashedNgrams.fingerprint}),
    ]
    model = network(modalities=modalities).eval()
    zeros, ones = [0.0] * len(variables.names), [1.0] * len(variables.names)
    scaling = {"series": {"center": zeros, "scale": ones}, "film": {"mean": 0.5, "sd": 0.3}}
    return Predictor(Bundle(model, model.modalities, TASKS, scaling, {}))


def main() -> None:
    variables = read_variables(Path(str(files("flexcare.sources") / "mimic_iv_variables.toml")))
    asked, random = predictor(variables), np.random.default_rng(0)
    patients = [patient(variables, random) for _ in range(CALLS + 1)]
    calls = [1000 * seconds(lambda one=one: asked.predict(one, hours=48)) for one in patients][1:]
    keep("one patient, all tasks", "at most 15", calls, "ms", f"{CALLS} calls after one")
    command = [Path(sys.executable).with_name("flexcare"), "--help"]
    keep("flexcare --help", "at most 0.3", [process(command)[0] for _ in range(7)], "s")


if __name__ == "__main__":
    main()
