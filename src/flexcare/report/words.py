"""Numbers into words: formats, intervals, and the sentences computed from the results."""

from collections.abc import Sequence
from typing import Any

from flexcare.evaluation.breakdown import SECOND
from flexcare.evaluation.metrics import METRICS
from flexcare.report.content import ALONE, TOGETHER, CompanionRun, Companions, Value

NONE = "–"
# What a guess scores, where that does not depend on the data.
CHANCE = {"auroc": 0.5, "macro_auroc": 0.5, "micro_auroc": 0.5, "quadratic_kappa": 0.0}


def count(number: int | float | None) -> str:
    """12,345"""
    return NONE if number is None else f"{number:,.0f}"


def decimal(number: float | None, like: float | None = None) -> str:
    """Two decimals; three where the number (or `like`) is below 0.1."""
    if number is None:
        return NONE
    small = 0.0005 <= abs(number if like is None else like) < 0.0995
    return f"{number:.{3 if small else 2}f}".replace("-", "−").replace("−0.00", "0.00")


def percent(share: float | None) -> str:
    """A share of 0..1 as a percentage, finer where it is small."""
    if share is None:
        return NONE
    return f"{100 * share:.{0 if share >= 0.0995 or share == 0 else 1}f} %"


def span(value: Value) -> str:
    """The interval alone: (0.48–0.60)."""
    if value.get("low") is None or value.get("high") is None:
        return ""
    low, high = (decimal(value[end], value["value"]) for end in ("low", "high"))
    return f"({low} to {high})" if value["low"] < 0 else f"({low}–{high})"


def with_span(value: Value) -> str:
    """0.54 (0.48–0.60)"""
    return f"{decimal(value.get('value'))} {span(value)}".strip()


def plural(number: int, one: str, many: str = "") -> str:
    """1 stay, 2 stays"""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def listed(parts: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def spaced(name: str) -> str:
    """in_hospital_mortality as people write it."""
    return name.replace("_", " ")


def verdict(difference: dict[str, Any]) -> tuple[str, str]:
    """(class for the page, sentence) on the first model against another."""
    other, gap = difference["against"], difference
    if gap["reading"] == "worse":
        return "worse", f"{other} {_are(other)} better here, by {with_span(_size(gap))}"
    if gap["reading"] == "better":
        return "better", f"better than {other} by {with_span(gap)}"
    if gap["reading"] == "unclear":
        return "unclear", f"no clear difference from {other}"
    return "unclear", f"cannot be compared with {other}: {gap['reason'] or 'no interval'}"


def _size(gap: Value) -> Value:
    """A difference wholly on one side of 0, without its sign."""
    low, high = sorted((abs(gap["low"]), abs(gap["high"])))
    return {"value": abs(gap["value"]), "low": low, "high": high}


def _are(name: str) -> str:
    return "are" if name.endswith("s") else "is"


def verdicts(differences: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The first comparison always; the others only where the first model did not win."""
    shown = [d for k, d in enumerate(differences) if k == 0 or d["reading"] != "better"]
    return [verdict(difference) for difference in shown]


def tally(evaluation: dict[str, Any]) -> str:
    """One sentence on all questions: against the second model."""
    first = [t["differences"][0] for t in evaluation.get("tasks", {}).values() if t["differences"]]
    if not first:
        return ""
    model, other = first[0]["model"], first[0]["against"]
    same = [d["reading"] for d in first if d["against"] == other]
    parts = [
        f"better than {other} on {same.count('better')}" if "better" in same else "",
        f"worse on {same.count('worse')}" if "worse" in same else "",
        f"not clearly different on {len(same) - same.count('better') - same.count('worse')}"
        if len(same) > same.count("better") + same.count("worse")
        else "",
    ]
    of = f"Of {plural(len(same), 'question')}, {model} is "
    return of + listed([part for part in parts if part]) + "."


def kinds_of_sizes(task: dict[str, Any], model: dict[str, Any]) -> str:
    """How many were asked and how often it happened."""
    of = f"{plural(model['samples'], 'sample')} of {plural(model['subjects'], 'patient')}"
    texts = {
        "binary": lambda: f"{percent(model['prevalence'])} of {of} had the outcome.",
        "multilabel": lambda: (
            f"{plural(len(task['classes']), 'label')}, asked of {of}; "
            f"a label holds for {percent(model['prevalence'])} on average."
        ),
        "multiclass": lambda: (
            f"{plural(len(task['classes']), 'class', 'classes')}, asked of {of}; "
            f"the largest holds {percent(model['largest_class'])}."
        ),
    }
    return texts[task["kind"]]()


def result_sentence(task: dict[str, Any], name: str, model: dict[str, Any]) -> str:
    """The primary metric beside what a guess would score, and the second metric."""
    metric, second = task["metric"], SECOND[task["kind"]]
    value = model["metrics"][metric]
    if value["value"] is None:
        return f"No {METRICS[metric].label} can be given: {value['reason']}."
    guess = chance(metric, model)
    beside = f", where a guess scores {decimal(guess)}" if guess is not None else ""
    text = f"{METRICS[metric].label} of {name} is {with_span(value)}{beside}"
    if second != metric:
        text += f"; {METRICS[second].label} {with_span(model['metrics'][second])}"
    return f"{text[0].upper()}{text[1:]}."


def chance(metric: str, model: dict[str, Any]) -> float | None:
    """What a guess scores: average precision of a guess is the share of positives."""
    if metric in ("average_precision", "macro_average_precision"):
        return model.get("prevalence")
    return CHANCE.get(metric)


def calibration_sentence(kind: str, name: str, groups: list[dict[str, Any]]) -> str:
    """Calibration in the large."""
    total = sum(group["samples"] for group in groups)
    if not total:
        return ""
    said, was = (
        sum(group["samples"] * group[key] for group in groups) / total
        for key in ("predicted", "observed")
    )
    if kind == "multiclass":
        return f"{name} was {percent(said)} sure on average, and right in {percent(was)}."
    return f"On average {name} said {percent(said)}, and {percent(was)} happened."


def calibrated_sentence(name: str, model: dict[str, Any]) -> str:
    """What calibration changes, and how it is done."""
    given = model.get("calibrated")
    if not given:
        return ""
    if given["reason"]:
        return f"{name} is not calibrated: {given['reason']}."
    how = ["isotonic scaling"] if given["isotonic"] else []
    if how and given["temperature"]:
        how = [f"isotonic scaling of {plural(len(given['isotonic']), 'label')}"]
    how += [f"a temperature of {decimal(given['temperature'])}"] if given["temperature"] else []
    before, after = (one["metrics"]["calibration_error"]["value"] for one in (model, given))
    return (
        f"Calibrated on the tuning patients by {listed(how)}, its calibration error goes from "
        f"{decimal(before)} to {decimal(after)}."
    )


def sets_sentences(given: dict[str, Any]) -> list[str]:
    """What the sets of a question promise, and whether they keep it."""
    if given["coverage"]["value"] is None:
        return [f"None: {given['coverage']['reason']}."]
    patients = plural(given["tuning_subjects"], "tuning patient")
    out = [
        f"A set holds every answer above a probability that was chosen on {patients}, so that the "
        f"true one is among them for {decimal(given['target'])} of all patients. Here it is for "
        f"{with_span(given['coverage'])}, with {with_span(given['set_size'])} answers a set."
    ]
    if (given["coverage"]["high"] or 1) < given["target"]:
        out.append("That is less than promised: these patients differ from the tuning patients.")
    if given["left_out"]:
        out.append(f"Too few tuning patients for {listed(given['left_out'])}.")
    if given["outcomes"]:
        out.append(f"Of those with the outcome {with_span(given['outcomes']['with'])} are covered.")
    if given["each"]:
        each = given["each"]
        out.append(
            f"With a probability for each answer, {with_span(each['with'])} of those with the "
            f"outcome and {with_span(each['without'])} of those without are covered, by "
            f"{with_span(each['set_size'])} answers a set."
        )
    return out


def under_served(found: dict[str, Any], sets: dict[str, Any] | None) -> str:
    """A group of patients that gets worse answers, with the number that says so."""
    who = group_name(found)
    if sets and found["number"] == "coverage":
        return (
            f"{who}: the true answer is in {with_span(found)} of the sets, "
            f"{decimal(sets['target'])} were promised, and of all patients it is in "
            f"{decimal(sets['coverage']['value'])}."
        )
    label = METRICS[found["number"]].label
    return f"{who}: {label} is lower than that of all patients by {with_span(_size(found))}."


def group_name(found: dict[str, Any]) -> str:
    """sex F"""
    return f"{spaced(found['key'])} {found['group']}"


def under_served_line(evaluation: dict[str, Any]) -> str:
    """One line on all questions: the groups that the first model serves worse."""
    parts = []
    for name, task in evaluation.get("tasks", {}).items():
        first: dict[str, Any] = next(iter(task["models"].values()), {})
        groups = dict.fromkeys(map(group_name, first.get("under_served", [])))
        parts += [f"{spaced(name)} ({', '.join(groups)})"] if groups else []
    told = "Under-served groups of patients, with numbers under each question of the report"
    return f"{told}: {'; '.join(parts)}." if parts else ""


def companions_sentence(companions: Companions) -> str:
    """AUROC 0.93 together, 0.52 alone, best single modality 0.55 (film only); and what it means."""
    values = {run.role: run.held_out.get(companions.task) for run in companions.runs}
    together, alone = values.pop(TOGETHER, None), values.pop(ALONE, None)
    single = {role: v["value"] for role, v in values.items() if v and v.get("value") is not None}
    parts = [f"{decimal(together['value'])} together"] if together else []
    parts += [f"{decimal(alone['value'])} alone"] if alone else []
    if single:
        best = max(single, key=lambda role: single[role])
        parts.append(f"best single modality {decimal(single[best])} ({best})")
    if not parts:
        return ""
    text = f"{METRICS[companions.metric].label} {', '.join(parts)}."
    if not together or not alone or together["low"] is None or alone["high"] is None:
        return text
    if together["low"] > max([alone["high"], *single.values()]):
        return text + " What the other questions taught made this one answerable."
    return text + " This run does not show that the other questions help this one."


def other_questions(companions: Companions) -> list[tuple[str, list[tuple[CompanionRun, Value]]]]:
    """The held-out values of the runs on the questions that are not the picture's."""
    tasks = dict.fromkeys(task for run in companions.runs for task in run.held_out)
    return [
        (task, [(run, run.held_out[task]) for run in companions.runs if task in run.held_out])
        for task in tasks
        if task != companions.task
    ]
