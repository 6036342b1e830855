"""Puts an explanation together, and writes it: explain.json and TASK.svg in a folder."""

import copy
import importlib.metadata
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from scipy.special import expit

from flexcare.batch import Batch
from flexcare.errors import UserError, unknown
from flexcare.explain.details import Details, Reading, Turned
from flexcare.explain.gradients import Contributions, deletion_curve, integrated_gradients
from flexcare.explain.picture import picture
from flexcare.explain.question import Question
from flexcare.explain.shapley import answers_by_set, shapley_values
from flexcare.features.text import TextEncoder, text_encoder
from flexcare.files import refuse_existing, whole
from flexcare.loading.loader import Loader
from flexcare.models.network import Network, Output
from flexcare.schema import TaskInfo
from flexcare.serving.bundle import Bundle, load_bundle
from flexcare.serving.matching import shared_modalities
from flexcare.store import Store

Say = Callable[[str], None]


def explain(
    bundle: Bundle | str | Path,
    store: Store | str | Path,
    sample: str,
    *,
    tasks: Iterable[str] | None = None,
    answer: str | None = None,
    deletion: bool = False,
    show_text: bool = False,
    say: Say = print,
) -> dict[str, Any]:
    """Take a network's answer about one sample apart.

    Args:
        sample: its sample_id, which names the evidence: what was known of a patient at a time.
        tasks: asked about it; None: the sample's own.
        answer: name of the output that is explained; None: the one held most probable.
        deletion: turn details down in order of contribution, and at random.
        show_text: name the word pieces of notes, which are told by their places otherwise.
        say: told one line whenever the store has less or more than the bundle takes.

    Returns:
        what explain.json holds (docs/explain.md); all contributions are to log-odds.

    Raises:
        UserError: no such sample, task or answer, a store that does not fit the bundle, more than
            12 modalities, or word pieces of another text encoder.
    """
    bundle = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
    store = store if isinstance(store, Store) else Store(Path(store))
    row = _row(store, sample)
    own = store.samples["task"][row].as_py()
    asked = _asked(bundle, [own] if tasks is None else tasks, answer)
    loader = Loader(
        store, bundle.scaling, shared_modalities(bundle, store, say), bundle.model.config
    )
    model = copy.deepcopy(bundle.model).eval().double().requires_grad_(False)
    known = Reading(loader, row, model, _encoder(store) if show_text else None).known()
    parts = {info.name: _explained(model, info, known, answer, deletion) for info in asked}
    return {
        "artefact": "explanation",
        "flexcare": importlib.metadata.version("flexcare"),
        "network": model.name,
        "sample": sample,
        "absent": sorted({info.name for info in bundle.modalities} - known.keys()),
        "tasks": parts,
    }


def write(out: Path, explanation: dict[str, Any]) -> None:
    """Write a new folder with explain.json and a picture of each task.

    Raises:
        UserError: it exists.
    """
    refuse_existing(out)
    with whole(out) as folder:
        folder.mkdir()
        text = json.dumps(explanation, indent=1, allow_nan=False)
        (folder / "explain.json").write_text(text + "\n")
        for task, part in explanation["tasks"].items():
            picture(folder / f"{task}.svg", f"{explanation['sample']}: {task}", part)


def _row(store: Store, sample: str) -> int:
    row: int = pc.index(store.samples["sample_id"], sample).as_py()
    if row < 0:
        raise UserError(
            f"store {store.path} has no sample {sample!r}",
            found="no such sample_id",
            expected="one of its samples.parquet, such as TASK/STAY or TASK/STAY/HOUR",
            do="`flexcare predict` writes a table with the sample_id of every sample.",
        )
    return row


def _asked(bundle: Bundle, tasks: Iterable[str], answer: str | None) -> list[TaskInfo]:
    infos = {info.name: info for info in bundle.tasks}
    names = list(dict.fromkeys([tasks] if isinstance(tasks, str) else tasks))
    for name in names:
        if name not in infos:
            raise unknown("task", name, infos, "The bundle answers these.")
        if answer is not None and answer not in infos[name].classes:
            raise unknown(f"answer of {name}:", answer, infos[name].classes)
    if not names:
        raise UserError("there is nothing to ask", found="no task", expected=", ".join(infos))
    return [infos[name] for name in names]


def _encoder(store: Store) -> TextEncoder | None:
    """The encoder that embedded the store's notes, if it has any."""
    if "note" not in store.modalities:
        return None
    encoder = text_encoder(store.manifest["settings"]["text_encoder"])
    wanted = store.modalities["note"].settings["encoder"]
    if encoder.fingerprint != wanted:
        raise UserError(
            f"the notes of store {store.path} were embedded by another text encoder",
            found=encoder.fingerprint,
            expected=wanted,
            do="Leave --show-text out, or put the encoder back where it was.",
        )
    return encoder


def _explained(
    model: Network, info: TaskInfo, known: dict[str, Details], answer: str | None, deletion: bool
) -> dict[str, Any]:
    """One task's part of the explanation."""
    tokens = {name: details.tokens for name, details in known.items()}
    output: Output = model(Batch(1, tokens, (info.name,)))
    probable = int(output.logits[info.name][0].argmax())
    question = Question(model, info, probable if answer is None else info.classes.index(answer))
    answers = answers_by_set(question, tokens)
    out: dict[str, Any] = {
        "question": info.question,
        "answer": info.classes[question.answer],
        "probability": float(expit(answers[-1])),
        "log_odds": float(answers[-1]),
        "nothing_known": float(answers[0]),
        "modalities": dict(zip(known, shapley_values(answers).tolist(), strict=True)),
    }
    if output.weights.numel():
        out |= _routing(output)
    if known:
        turned = Turned(question, known)
        found = integrated_gradients(turned)
        out |= _told(turned, found)
        if deletion:
            curve = deletion_curve(turned, found.values)
            out["deletion"] = {
                "share": curve.share.tolist(),
                "by_contribution": curve.by_contribution.tolist(),
                "at_random": curve.at_random.tolist(),
                "area": curve.area,
            }
    return out


def _routing(output: Output) -> dict[str, Any]:
    """Weights of the combinations at hand, their experts, and how much each expert is used."""
    combinations, usage = {}, torch.zeros(output.gates.shape[-1], dtype=torch.float64)
    for place in output.present[0].nonzero()[:, 0].tolist():
        weight, gates = float(output.weights[0, 0, place]), output.gates[0, 0, place]
        usage += weight * gates
        combinations[output.combinations[place]] = {
            "weight": weight,
            "experts": {f"expert {n + 1}": float(g) for n, g in enumerate(gates) if g > 0},
        }
    named = {f"expert {n + 1}": share for n, share in enumerate(usage.tolist()) if share > 0}
    return {"combinations": combinations, "experts": named}


def _told(turned: Turned, found: Contributions) -> dict[str, Any]:
    """Every detail with its contribution, and whether they add up."""
    details = {
        name: {
            "kind": own.kind,
            "grid": own.grid,
            "details": [
                {**detail._asdict(), "contribution": value}
                for detail, value in zip(
                    own.named, found.values[turned.places[name]].tolist(), strict=True
                )
            ],
        }
        for name, own in turned.known.items()
    }
    check = {
        "baseline": found.baseline,
        "jumps": found.jumps,
        "sum": float(found.values.sum()),
        "gap": found.gap,
        "tolerance": found.tolerance,
        "complete": found.complete,
        "points": found.points,
    }
    return {"details": details, "check": check}
