"""Ask a bundle: samples of a store, or one patient, -> probabilities."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flexcare.batch import Batch
from flexcare.errors import UserError, unknown
from flexcare.evaluation.predictions import predictions_table
from flexcare.evaluation.stored import present
from flexcare.files import write_json
from flexcare.loading.loader import Loader, prefetch
from flexcare.loading.moments import Rows, evidence_columns, moments_of, together
from flexcare.models.network import Network, Output
from flexcare.schema import SPLITS, TaskInfo
from flexcare.serving.bundle import Bundle, load_bundle
from flexcare.serving.matching import Say, shared_modalities, shared_samples
from flexcare.serving.patient import Patient, PatientReader
from flexcare.store import Store

T = TypeVar("T")
BATCH, MANY = 128, 512  # rows at once; fewer samples than these leave each batch all threads


def probabilities(info: TaskInfo, logits: torch.Tensor) -> torch.Tensor:
    """(B, outputs) of 0..1: a softmax of a multiclass task, else a sigmoid of each output."""
    return logits.softmax(-1) if info.kind == "multiclass" else logits.sigmoid()


def outputs_of(
    model: Network,
    loader: Loader,
    rows: Mapping[str, Rows],
    batch: int = BATCH,
    share: slice = slice(None),
) -> Iterator[tuple[Rows, Batch, Output]]:
    """The model's output for samples of several tasks, in eval mode, without gradients.

    What the samples know is encoded once for all tasks that ask about a patient at one time.

    Args:
        rows: by task, sample rows.
        share: of the patients and times, which are asked.

    Yields:
        (B, T) places in `rows` of what each row of the batch answers for each of its tasks, the
        batch, and the output. Samples of one stay are asked together, for they share much, so
        the places are not in order.
    """
    was_training = model.training
    model.eval()
    batches = _batches(loader, {task: own for task, own in rows.items() if len(own)}, batch, share)
    device = next(model.parameters()).device

    def answered(places: Rows, one: Batch) -> tuple[Rows, Batch, Output]:
        on_device = one.to(device)
        with torch.inference_mode():
            return places, on_device, model.answer(on_device)

    try:
        many = device.type == "cpu" and sum(map(len, rows.values())) >= MANY
        threads = torch.get_num_threads() if many else 1
        yield from side_by_side(answered, prefetch(batches), threads)
    finally:
        model.train(was_training)


def side_by_side(
    work: Callable[..., T], items: Iterable[tuple[Any, ...]], threads: int
) -> Iterator[T]:
    """work(*item) of each item, in order, `threads` at once, each with a thread of torch.

    The operations of a batch are small: threads that share a batch wait for each other more than
    they compute. One at a time has all threads of torch.
    """
    if threads == 1:
        yield from (work(*item) for item in items)
        return
    begun: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for item in items:
            begun.append(pool.submit(work, *item))
            if len(begun) == threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _batches(
    loader: Loader, rows: Mapping[str, Rows], batch: int, share: slice
) -> Iterator[tuple[Rows, Batch]]:
    """Batches in which every row is asked every task, and the places of its samples."""
    if not rows:
        return
    names, samples = list(rows), loader.store.samples
    every = np.concatenate(list(rows.values()))
    moments = moments_of(samples.select(evidence_columns(samples)).take(pa.array(every)))
    sizes = np.cumsum([len(own) for own in rows.values()])[:-1]
    table = together(np.split(moments, sizes))
    found = np.column_stack([np.append(rows[n], -1)[table[:, i]] for i, n in enumerate(names)])
    evidence = found.max(axis=1)
    hours, stay = (loader.columns[name][evidence] for name in ("series_hours", "series_first"))
    asked, pattern = np.unique(found >= 0, axis=0, return_inverse=True)
    order = np.lexsort([hours, stay, pattern])[share]
    for number, tasks in enumerate(asked):
        alike = order[pattern[order] == number]
        for first in range(0, len(alike), batch):
            chosen = np.ix_(alike[first : first + batch], tasks)
            yield table[chosen], loader.batch(found[chosen], tuple(compress(names, tasks)))


def predict_rows(
    model: Network, loader: Loader, rows: Mapping[str, Rows]
) -> dict[str, NDArray[np.float32]]:
    """By task, (rows of the task, outputs) probabilities."""
    infos = {info.name: info for info in model.tasks if info.name in rows}
    out = {
        name: np.zeros((len(own), infos[name].outputs), np.float32) for name, own in rows.items()
    }
    for names in model.generations(rows):
        for places, batch, output in outputs_of(model, loader, {n: rows[n] for n in names}):
            for task, place in zip(batch.tasks, places.T, strict=True):
                answers = probabilities(infos[task], output.logits[task].float())
                out[task][place] = answers.cpu().numpy()
    return out


class Answers(dict[str, dict[str, float]]):
    """By task, by class name, the probability.

    Attributes:
        modalities: those that were used, sorted and joined by "+"; "none" if none.
        left_out: what was given and not used, and why.
    """

    def __init__(
        self, answers: dict[str, dict[str, float]], modalities: str, left_out: list[str]
    ) -> None:
        super().__init__(answers)
        self.modalities, self.left_out = modalities, left_out


class Predictor:
    """A bundle that can be asked.

    Args:
        text_encoder: name or folder of the encoder of its notes; None: the built-in one.
        say: told one line whenever a store has less or more than the bundle takes.
    """

    def __init__(
        self, bundle: Bundle, text_encoder: str | Path | None = None, say: Say = print
    ) -> None:
        self.bundle, self.say = bundle, say
        self.tasks = {info.name: info for info in bundle.tasks}
        self.reader = PatientReader(bundle, text_encoder)

    def preparation(self, source: str, place: Path) -> dict[str, Any]:
        """How the store was prepared that the bundle was trained on (config.Preparation).

        Args:
            source: which is to be prepared; if it is the bundle's, its variables are the bundle's,
                for those that a source found in its training split belong to that split.
            place: an existing folder, where these are written.
        """
        store = self.bundle.provenance.get("store", {})
        settings: dict[str, Any] = dict(store.get("settings", {}))
        variables: dict[str, Any] = {}
        for info in self.bundle.modalities:
            variables |= info.settings.get("variables", {})
        if variables and store.get("source") == source:
            settings["variables"] = str(place / "variables.json")
            write_json(place / "variables.json", variables)
        return settings

    @overload
    def predict(
        self, known: Patient, hours: float | None = None, tasks: Iterable[str] | None = None
    ) -> Answers: ...

    @overload
    def predict(
        self, known: Store | str | Path, hours: None = None, tasks: Iterable[str] | None = None
    ) -> pa.Table: ...

    def predict(
        self,
        known: Patient | Store | str | Path,
        hours: float | None = None,
        tasks: Iterable[str] | None = None,
    ) -> Answers | pa.Table:
        """Answer for one patient, or for every sample of a store (see `predict_store`).

        Args:
            known: what is known of the patient, by the bundle's modalities; each may be left out:

                series: (hours, variable, value) triples, hours from ICU admission, value in the
                    variable's own unit; of a category its name, a text that means it, or its
                    score. Of equal times the last one wins. Derived variables are derived.
                    So of every time series by its name.
                static (by its name): {field: value}, or such triples; of a field the last counts.
                codes (by its name): codes as texts, or (hours, code) with the hours from which
                    each was known, or (hours, variable, code).
                embedding (by its name): numbers (width,) or (vectors, width).
                wave (by its name): {channel: samples}, an array (channels, samples), or the path
                    of a record as preparation reads it. A channel may be left out.
                film: a grey picture, uint8 (height, width) with 0 black, or the path of a JPEG.
                note: a text, or several, the first is read first. A text is read as it is; of
                    {"kind": "radiology_report", "text": ...} the sections that preparation keeps.
            hours: the prediction time, from ICU admission; needed with a series, for others None
                is 0.
            tasks: None: all of the bundle.

        Raises:
            UserError: an unknown task, modality, variable or category, a value that is not
                finite, a film or a text encoder that cannot be used.
        """
        if not isinstance(known, Mapping):
            return self.predict_store(known, tasks=tasks)
        names = self._asked(tasks, self.tasks)
        batch, left_out = self.reader.batch(known, hours, names)
        model, logits = self.bundle.model, dict[str, torch.Tensor]()
        with torch.inference_mode():
            for some in model.generations(names):
                logits |= model.answer(replace(batch, tasks=some)).logits
        answers = {
            name: dict(
                zip(
                    self.tasks[name].classes,
                    probabilities(self.tasks[name], logits[name].float())[0].tolist(),
                    strict=True,
                )
            )
            for name in names
        }
        return Answers(answers, "+".join(sorted(batch.inputs)) or "none", left_out)

    def predict_store(
        self,
        store: Store | str | Path,
        split: str | None = None,
        tasks: Iterable[str] | None = None,
        model: str | None = None,
        without: Collection[str] = (),
    ) -> pa.Table:
        """The predictions table (schema.PREDICTIONS) of a store's samples.

        Numbers are scaled as the bundle's training data were. Samples of a class that the bundle
        does not know are left out, which is said.

        Args:
            split: None: samples of all splits.
            tasks: None: all that both know.
            model: its name in the table; None: the network's.
            without: modalities to be taken as absent from every sample.

        Raises:
            UserError: a store that does not fit the bundle, no task in common.
        """
        store = store if isinstance(store, Store) else Store(Path(store))
        both = [name for name in self.tasks if name in store.tasks]
        names = self._asked(tasks, both)
        modalities = shared_modalities(self.bundle, store, self.say)
        modalities = [name for name in modalities if name not in without]
        loader = Loader(store, self.bundle.scaling, modalities, self.bundle.model.config)
        # Every task is checked before the first one is answered.
        parts = {name: self._samples(store, name, split) for name in names}
        rows = {name: own for name, (own, _) in parts.items()}
        found = predict_rows(self.bundle.model, loader, rows)
        named = self.bundle.model.name if model is None else model
        tables = [
            self._table(loader, self.tasks[name], *part, found[name], named)
            for name, part in parts.items()
        ]
        return pa.concat_tables(tables)

    def _samples(self, store: Store, task: str, split: str | None) -> tuple[Rows, pa.Table]:
        """Sample rows of a task in the order of the store, and the samples."""
        rows = [store.rows(task, one) for one in (SPLITS if split is None else [split])]
        return shared_samples(store, self.tasks[task], np.sort(np.concatenate(rows)), self.say)

    def _table(
        self,
        loader: Loader,
        info: TaskInfo,
        rows: Rows,
        samples: pa.Table,
        found: NDArray[np.float32],
        model: str,
    ) -> pa.Table:
        has = present(loader.store, rows, loader.modalities)
        groups = loader.store.subgroups(rows)
        return predictions_table(samples, info, found, model, has, groups)

    def _asked(self, tasks: Iterable[str] | None, known: Iterable[str]) -> tuple[str, ...]:
        chosen = [tasks] if isinstance(tasks, str) else tasks
        names = tuple(known if chosen is None else dict.fromkeys(chosen))
        for name in names:
            if name not in known:
                raise unknown("task", name, known)
        if not names:
            raise UserError(
                "there is nothing to ask",
                found="no task",
                expected="one of the bundle: " + ", ".join(self.tasks),
            )
        return names


def load(bundle: str | Path, text_encoder: str | Path | None = None, say: Say = print) -> Predictor:
    """Open a bundle to ask it.

    Args:
        bundle: the folder.
        text_encoder: name (`hashed`, `minilm`) or Hugging Face folder of the encoder that
            embedded its notes; None: the built-in one. Needed only for notes of single patients.
        say: told one line whenever a store has less or more than the bundle takes.

    Raises:
        UserError: no bundle, a damaged one, or another text encoder.
    """
    return Predictor(load_bundle(Path(bundle)), text_encoder, say)
