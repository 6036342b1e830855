"""The commands of experiments: list them, run one or all."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def experiment(
    name: str = "",
    /,
    *,
    data: str = "synthetic",
    seeds: int | None = None,
    size: Literal["demo", "full"] = "demo",
    broken: bool = False,
    folder: Path | None = None,
    out: Path = Path("laboratory"),
    processes: int | None = None,
    list_: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Put a claim to the test: supported, refuted or undecided, by a rule written before.

    Args:
        name: id or name of an experiment, a TOML file, or `all`.
        data: synthetic, eicu, physionet2012, or the path of a store.
        seeds: trainings of each arm.
        size: demo takes minutes, full hours.
        broken: the thing under test made a known failure, to see that the rule can refute.
        folder: folder that holds the data sets; $FLEXCARE_OPEN_DATA if absent.
        out: folder to work in, where the same command goes on.
        processes: trainings at a time; one a core if absent.
        list_: what there is, and what would prove it wrong.
        as_json: the list as JSON.
    """
    from flexcare.errors import UserError
    from flexcare.experiments import experiment as run
    from flexcare.experiments.plan import experiments, known_data
    from flexcare.experiments.run import RESULT
    from flexcare.files import read_json

    if list_:
        if name:
            raise UserError("--list is of all experiments", found=name, expected="--list alone")
        print(json.dumps(listed(), indent=1) if as_json else "\n\n".join(map(told, listed())))
        return
    if as_json:
        raise UserError("--json is of the list", expected="--list --json")
    if not name:
        raise UserError("no experiment is named", expected="an id of flexcare experiment --list")
    chosen = [name]
    if name == "all":
        known = known_data(data)
        runnable = [one for one in experiments() if known in (one.known() or [known])]
        chosen = [one.id for one in runnable if one.broken or not broken]
    minutes = 0.0
    for one in chosen:
        place = run(
            one, data=data, seeds=seeds, size=size, broken=broken, folder=folder, out=out,
            processes=processes,
        )  # fmt: skip
        print(f"experiment: {place}")
        minutes += read_json(place / RESULT, "the result of an experiment")["minutes"]
    if name == "all":
        print(f"{len(chosen)} experiments: {minutes:.1f} minutes on two cores")


def listed() -> list[dict[str, object]]:
    """What --list says of each."""
    from flexcare.experiments.plan import STORE, experiments

    parts = {"id", "name", "question", "minutes", "refuted_by"}
    known = [(one, one.known() or ["any"]) for one in experiments()]
    named = [(one, ["a store's path" if d == STORE else d for d in data]) for one, data in known]
    return [one.model_dump(mode="json", include=parts) | {"data": data} for one, data in named]


def told(one: dict[str, object]) -> str:
    """The same for people."""
    known = dict(one["minutes"])  # type: ignore[call-overload]
    minutes = ", ".join(
        f"{size} {known[size]:.0f} min" if size in known else f"{size} not timed"
        for size in ("demo", "full")
    )
    return (
        f"{one['id']} ({one['name']}): {one['question']}\n"
        f"  on {', '.join(one['data'])}; {minutes} on two cores\n"  # type: ignore[arg-type]
        f"  proved wrong by: {one['refuted_by']}"
    )
