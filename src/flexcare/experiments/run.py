"""Puts an experiment together: its rule, trainings of every arm, measures, verdict, figures."""

import importlib.metadata
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from flexcare.errors import UserError, unknown
from flexcare.experiments.figures import Epochs, draw
from flexcare.experiments.measures import MEASURES
from flexcare.experiments.measures.trained import Found, epochs_of
from flexcare.experiments.plan import (
    AT,
    STORE,
    Experiment,
    Rule,
    Size,
    known_data,
    read_experiment,
)
from flexcare.experiments.verdict import REFUTED, Estimate, estimate, judge, together
from flexcare.experiments.work import INVENTED, Ground, Job, all_done, ground_of
from flexcare.files import read_json, whole, write_json
from flexcare.reproduce.work import Say, data_folder
from flexcare.training.aggregators import Aggregator

PLAN, RESULT = "plan.json", "result.json"
LABORATORY = Path("laboratory")
CORES = 2  # that minutes are told for


def experiment(
    name: str,
    *,
    data: str = "synthetic",
    seeds: int | None = None,
    size: Size = "demo",
    broken: bool = False,
    folder: str | Path | None = None,
    out: str | Path = LABORATORY,
    processes: int | None = None,
    say: Say = print,
) -> Path:
    """Run an experiment, or go on with it.

    Args:
        name: its id or name, or a TOML file (plan.Experiment).
        data: synthetic, eicu, physionet2012, or the path of a store.
        seeds: of each arm; None: what the experiment says.
        size: demo (minutes) or full.
        broken: the thing under test made a known failure, to see that the rule can refute.
        folder: that holds the data sets (FLEXCARE_OPEN_DATA).
        out: where all experiments work; trainings that they share are made once.
        processes: trainings at a time; None: one a core.

    Returns:
        The folder with result.json and the figures.

    Raises:
        UserError: bad input, a rule that is no longer the one the work was begun with, TorchJD
            missing for an aggregator.
    """
    for option, number in (("seeds", seeds), ("processes", processes)):
        if number is not None and number < 1:
            raise UserError(f"too few {option}", found=str(number), expected="1 or more")
    out, known = Path(out), known_data(data)
    written = read_experiment(name)
    plan = written.on(known)
    for family in plan.measures:
        if family not in MEASURES:
            raise unknown(f"family of measures of {plan.id}:", family, MEASURES)
    if broken and not plan.broken:
        raise UserError(f"experiment {plan.id} has no broken variant")
    needs = known not in (INVENTED, STORE)
    other = written.data[known].store if known in written.data else {}
    below = data_folder(folder, "--folder") if needs else None
    ground = ground_of(data, size, below, out, say, other)
    place = out / ground.name / size / (f"{plan.id}-broken" if broken else plan.id)
    _begin(plan, ground, place)
    count = plan.seeds if seeds is None else seeds
    jobs = _jobs(plan, ground, size, broken, count, out)
    every = [job for of_arm in jobs.values() for job in of_arm]
    for name in {job.settings["training"]["aggregator"] for job in every} - {"sum"}:
        Aggregator(name, ())  # that TorchJD is missing is told before the first training
    say(f"{plan.id}: {len(jobs)} arms, {count} seeds")
    all_done(every, processes or os.cpu_count() or 1, say)
    found = {arm: [job.found() for job in of_arm] for arm, of_arm in jobs.items()}
    result = _result(plan, ground.name, size, broken, found, jobs)
    result["seeds"] = count
    where = "STORE" if known == STORE else data
    result["command"] = _command(plan, where, size, broken, seeds)
    seconds = sum(one.seconds for of_arm in found.values() for one in of_arm)
    result["minutes"] = round(seconds / 60 / CORES, 1)
    epochs = _epochs(jobs, found, say)
    for number, drawing in enumerate(plan.figures, 1):
        drawn = draw(drawing, plan, size, found, epochs)
        if drawn is not None:
            with whole(place / f"figure-{number}.svg") as temporary:
                temporary.write_text(drawn)
    write_json(place / RESULT, result)
    for line in _told(result):
        say(line)
    return place


def _epochs(jobs: dict[str, list[Job]], found: dict[str, list[Found]], say: Say) -> Epochs:
    """By arm and seed what each epoch did; says which trainings tell nothing."""
    out = {}
    for arm, of_arm in jobs.items():
        runs = [job.run for job, one in zip(of_arm, found[arm], strict=True) if not one.diverged]
        if len(runs) < len(of_arm):
            lost = len(of_arm) - len(runs)
            say(f"arm {arm}: {lost} of {len(of_arm)} trainings diverged, without a number")
        if runs:
            out[arm] = [epochs_of(run) for run in runs]
    return out


def _begin(plan: Experiment, ground: Ground, place: Path) -> None:
    """Write rule and conditions before the first training, or see that they are the same."""
    parts = {"arms", "sweep", "rules", "settings", "broken"}
    now = plan.model_dump(mode="json", include=parts, exclude_unset=True)
    now |= {"conditions": ground.conditions}
    path = place / PLAN
    if path.exists() and read_json(path, "the plan of an experiment") != now:
        raise UserError(
            f"experiment {plan.id} was begun with another rule",
            found=f"another plan in {path}",
            expected="the rule, the data and the settings that were written before the run",
            do=f"Remove {place} to begin anew; trainings that are still wanted are kept.",
        )
    write_json(path, now)


def _jobs(
    plan: Experiment, ground: Ground, size: Size, broken: bool, seeds: int, out: Path
) -> dict[str, list[Job]]:
    """By arm a job for each seed."""
    variants = plan.variants(ground.settings, size, broken)

    def job(variant: str, seed: int) -> Job:
        arm = plan.arm(variant, broken)
        settings = ground.resolved(variants[variant], seed)
        if not arm.extends:
            return Job(ground, out, settings, plan.measures)
        base = job(AT.join([arm.extends, *variant.split(AT)[1:]]), seed)
        return Job(ground, out, settings, plan.measures, base, arm.unfreeze)

    return {variant: [job(variant, seed) for seed in range(seeds)] for variant in variants}


def _result(
    plan: Experiment,
    data: str,
    size: Size,
    broken: bool,
    found: dict[str, list[Found]],
    jobs: dict[str, list[Job]],
) -> dict[str, Any]:
    """All numbers, and the verdict."""
    rules = [_ruled(rule, found) for rule in plan.rules]
    return {
        "artefact": "experiment",
        **plan.model_dump(include={"id", "name", "question", "equal", "refuted_by"}),
        "data": data,
        "size": size,
        "broken": broken,
        "date": date.today().isoformat(),
        "versions": {one: importlib.metadata.version(one) for one in ("flexcare", "torch")},
        "verdict": together([one["verdict"] for one in rules]),
        "rules": rules,
        "arms": {
            arm: {
                "about": plan.arm(arm, broken).about,
                "settings": jobs[arm][0].settings,
                "measures": _measures(one),
            }
            for arm, one in found.items()
        },
        "shown": {arm: one[0].shown for arm, one in found.items()},
    }


def _ruled(rule: Rule, found: dict[str, list[Found]]) -> dict[str, Any]:
    """A rule with what was found and what it says of it."""
    arms = [found[arm] for arm in (rule.of, rule.minus) if arm]
    sides = [[one.values.get(rule.measure) for one in arm] for arm in arms]
    told = estimate(*sides)
    verdict = judge(told, **rule.bounds)
    return {
        **rule.model_dump(include={"says", "measure", "of", "minus"}),
        "bound": rule.bound,
        **_json(told),
        "verdict": verdict,
    }


def _measures(found: Sequence[Found]) -> dict[str, Any]:
    names = dict.fromkeys(name for one in found for name in one.values)
    return {name: _json(estimate([one.values.get(name) for one in found])) for name in names}


def _json(told: Estimate) -> dict[str, Any]:
    values = {"value": told.value, "low": told.low, "high": told.high}
    rounded = {k: None if v is None else round(v, 6) for k, v in values.items()}
    seeds = [round(one, 6) for one in told.seeds]
    return rounded | {"seeds": seeds, "patients": told.patients}


def _command(plan: Experiment, data: str, size: Size, broken: bool, seeds: int | None) -> str:
    """That repeats it."""
    parts = ["flexcare experiment", plan.id, f"--data {data}"]
    parts += [f"--size {size}"] if size != "demo" else []
    parts += [f"--seeds {seeds}"] if seeds is not None else []
    return " ".join([*parts, *(["--broken"] if broken else [])])


def _told(result: dict[str, Any]) -> list[str]:
    """The verdict, for the terminal."""
    lines = [f"{result['id']} on {result['data']}: {result['verdict']}"]
    for rule in result["rules"]:
        # No training has measured it: a slip in the rule, or data that it cannot be told of.
        unknown = f"unknown, nothing measures {rule['measure']} here"
        value = unknown if rule["value"] is None else f"{rule['value']:.3f}"
        span = "" if rule["low"] is None else f" ({rule['low']:.3f} to {rule['high']:.3f})"
        lines.append(f"  {rule['verdict']}: {rule['says']} {value}{span}, {rule['bound']} wanted")
    if result["broken"]:
        right = result["verdict"] == REFUTED
        lines.append("  the broken variant was " + ("found out" if right else "NOT found out"))
    return lines
