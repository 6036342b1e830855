"""All claims on one offline page, and as claims.md and .json: verdicts with numbers, commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flexcare.errors import UserError
from flexcare.experiments.plan import Overlay, experiments
from flexcare.experiments.run import RESULT
from flexcare.experiments.verdict import REFUTED
from flexcare.experiments.work import INVENTED
from flexcare.files import read_json, whole, write_json
from flexcare.report.figures import COLOURS

TEMPLATES = (Path(__file__).parent, Path(__file__).parents[1] / "report")
PAGE, CLAIMS = "experiments.html", "claims.md"
TOLD = (  # of a result, in claims.json
    "id", "data", "size", "broken", "question", "equal", "refuted_by", "verdict", "rules",
    "seeds", "command", "minutes", "date",
)  # fmt: skip
HEAD = """# Claims

Written by `flexcare report --experiments`. A verdict follows from a rule that stands in the
experiment's file (`src/flexcare/experiments/`) and was fixed before the run: supported where the
whole 95 % interval keeps to the bound, refuted where none of it does, else undecided at this size.
Intervals add the chance of seeds (paired, Student's t) and that of patients (bootstrap); those of
measures that are not drawn by patient say "chance of seeds alone". The patients learned from are
always the same, and no interval is corrected for the number of rules. `demo` is small on purpose:
undecided there says little. On the invented hospital the instrument is tried on a broken variant
too, which must be refuted: by one rule at least, beside each rule stands what it said. Where the
claim is refuted itself, that tells nothing apart. Minutes are those of the processor for trainings
and measures, for two cores.
"""
NOT_RUN = "not run"
Result = dict[str, Any]
Controls = dict[tuple[str, str, str], Result]


def claims(laboratory: Path, told: Path | None = None) -> Path:
    """Write experiments.html into a laboratory, claims.md and .json into `told`; gives the page.

    Args:
        told: a folder, where claims that the laboratory has not run stay as they are; None: the
            laboratory.

    Raises:
        UserError: no experiment has been finished there.
    """
    found = _results(laboratory)
    if not found:
        raise UserError(
            f"no experiment in {laboratory}",
            expected="a folder that `flexcare experiment` works in",
            do="flexcare experiment --list says what there is to run.",
        )
    path = (told or laboratory) / CLAIMS
    known = path.with_suffix(".json")
    earlier = read_json(known, "claims")["claims"] if known.exists() else []
    earlier = [_told(one) for one in earlier]
    new = {(*_key(one), one["broken"]): _told(one) for one, _ in found}
    stay = [one for one in earlier if (*_key(one), one["broken"]) not in new]
    every = sorted([*stay, *new.values()], key=_order)
    with whole(path) as temporary:
        temporary.write_text(markdown(every))
    write_json(known, {"artefact": "claims", "claims": every})
    right = [(one, place) for one, place in found if not one["broken"]]
    with whole(laboratory / PAGE) as temporary:
        temporary.write_text(_page(right, every), encoding="utf-8")
    return laboratory / PAGE


def _results(laboratory: Path) -> list[tuple[Result, Path]]:
    """Every finished experiment and its folder, by claim, set of data and size."""
    paths = sorted(laboratory.glob(f"*/*/*/{RESULT}"))
    found = [(read_json(path, "the result of an experiment"), path.parent) for path in paths]
    return sorted(found, key=lambda one: _order(one[0]))


def _told(result: Result) -> Result:
    """What claims.json has of a result."""
    # Earlier results do not say how many seeds they had.
    seeds = max((len(rule.get("seeds", ())) for rule in result["rules"]), default=0)
    return {name: {"seeds": seeds, **result}[name] for name in TOLD}


def _never(results: Sequence[Result]) -> list[Result]:
    """Claims that were never run on the invented hospital at demo size."""
    known = {_key(one) for one in results}
    out = []
    for one in experiments():
        row = {"id": one.id, "data": INVENTED, "size": "demo", "question": one.question}
        if INVENTED in (one.known() or [INVENTED]) and _key(row) not in known:
            out.append(row | {"verdict": NOT_RUN, "seeds": "", "minutes": "", "date": ""})
    return out


def _order(result: Result) -> tuple[Any, ...]:
    return result["id"], result["data"] != INVENTED, _key(result), result["broken"]


def _controls(results: Sequence[Result]) -> Controls:
    """By claim, set of data and size what was said of the broken variant."""
    return {_key(one): one for one in results if one["broken"]}


def _key(result: Result) -> tuple[str, str, str]:
    return result["id"], result["data"], result["size"]


def markdown(results: Sequence[Result]) -> str:
    """The table of verdicts, and under it each rule with its numbers."""
    controls = _controls(results)
    results = [one for one in results if not one["broken"]]
    lines = [
        HEAD,
        "| claim | question | data | seeds | verdict | broken variant | minutes | date |",
    ]
    lines.append("|---" * 8 + "|")
    for one in [*results, *_never(results)]:
        cells = [one["id"], one["question"], f"{one['data']}, {one['size']}", str(one["seeds"])]
        cells += [one["verdict"], _control(one, controls), str(one["minutes"]), one["date"]]
        lines.append("| " + " | ".join(cells) + " |")
    for one in results:
        lines += ["", f"## {one['id']} on {one['data']}: {one['verdict']}", one["question"], ""]
        lines += [f"    {one['command']}", "", f"Held equal: {one['equal']}", ""]
        lines += [f"Proved wrong by: {one['refuted_by']}", ""]
        lines += [f"Broken variant: {about}" for about in _broken(one)] + [""]
        lines += ["| rule | found | verdict | broken variant |", "|---|---|---|---|"]
        for rule, control in zip(one["rules"], _by_rule(one, controls), strict=True):
            lines.append(f"| {rule['says']} | {said(rule)} | {rule['verdict']} | {control} |")
    return "\n".join(lines) + "\n"


def said(rule: dict[str, Any]) -> str:
    """What was found of a rule: measure, arms, value, interval, bound."""
    arms = f"{rule['of']} minus {rule['minus']}" if rule["minus"] else rule["of"]
    return f"{rule['measure']}, {arms}: {number(rule)}; {rule['bound']} wanted"


def number(told: dict[str, Any]) -> str:
    """A value with its interval."""
    if told["value"] is None:
        return "unknown"
    if told["low"] is None:
        return f"{told['value']:.3f}"
    alone = "" if told.get("patients", True) else ", chance of seeds alone"
    return f"{told['value']:.3f} ({told['low']:.3f} to {told['high']:.3f}{alone})"


def _broken(one: Result) -> list[str]:
    """What is broken in the broken variant, by arm; nothing of an experiment of somebody's own."""
    plans = [plan for plan in experiments() if plan.id == one["id"]]
    arms = [plan.data.get(one["data"], Overlay()).broken or plan.broken for plan in plans]
    return [f"{name}: {arm.about}" for known in arms for name, arm in known.items()]


def _by_rule(one: Result, controls: Controls) -> list[str]:
    """What each rule said of the broken variant."""
    control = controls.get(_key(one))
    if control is None or len(control["rules"]) != len(one["rules"]):
        return [NOT_RUN] * len(one["rules"])
    return [rule["verdict"] for rule in control["rules"]]


def _control(one: Result, controls: Controls) -> str:
    """What the rules together said of the broken variant."""
    control = controls.get(_key(one))
    if control is None:
        return NOT_RUN
    verdict = control["verdict"]
    if verdict == one["verdict"] == REFUTED:
        return "not told apart"
    return "refuted" if verdict == REFUTED else f"NOT found out ({verdict})"


def _page(results: Sequence[tuple[Result, Path]], every: Sequence[Result]) -> str:
    """The table of all claims; those of this laboratory open with figures and numbers."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    controls = _controls(every)
    rows = [
        {
            **one,
            **_told(one),
            "anchor": f"{one['id']}-{one['data']}-{one['size']}",
            "control": _control(one, controls),
            "figures": [Markup(path.read_text()) for path in sorted(place.glob("figure-*.svg"))],
            "broken": _broken(one),
            "told": [
                (rule, said(rule), control)
                for rule, control in zip(one["rules"], _by_rule(one, controls), strict=True)
            ],
            "numbers": {
                arm: {name: number(told) for name, told in side["measures"].items()}
                for arm, side in one["arms"].items()
            },
        }
        for one, place in results
    ]
    here, right = {_key(one) for one, _ in results}, [one for one in every if not one["broken"]]
    bare = [
        one | {"anchor": "", "control": _control(one, controls)}
        for one in [*right, *_never(right)]
        if _key(one) not in here
    ]
    page = environment.get_template("experiments.html")
    return page.render(rows=rows, bare=bare, colours=COLOURS)
