"""How good the answers are: with all that is known, and with some modalities only."""

from flexcare.evaluation.compare import AREA, AREAS, MEAN, OWN, Scores
from flexcare.experiments.measures.trained import Found, Trained
from flexcare.experiments.verdict import Value


def answers(run: Trained) -> Found:
    """TASK/METRIC of each task's own metric and its AUROC, mean/own_metric and mean/auroc."""
    return Found(_values(run, run.judge().scores(run.predictions())))


def subsets(run: Trained) -> Found:
    """The same "given MODALITY+MODALITY", for every set of modalities: the others taken away."""
    judge, out = run.judge(), Found()
    for name, without in run.subsets():
        found = _values(run, judge.scores(run.predictions(without)))
        out.values |= {f"{key} given {name}": value for key, value in found.items()}
    return out


def _values(run: Trained, scores: Scores) -> dict[str, Value]:
    wanted = {(MEAN, OWN): f"mean/{OWN}", (MEAN, AREAS): f"mean/{AREAS}"}
    for info in run.model.tasks:
        for metric in (info.metric, AREA.get(info.kind)):
            wanted[info.name, metric or info.metric] = f"{info.name}/{metric or info.metric}"
    if len(run.model.tasks) == 1:  # its mean is itself
        info = run.model.tasks[0]
        scores = scores | {(MEAN, OWN): scores[info.name, info.metric]}
    return {
        name: Value(scores[key].value, tuple(scores[key].drawn.tolist()))
        for key, name in wanted.items()
        if key in scores and scores[key].value == scores[key].value
    }
