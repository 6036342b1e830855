"""A bundle: the folder with all that prediction needs. A checkpoint (to resume) is another thing.

weights.safetensors   every parameter, as trained
bundle.json           schema version, network, settings, modalities, tasks, scaling, provenance, and
                      how many networks it is the mean of (members); all lie in the one file
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flexcare.baselines.networks import NETWORKS
from flexcare.config import ModelConfig, check
from flexcare.errors import UserError, unknown
from flexcare.files import read_json, sha256, whole, write_json
from flexcare.models.ensemble import Ensemble
from flexcare.models.network import Network
from flexcare.schema import BUNDLE_VERSION, ModalityInfo, TaskInfo, check_version

WEIGHTS, DESCRIPTION = "weights.safetensors", "bundle.json"


@dataclass
class Bundle:
    """A network ready to predict.

    Attributes:
        model: in eval mode, on the CPU.
        modalities: as the model holds them, sorted by name.
        tasks: in the order of the task embedding's rows.
        scaling: what the feature functions need to make the same numbers again.
        provenance: where it came from.
    """

    model: Network
    modalities: tuple[ModalityInfo, ...]
    tasks: tuple[TaskInfo, ...]
    scaling: dict[str, Any]
    provenance: dict[str, Any]


def save_bundle(
    path: Path, model: Network, scaling: dict[str, Any], provenance: dict[str, Any]
) -> None:
    """Write a bundle folder, whole or not at all; one that stands there is replaced.

    Raises:
        UserError: something to be written is no JSON, or the disk is full.
    """
    network, members = model.name, 1
    if isinstance(model, Ensemble):
        network, members = model.network, len(model.members)
    description: dict[str, Any] = {
        "version": BUNDLE_VERSION,
        "network": network,
        "members": members,
        "model": model.config.model_dump(),
        "modalities": [asdict(info) for info in model.modalities],
        "tasks": [asdict(info) for info in model.tasks],
        "scaling": scaling,
        "provenance": provenance,
    }
    _refuse_other_than_json(description)
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    with whole(path) as folder:
        folder.mkdir()
        save_file(weights, folder / WEIGHTS)
        description["weights_sha256"] = sha256(folder / WEIGHTS)
        write_json(folder / DESCRIPTION, description)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle folder.

    Raises:
        UserError: no bundle, a damaged one, one of another schema version, or weights that do
            not fit the settings.
    """
    description = read_json(path / DESCRIPTION, "the description of a bundle")
    if not isinstance(description, dict):
        raise _damaged(path, f"{DESCRIPTION} is not a table")
    check_version(description.get("version"), BUNDLE_VERSION, f"bundle {path}")
    try:
        config = check(ModelConfig, description["model"], f"{path / DESCRIPTION}: model")
        modalities = [ModalityInfo(**info) for info in description["modalities"]]
        tasks = [
            TaskInfo(**info | {"classes": tuple(info["classes"])}) for info in description["tasks"]
        ]
        scaling, provenance = description["scaling"], description["provenance"]
        # Earlier bundles do not say these.
        network, members = description.get("network", "flexcare"), description.get("members", 1)
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"{DESCRIPTION}: {error}") from None
    if network not in NETWORKS:
        raise unknown(f"network of bundle {path}:", str(network), NETWORKS)
    if not isinstance(members, int) or members < 1:
        raise _damaged(path, f"{DESCRIPTION}: {members!r} members")
    networks = [NETWORKS[network](config, modalities, tasks) for _ in range(members)]
    model = networks[0] if members == 1 else Ensemble(networks)
    _fill(model, path, description.get("weights_sha256"))
    return Bundle(model.eval(), model.modalities, model.tasks, scaling, provenance)


def _fill(model: Network, path: Path, fingerprint: object) -> None:
    """Put the weights of the bundle into the model, in the precision they were saved with."""
    file = path / WEIGHTS
    if not file.is_file():
        raise _damaged(path, f"no {WEIGHTS}")
    if sha256(file) != fingerprint:
        raise _damaged(path, f"{WEIGHTS} is not the file that {DESCRIPTION} describes")
    try:
        weights = load_file(file)
    except SafetensorError as error:
        raise _damaged(path, f"{WEIGHTS}: {error}") from None
    faults = misfits(weights, model.state_dict())
    if faults:
        raise UserError(
            f"the weights of bundle {path} do not fit its settings",
            found="; ".join(faults[:5]) + (f"; {len(faults) - 5} more" if faults[5:] else ""),
            expected="the tensors of the network that its settings describe",
            do="Save the bundle again from the model.",
        )
    # Copied: a tensor inside the file's memory may be aligned otherwise, and then sums otherwise.
    model.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)


def misfits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """What is missing, unexpected or of another shape among named tensors, in words."""
    faults = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    faults += [f"unexpected {name}" for name in sorted(found.keys() - expected.keys())]
    return faults + [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]


def _refuse_other_than_json(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            "a bundle cannot hold this",
            found=str(error),
            expected="texts, finite numbers, lists and tables with text keys",
        ) from None


def _damaged(path: Path, found: str) -> UserError:
    return UserError(
        f"bundle {path} is damaged",
        found=found,
        expected=f"{DESCRIPTION} and {WEIGHTS} as they were written",
        do="Copy or make the bundle again.",
    )
