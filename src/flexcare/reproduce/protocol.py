"""What a protocol says: which data, which models on the very same samples, what is compared.

A protocol is a TOML file (runs/ has some); every number that makes a result stands in it or is a
default of config.py.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from flexcare.baselines import named
from flexcare.baselines.networks import NETWORKS
from flexcare.config import (
    Config,
    LogisticConfig,
    Preparation,
    Section,
    TreesConfig,
    check,
    over,
    read_toml,
)
from flexcare.errors import UserError, unknown
from flexcare.presets import read_preset
from flexcare.sources import SOURCES

NETWORK = "network"  # the kind of models that `flexcare train` makes
SETTINGS: dict[str, type[Section]] = {NETWORK: Config} | named.SETTINGS  # by kind of model
Seed = Annotated[int, Field(ge=0)]


class Data(Section):
    """Where the samples come from."""

    source: str
    path: str  # below the folder of the data
    make: str = ""  # script, beside the protocol, that writes the source's tables: PATH OUT
    cxr: str = ""  # companions, below the folder of the data, too
    note: str = ""
    ed: str = ""
    tasks: tuple[str, ...] | None = None  # None: the usual ones of the source
    preset: str = "corrected"
    repeats: int = Field(1, ge=1)  # of all folds, each with another seed of the splits
    preparation: Preparation = Preparation()  # with `folds`, each in turn is held out


class Model(Section):
    """One line of the result."""

    kind: str  # a key of SETTINGS
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)  # several: mean of their probabilities
    alone: bool = False  # a network for each task instead of one for all
    # Those of its kind; a network's are over the protocol's.
    settings: Config | TreesConfig | LogisticConfig | Section = Field(
        Section(), validate_default=True
    )
    preparation: Preparation = Preparation()  # over the data's: this model has other inputs

    @field_validator("settings", mode="before")
    @classmethod
    def _of_its_kind(cls, settings: Any, info: ValidationInfo) -> Section:
        plain = given(settings) if isinstance(settings, Section) else settings
        return SETTINGS.get(info.data.get("kind", NETWORK), Config).model_validate(plain)


class Tuning(Section):
    """What `flexcare tune` tries: by kind of model, values of settings by their dotted names."""

    trials: int = Field(20, ge=1)  # of every model
    network: dict[str, Any] = Field({})
    trees: dict[str, Any] = Field({})
    logistic: dict[str, Any] = Field({})

    def space(self, kind: str) -> dict[str, list[Any]]:
        """By dotted setting the values to try; nothing for a kind that has nothing to tune."""
        return dotted(getattr(self, kind, {}))


class Protocol(Section):
    """The whole."""

    about: str = ""
    first: str  # the model that each other one is compared with
    resamples: int = Field(1000, ge=1)
    every_subset: bool = False  # the first model with some modalities alone, too
    utility: str = ""  # task whose normalised utility is measured, too (evaluation.utility)
    data: Data
    settings: Config = Config()  # of every network
    models: dict[str, Model] = Field(min_length=1)
    tuning: Tuning = Tuning()

    def some(self, names: Collection[str] | None) -> "Protocol":
        """The protocol with some of its models only; None: with all.

        Raises:
            UserError: a name that is none of them.
        """
        for name in names or ():
            if name not in self.models:
                raise unknown("model", name, self.models)
        chosen = {n: one for n, one in self.models.items() if names is None or n in names}
        return self.model_copy(update={"models": chosen})

    def settings_of(self, name: str) -> dict[str, Any]:
        """All settings that were given for a model."""
        model = self.models[name]
        below = given(self.settings) if model.kind == NETWORK else {}
        return over(below, given(model.settings))

    def resolved(self, name: str) -> dict[str, Any]:
        """A model's settings, with the preset's and the defaults."""
        kind, below = self.models[name].kind, {}
        if kind == NETWORK:
            below = read_preset(self.data.preset).get("training", {})
        found = check(SETTINGS[kind], over(below, self.settings_of(name)), f"model {name}")
        return found.model_dump(mode="json")

    def with_settings(self, chosen: dict[str, dict[str, Any]], where: str) -> "Protocol":
        """The protocol with dotted settings over those of some models.

        Args:
            where: they were found, for the message about one that is of no use.
        """
        models = dict(self.models)
        for name, settings in chosen.items():
            model = models[name]
            values = over(given(model.settings), nested(settings))
            checked = check(SETTINGS[model.kind], values, f"{where}, {name}")
            models[name] = model.model_copy(update={"settings": checked})
        return self.model_copy(update={"models": models})


def read_protocol(path: Path) -> Protocol:
    """Read and check a protocol.

    Raises:
        UserError: no such file, a setting that is unknown (with its dotted path) or of no use, a
            name that stands for nothing.
    """
    protocol = check(Protocol, read_toml(path), str(path))
    if protocol.data.source not in SOURCES:
        raise unknown("source", protocol.data.source, SOURCES)
    if protocol.first not in protocol.models:
        raise unknown("model (first)", protocol.first, protocol.models)
    for name, model in protocol.models.items():
        if model.kind not in SETTINGS:
            raise unknown(f"kind of model {name}:", model.kind, SETTINGS)
        if isinstance(model.settings, Config) and model.settings.network not in NETWORKS:
            raise unknown(f"network of model {name}:", model.settings.network, NETWORKS)
    for kind in SETTINGS:
        _check_space(kind, protocol.tuning.space(kind), str(path))
    if protocol.every_subset and protocol.models[protocol.first].kind != NETWORK:
        raise UserError(
            "every_subset is asked of a model that cannot leave out modalities",
            found=f"first = {protocol.first!r} of kind {protocol.models[protocol.first].kind}",
            expected=f"a model of kind {NETWORK}",
        )
    return protocol


def given(settings: Section) -> dict[str, Any]:
    """The settings that were given, without defaults."""
    return settings.model_dump(mode="json", exclude_unset=True)


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        name, _, rest = key.partition(".")
        out = over(out, {name: nested({rest: value}) if rest else value})
    return out


def value_of(settings: dict[str, Any], key: str) -> Any:
    """What a dotted key stands for in tables of settings, None where there is nothing."""
    found: Any = settings
    for name in key.split("."):
        found = (found or {}).get(name)
    return found


def dotted(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    out: dict[str, Any] = {}
    for key, value in tables.items():
        name = prefix + key
        out |= dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return out


def _check_space(kind: str, space: dict[str, Any], where: str) -> None:
    """Refuse a setting that the kind does not have, and a value that it cannot have."""
    for key, values in space.items():
        if not isinstance(values, list) or not values:
            raise UserError(
                f"tuning.{kind}.{key} in {where} is no list of values",
                found=repr(values),
                expected="the values to try, such as [1, 2]",
            )
        for value in values:
            check(SETTINGS[kind], nested({key: value}), f"{where}, tuning.{kind}")
