"""What a protocol says: which data, which models on the very same samples, what is compared.

A protocol is a TOML file (runs/ has some); every number that makes a result stands in it or is a
default of config.py.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from flexcare.baselines.named import BASELINES
from flexcare.baselines.networks import NETWORKS
from flexcare.config import Config, Preparation, Section, check, read_toml
from flexcare.errors import UserError, unknown
from flexcare.sources import SOURCES

NETWORK = "network"  # the kind of models that `flexcare train` makes
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

    kind: str  # network, or a name of baselines.BASELINES
    seeds: tuple[Seed, ...] = Field((0,), min_length=1)  # several: mean of their probabilities
    alone: bool = False  # a network for each task instead of one for all
    settings: Config = Config()  # of a network, over the protocol's
    preparation: Preparation = Preparation()  # over the data's: this model has other inputs


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
        if model.kind not in (NETWORK, *BASELINES):
            raise unknown(f"kind of model {name}:", model.kind, (NETWORK, *BASELINES))
        if model.settings.network not in NETWORKS:
            raise unknown(f"network of model {name}:", model.settings.network, NETWORKS)
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
