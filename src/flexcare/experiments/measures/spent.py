"""What a training was given: so that what is held equal can be seen to be."""

import numpy as np

from flexcare.experiments.measures.trained import Found, Trained, epochs_of
from flexcare.experiments.verdict import Value
from flexcare.files import read_json
from flexcare.training.labels import labelled
from flexcare.training.run import having
from flexcare.training.schedules import Plan


def spent(run: Trained) -> Found:
    """steps, encodings (patients at a time, each of them encoded once a step), answers (labels
    learned from, with repeats), labelled (samples with a label that was kept), parameters; course,
    the mean over tasks on the tuning split, averaged over the epochs: higher is learned faster.
    """
    tasks, training = run.config.tasks or (), run.config.training
    about = read_json(run.path / "config.json", "the settings of a run")
    new = about.get("extends", {}).get("modalities", [])  # an extension's patients have them
    rows = {task: having(run.store, run.store.rows(task, "train"), new) for task in tasks}
    rows = labelled(run.store, rows, training)
    plan = Plan(run.store, rows, training)
    epochs = epochs_of(run.path)
    steps = [step for line in epochs for step in plan.epoch(line["epoch"])]
    reached = [line["mean"] for line in epochs if line["mean"] is not None]
    values = {
        "steps": len(steps),
        "encodings": sum(len(step.rows) for step in steps),
        "answers": sum(int((step.rows >= 0).sum()) for step in steps),
        "labelled": sum(map(len, rows.values())),
        "parameters": about["parameters"],
    }
    course = {"course": float(np.mean(reached))} if reached else {}
    return Found({name: Value(float(value)) for name, value in (values | course).items()})
