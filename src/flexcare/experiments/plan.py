"""What an experiment says before it is run: arms, what is held equal, and the rule of its verdict.

An experiment is a TOML file of this folder, a set of data one of its folder data/. The rule stands
in the file in plain terms, and the same function judges all (verdict.py).
"""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flexcare.config import Config, Section, check, over, read_toml
from flexcare.errors import UserError, unknown
from flexcare.reproduce.protocol import Data, given

Size = Literal["demo", "full"]
BOUNDS = ("at_least", "at_most", "more_than")
AT = " at "  # between an arm and a value of the sweep
STORE, MANIFEST = "store", "manifest.json"  # the set of data that somebody brings, its file
Settings = dict[str, Any]


class Sized(Section):
    """How large a set of data is worked on."""

    subjects: int = 0  # of the invented hospital
    settings: Config = Config()


class DataSet(Section):
    """Where samples come from, and the network that suits them."""

    about: str
    data: Data
    settings: Config = Config()
    sizes: dict[Size, Sized] = Field({})


class Arm(Section):
    """One side of a comparison.

    Attributes:
        settings: what differs.
        extends: another arm, whose network learns the tasks or modalities that it lacks
            (training.extend); unfreeze: and everything else with them.
    """

    about: str = ""
    settings: Config = Config()
    extends: str = ""
    unfreeze: bool = False


class Sweep(Section):
    """Every arm again at each value of a setting, as "ARM at VALUE"; one that sets it keeps it."""

    setting: str  # dotted path
    axis: str  # what its values are, for people
    values: tuple[float | int | str, ...]
    full: tuple[float | int | str, ...] = ()  # at full size
    log: bool = False


class Rule(Section):
    """A claim: the measure `of` an arm, less that `minus` another, lies on one side of a bound."""

    says: str
    measure: str
    of: str
    minus: str = ""
    at_least: float | None = None
    at_most: float | None = None
    more_than: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """Those that are given: one."""
        every = {name: getattr(self, name) for name in BOUNDS}
        return {name: bound for name, bound in every.items() if bound is not None}

    @property
    def bound(self) -> str:
        """It in words."""
        return " and ".join(f"{name.replace('_', ' ')} {at}" for name, at in self.bounds.items())


class Drawing(Section):
    """One figure.

    Attributes:
        kind: dots (arms beside each other), lines (along the sweep), epochs (on the tuning split)
            or heat (a table that a measure shows).
        of: measures, a panel each; of epochs a task, or "mean"; of heat the name of the table.
    """

    kind: Literal["dots", "lines", "epochs", "heat"]
    of: tuple[str, ...]
    title: str


class Overlay(Section):
    """What differs on one set of data.

    Attributes:
        store: what differs in its [data] (reproduce.protocol.Data).
        settings: of every arm; arms: what differs in some, or arms that are there only here.
        without: arms that are not there; rules, broken: in place of the others, if any are given.
    """

    store: Settings = Field({})
    settings: Config = Config()
    arms: dict[str, Arm] = Field({})
    without: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    broken: dict[str, Arm] = Field({})


class Experiment(Section):
    """The whole.

    Attributes:
        id: of SPEC 10, or a letter for those that anyone would run first; name: in a word.
        equal: what is held equal, in words.
        refuted_by: what would prove it wrong.
        minutes: by size, on the invented hospital and two cores, where it was measured.
        planted: needs the truth of the invented hospital.
        data: by set of data, what differs there; empty: it runs on any.
        measures: families of measures (measures.MEASURES).
        broken: by arm, what makes the thing under test a known failure; the verdict must turn.
    """

    id: str
    name: str
    question: str
    equal: str
    refuted_by: str
    minutes: dict[Size, float]
    seeds: int = Field(5, ge=1)
    planted: bool = False
    settings: Config = Config()
    arms: dict[str, Arm] = Field({})
    sweep: Sweep | None = None
    data: dict[str, Overlay] = Field({})
    measures: tuple[str, ...] = Field(min_length=1)
    rules: tuple[Rule, ...] = ()
    figures: tuple[Drawing, ...] = Field(min_length=1)
    broken: dict[str, Arm] = Field({})

    def known(self) -> list[str]:
        """The sets of data that it can be run on; empty: any."""
        return ["synthetic"] if self.planted else list(self.data)

    def on(self, data: str) -> "Experiment":
        """The same as it is run on a set of data.

        Raises:
            UserError: it cannot be.
        """
        if self.known() and data not in self.known():
            raise UserError(
                f"experiment {self.id} cannot be run on {data}",
                found="no planted truth" if self.planted else f"nothing about {data} in its file",
                expected="one of " + ", ".join(self.known()),
            )
        here = self.data.get(data, Overlay())
        arms = {name: arm for name, arm in self.arms.items() if name not in here.without}
        for name, arm in here.arms.items():
            arms[name] = both(arms.get(name, Arm()), arm)
        settings = over(given(self.settings), given(here.settings))
        changed = {
            "arms": arms,
            "settings": Config(**settings),
            "rules": here.rules or self.rules,
            "broken": here.broken or self.broken,
        }
        return self.model_copy(update=changed)

    def variants(self, base: Settings, size: Size, broken: bool) -> dict[str, Settings]:
        """By arm, and value of the sweep, the settings of its trainings."""
        base = over(base, given(self.settings))
        out: dict[str, Settings] = {}
        for name in self.arms:
            settings = given(self.arm(name, broken).settings)
            if self.sweep is None:
                out[name] = over(base, settings)
            for value in self.points(size):
                assert self.sweep is not None
                below = over(base, nested(self.sweep.setting, value))
                out[at_value(name, value)] = over(below, settings)
        return out

    def arm(self, variant: str, broken: bool) -> Arm:
        """The arm that is called so, perhaps at a value of the sweep, and perhaps broken."""
        name = variant.split(AT)[0]
        return both(self.arms[name], self.broken.get(name, Arm()) if broken else Arm())

    def points(self, size: Size) -> tuple[float | int | str, ...]:
        """The values of the sweep."""
        if self.sweep is None:
            return ()
        return self.sweep.full if size == "full" and self.sweep.full else self.sweep.values


def at_value(arm: str, value: float | int | str) -> str:
    """The name of an arm at a value of the sweep."""
    return f"{arm}{AT}{value}"


def both(below: Arm, above: Arm) -> Arm:
    """An arm with what another says over it."""
    return Arm(**over(given(below), given(above)))


def nested(path: str, value: Any) -> Settings:
    """The table of one setting: ("a.b", 1) -> {"a": {"b": 1}}."""
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


def read_experiment(name: str) -> Experiment:
    """An experiment by its id or its name, or of a TOML file.

    Raises:
        UserError: no such experiment, or one that contradicts itself.
    """
    if name.endswith(".toml"):
        return _checked(Path(name))
    known = experiments()
    for one in known:
        if name.lower() in (one.id.lower(), one.name):
            return one
    raise unknown("experiment", name, [word for one in known for word in (one.id, one.name)])


def experiments() -> list[Experiment]:
    """All of the package, in the order of their files."""
    return [_checked(path) for path in _files("")]


def is_store(data: str) -> bool:
    """Whether it is the path of a store."""
    return (Path(data) / MANIFEST).is_file()


def known_data(data: str) -> str:
    """The set of data that is meant by a name or the path of a store.

    Raises:
        UserError: neither.
    """
    if is_store(data):
        return STORE
    if data == STORE or "/" in data:
        raise UserError(
            f"no {MANIFEST} in {data}", expected="a folder that `flexcare prepare` wrote"
        )
    read_data(data)
    return data


def read_data(name: str) -> DataSet:
    """A set of data of the package, or of a store that somebody brings."""
    known = {path.stem: path for path in _files("data")}
    if name not in known:
        names = known.keys() - {STORE}
        raise unknown("set of data", name, names, "The path of a store works too.")
    return check(DataSet, read_toml(known[name]), f"data set {name}")


def _files(folder: str) -> list[Path]:
    here = Path(str(files("flexcare.experiments"))) / folder
    return sorted(here.glob("*.toml"))


def _checked(path: Path) -> Experiment:
    found = check(Experiment, read_toml(path), path.name)
    for data in found.known() or ["synthetic"]:
        _check(found.on(data), f"{path.name} on {data}")
    return found


def _check(found: Experiment, where: str) -> None:
    """Refuse rules that do not say one thing about arms that are there."""
    sizes: tuple[Size, ...] = ("demo", "full")
    both = set(found.points(sizes[0])) & set(found.points(sizes[1]))
    arms = [at_value(arm, value) for arm in found.arms for value in both] or list(found.arms)
    if not found.rules or not arms:
        raise UserError(f"{where} has nothing to judge", expected="arms and rules")
    for rule in found.rules:
        for name in filter(None, (rule.of, rule.minus)):
            if name not in arms:
                raise unknown(f"arm of a rule of {where}:", name, arms)
        if len(rule.bounds) != 1:
            raise UserError(
                f"a rule of {where} has no one bound",
                found=f"{rule.says} {rule.bound}".strip(),
                expected="one of " + ", ".join(BOUNDS),
            )
    for name, arm in found.arms.items():
        trained = [one for one, other in found.arms.items() if not other.extends]
        if arm.extends and arm.extends not in trained:
            raise unknown(f"arm that {name} of {where} extends:", arm.extends, trained)
    for name in found.broken:
        if name not in found.arms:
            raise unknown(f"broken arm of {where}:", name, found.arms)
