"""Nothing that the hospital saw after the prediction time changes an input of the sample (SPEC 3).

Random damage to everything later (tests/damage.py), the store made again, the tensors compared.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import duckdb
import numpy as np
import pytest
import torch

from damage import damaged
from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.features.variables import read_variables
from flexcare.loading.loader import Loader
from flexcare.store import Store
from flexcare.tasks import STANDARD
from prepared import everything, prepare_there

CLOCKS = ("charttime", "storetime")
EVERY = 5  # of the hourly samples one in so many is compared, and the last before the moment
Compared = dict[str, Counter[str]]


def hand_made(folder: Path) -> Path:
    return everything(8).write(folder)


def invented(folder: Path) -> Path:
    from flexcare.sources.synthetic import simulate

    simulate(folder, 24, seed=3)
    return folder


MADE: dict[str, Callable[[Path], Path]] = {"hand-made": hand_made, "invented": invented}


@pytest.fixture(scope="module", params=[(source, clock) for source in MADE for clock in CLOCKS],
                ids=lambda pair: "-".join(pair))  # fmt: skip
def hospital(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, Store]:
    """A hospital's folder, the clock, and the store of the undamaged tables."""
    source, clock = request.param
    folder = tmp_path_factory.mktemp("leakage")
    MADE[source](folder / "h")
    return folder / "h", clock, prepare_there(folder / "h", folder / "s", clock=clock)


def same_inputs(
    store: Store, other: Store, moments: dict[int, datetime], causal: bool = False
) -> tuple[Compared, Compared]:
    """Compares the inputs of each sample asked by its subject's moment.

    Args:
        causal: as loaded for a model of causal series, where the hours of a stay share one.

    Returns:
        by task and modality, how many samples have it, and of how many it differs.
    """
    scaling = store.manifest["scaling"]
    model = ModelConfig(causal_series=causal)
    loaders = [Loader(one, scaling, None, model) for one in (store, other)]
    rows_there = {name: row for row, name in enumerate(other.samples["sample_id"].to_pylist())}
    seen: Compared = {task: Counter() for task in store.tasks}
    different: Compared = {task: Counter() for task in store.tasks}
    for task, pairs in _asked_in_time(store, moments, rows_there):
        for first in range(0, len(pairs), 256):
            part = np.array(pairs[first : first + 256])
            batches = [one.batch(part[:, i, None], (task,)) for i, one in enumerate(loaders)]
            for name in store.modalities:
                before, after = (_inputs(batch.inputs.get(name)) for batch in batches)
                seen[task][name] += len(before)
                different[task][name] += len(before.keys() ^ after.keys()) + sum(
                    not torch.equal(before[row], after[row]) for row in before.keys() & after.keys()
                )
    return seen, different


def _asked_in_time(
    store: Store, moments: dict[int, datetime], there: dict[str, int]
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """The rows in both stores of the samples of each task asked by their subject's moment."""
    columns = ("sample_id", "subject_id", "task", "prediction_time")
    samples = zip(*(store.samples[name].to_pylist() for name in columns), strict=True)
    found: dict[str, list[tuple[int, int]]] = {task: [] for task in store.tasks}
    for row, (sample, subject, task, time) in enumerate(samples):
        if sample in there and subject in moments and time <= moments[subject]:
            found[task].append((row, there[sample]))
    for task, pairs in found.items():
        yield task, pairs[::EVERY] + pairs[-1:] if store.tasks[task].hourly else pairs


def _inputs(tokens: Tokens | None) -> dict[int, torch.Tensor]:
    """What a batch gives of each row that has something, without padding."""
    if tokens is None:
        return {}
    whole = tokens.valid.shape[1] == 1
    return {
        row: tokens.values[of] if whole else tokens.values[of][known]
        for row, of, known in zip(
            tokens.rows.tolist(), tokens.of.tolist(), tokens.known(), strict=True
        )
    }


def total(counts: Compared, name: str) -> int:
    return sum(one[name] for one in counts.values())


def test_nothing_after_the_prediction_time_is_used(
    hospital: tuple[Path, str, Store], tmp_path: Path
) -> None:
    folder, clock, store = hospital
    every: Compared = {task: Counter() for task in STANDARD}
    for seed in range(3):
        moments = damaged(folder, tmp_path / f"h{seed}", clock, seed)
        other = prepare_there(tmp_path / f"h{seed}", tmp_path / f"s{seed}", clock=clock)
        assert other.manifest["content"] != store.manifest["content"]
        for causal in (False, True):
            seen, different = same_inputs(store, other, moments, causal)
            assert {task: +counts for task, counts in different.items() if +counts} == {}
            for task in STANDARD:
                every[task] += seen[task]
    for task, counts in every.items():  # the test is about something
        assert min(counts[name] for name in ("series", "film", "note")) > 0, (task, counts)


def test_the_same_damage_is_seen_once_it_is_available(
    hospital: tuple[Path, str, Store], tmp_path: Path
) -> None:
    """The comparison would notice: samples asked after the moment do change."""
    folder, clock, store = hospital
    moments = damaged(folder, tmp_path / "h", clock, 0)
    other = prepare_there(tmp_path / "h", tmp_path / "s", clock=clock)
    _, different = same_inputs(store, other, dict.fromkeys(moments, datetime.max))
    for name in ("series", "film", "note"):
        assert total(different, name) > 0


def test_the_note_of_the_paper_leaks_on_purpose(tmp_path: Path) -> None:
    """The preset `paper` reads the discharge summary of the same admission, which is written after
    the outcome; this is what the paper describes and why no claim is made with it."""
    folder = hand_made(tmp_path / "h")
    store = prepare_there(folder, tmp_path / "s", "paper", hours="every")
    moments = damaged(folder, tmp_path / "h1", "charttime", 1)
    other = prepare_there(tmp_path / "h1", tmp_path / "s1", "paper", hours="every")
    _, different = same_inputs(store, other, moments)
    assert total(different, "note") > 0
    assert total(different, "series") == total(different, "film") == 0


@pytest.fixture(scope="module")
def real(open_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The open MIMIC-IV demo with its emergency visits, and of its charts the rows that count."""
    folder = tmp_path_factory.mktemp("real")
    names = ("patients", "admissions", "diagnoses_icd", "drgcodes", "labevents")
    tables = {f"hosp/{name}": "mimic_iv_demo" for name in names}
    tables |= dict.fromkeys(("icu/icustays", "icu/chartevents"), "mimic_iv_demo")
    tables |= dict.fromkeys(("ed/edstays", "ed/triage"), "mimic_iv_ed_demo")
    variables = read_variables(Path(str(files("flexcare.sources") / "mimic_iv_variables.toml")))
    items = ", ".join(f"'{item}'" for v in variables.variables.values() for item in v.items)
    for name, source in tables.items():
        (folder / name).parent.mkdir(exist_ok=True)
        chosen = f"WHERE itemid IN ({items})" if name.endswith(("chartevents", "labevents")) else ""
        path = open_data / source / f"{name}.csv.gz"
        duckdb.execute(f"COPY (FROM read_csv('{path}', all_varchar = true) {chosen})"
                       f" TO '{folder / name}.csv.gz' (HEADER, COMPRESSION gzip)")  # fmt: skip
    return folder


@pytest.mark.parametrize("clock", CLOCKS)
def test_nothing_after_the_prediction_time_is_used_of_real_rows(
    real: Path, tmp_path: Path, clock: str
) -> None:
    """No films, no discharge summaries here, but the hospital's own dirt."""
    store = prepare_there(real, tmp_path / "s", clock=clock)
    moments = damaged(real, tmp_path / "h1", clock, 0)
    other = prepare_there(tmp_path / "h1", tmp_path / "s1", clock=clock)
    seen, different = same_inputs(store, other, moments)
    assert {task: +counts for task, counts in different.items() if +counts} == {}
    for task in ("in_hospital_mortality", "decompensation", "length_of_stay", "readmission"):
        assert min(seen[task][name] for name in ("series", "note")) > 0
