"""A checkpoint of the authors' research code -> a bundle of ours (SPEC 11)."""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from flexcare.config import ModelConfig, check
from flexcare.errors import UserError
from flexcare.files import sha256
from flexcare.models.flexcare import FlexCare
from flexcare.schema import ModalityInfo, TaskInfo
from flexcare.serving.bundle import misfits, save_bundle
from flexcare.tasks import load_task

# A tensor of ours: the tensors of theirs it comes from, and how.
Source = tuple[tuple[str, ...], Callable[[list[Tensor]], Tensor]]

# Our task -> row of their task embedding, their name of its head.
TASKS = {
    "in_hospital_mortality": (0, "mortality"),
    "decompensation": (1, "decomp"),
    "phenotyping": (2, "ph"),
    "length_of_stay": (3, "los"),
    "readmission": (4, "readm"),
    "diagnosis": (5, "diag"),
}
# Tensors that only change their name, apart from those of layers and heads.
RENAMED = {
    "encoders.series.project.weight": "ehr_projection.weight",
    "encoders.series.project.bias": "ehr_projection.bias",
    "encoders.film.project.bias": "patch_projection.proj.bias",
    "encoders.note.project.weight": "note_fc.weight",
    "encoders.note.project.bias": "note_fc.bias",
    "pooling.inner.weight": "mm_choose.weight",
    "pooling.outer.weight": "mm_choose2.weight",
    "heads.norm.weight": "mm_layernorm.weight",
    "heads.norm.bias": "mm_layernorm.bias",
}
LAYER = {
    "query_key_value.weight": "self_attn.in_proj_weight",
    "query_key_value.bias": "self_attn.in_proj_bias",
} | {
    f"{ours}.{part}": f"{theirs}.{part}"
    for ours, theirs in {
        "out": "self_attn.out_proj",
        "up": "linear1",
        "down": "linear2",
        "norm1": "norm1",
        "norm2": "norm2",
    }.items()
    for part in ("weight", "bias")
}
# Tensors of ours that are a part of one of theirs.
PARTS: dict[str, tuple[str, Any]] = {
    "encoders.series.positions": ("ehr_pos_embed", 0),
    "encoders.film.positions": ("cxr_pos_embed", (0, slice(-1))),
    "encoders.note.positions": ("note_pos_embed", 0),
    "fusion.combination_tokens.series": ("ehr_cls_token", (0, 0)),
    "fusion.combination_tokens.film": ("cxr_cls_token", (0, 0)),
    "fusion.combination_tokens.note": ("note_cls_token", (0, 0)),
    "fusion.combination_tokens.film+series": ("cross_cls_tokens", (0, 0)),
    "fusion.combination_tokens.note+series": ("cross_cls_tokens", (1, 0)),
    "fusion.combination_tokens.film+note": ("cross_cls_tokens", (2, 0)),
    "fusion.combination_tokens.film+note+series": ("mm_cls_token", (0, 0)),
    "task_embedding.weight": ("task_embedding.weight", [row for row, _ in TASKS.values()]),
}
GATES = {"gate": "moe.w_gate", "gate_task": "moe.task_gate", "gate_noise": "moe.w_noise"}
IGNORED = re.compile(r"(encoder_layer_fusion|dense_layer_drg)\..+|moe\.(mean|std)")
NESTED = ("state_dict", "model_state_dict", "model")
PREFIXES = ("weights.", "module.")


def import_authors(
    file: Path, out: Path, heads: int = 2, mask: Literal["boolean", "additive"] = "boolean"
) -> None:
    """Write the bundle of a state dict of the authors' code.

    Widths and numbers of layers and experts are those of its tensors; two experts a token. Their
    head of drg has a width that cannot run, so that task is left out.

    Args:
        file: safetensors, or what torch.save made of a state dict (.pt, .pth).
        out: folder of the bundle.
        heads: attention heads, which a state dict cannot tell.
        mask: "boolean" as the paper says, "additive" as the authors' code does.

    Raises:
        UserError: the file cannot be read, or its tensors are not those of that code.
    """
    found = _state_dict(file)
    ignored = sorted(name for name in found if IGNORED.fullmatch(name))
    theirs = {name: tensor for name, tensor in found.items() if name not in ignored}
    layers = _count(r"transformer_fusion\.layers\.(\d+)\..+", theirs)
    experts = _count(r"moe\.experts\.(\d+)\..+", theirs)
    plan = _plan(layers, experts)
    needed = {name for names, _ in plan.values() for name in names}
    faults = [f"missing {name}" for name in sorted(needed - theirs.keys())]
    faults += [f"unexpected {name}" for name in sorted(theirs.keys() - needed)]
    if faults:
        raise _foreign(file, faults)
    told = {"layers": layers, "experts": experts, "heads": heads, "mask": mask}
    model = _network(file, theirs, told)
    ours = _translated(file, theirs, plan)
    if faults := misfits(ours, model.state_dict()):
        raise _foreign(file, faults)
    model.load_state_dict(ours)
    provenance = {
        "imported_from": file.name,
        "sha256": sha256(file),
        "heads": heads,
        "mask": mask,
        "ignored": ignored,
        "left_out": {"drg": "the width of its head does not fit the network"},
        "films": "three channels, as stored, without scaling",
    }
    save_bundle(out, model, {}, provenance)


def _plan(layers: int, experts: int) -> dict[str, Source]:
    """Where each of our tensors comes from."""
    names = dict(RENAMED)
    for index in range(max(layers, 1)):
        for ours, theirs in LAYER.items():
            names[f"fusion.layers.{index}.{ours}"] = f"transformer_fusion.layers.{index}.{theirs}"
    for task, (_, head) in TASKS.items():
        for part in ("weight", "bias"):
            names[f"heads.linear.{task}.{part}"] = f"dense_layer_{head}.{part}"
    plan: dict[str, Source] = {ours: ((name,), lambda t: t[0]) for ours, name in names.items()}
    for ours, (name, place) in PARTS.items():
        plan[ours] = ((name,), lambda t, place=place: t[0][place])  # type: ignore[misc]
    for ours, name in GATES.items():
        plan[f"experts.{ours}.weight"] = ((name,), lambda t: t[0].T)
    plan["encoders.film.project.weight"] = (
        ("patch_projection.proj.weight",),
        lambda t: t[0].flatten(1),
    )
    for layer in ("1", "2"):
        experts_of = [f"moe.experts.{index}.fc{layer}" for index in range(max(experts, 1))]
        plan[f"experts.weight{layer}"] = (
            tuple(f"{name}.weight" for name in experts_of),
            lambda t: torch.stack([weight.T for weight in t]),
        )
        plan[f"experts.bias{layer}"] = (tuple(f"{name}.bias" for name in experts_of), torch.stack)
    return plan


def _translated(
    file: Path, theirs: Mapping[str, Tensor], plan: Mapping[str, Source]
) -> dict[str, Tensor]:
    ours = {}
    for name, (sources, make) in plan.items():
        try:
            ours[name] = make([theirs[source].float() for source in sources])
        except (IndexError, RuntimeError, TypeError):
            shapes = {source: tuple(theirs[source].shape) for source in sources}
            raise _foreign(file, [f"shape of {k} {v}" for k, v in shapes.items()]) from None
    return ours


def _network(file: Path, theirs: Mapping[str, Tensor], told: dict[str, Any]) -> FlexCare:
    """A network of the size that the shapes tell, with the settings that they do not."""
    try:
        hidden = theirs["task_embedding.weight"].shape[1]
        _, channels, patch, _ = theirs["patch_projection.proj.weight"].shape
        side = patch * math.isqrt(theirs["cxr_pos_embed"].shape[1] - 1)
        config = told | {
            "hidden": hidden,
            "feedforward": theirs["transformer_fusion.layers.0.linear1.weight"].shape[0] // hidden,
            "patch": patch,
            "max_bins": theirs["ehr_pos_embed"].shape[1],
            "max_pieces": theirs["note_pos_embed"].shape[1],
            "absent_combinations": "visible",
        }
        modalities = [
            ModalityInfo("series", "time_series", theirs["ehr_projection.weight"].shape[1], {}),
            ModalityInfo("film", "image", side, {"channels": channels}),
            ModalityInfo("note", "text", theirs["note_fc.weight"].shape[1], {}),
        ]
    except (IndexError, ValueError) as error:
        raise _foreign(file, [f"a tensor with another number of dimensions ({error})"]) from None
    return FlexCare(check(ModelConfig, config, file.name), modalities, [_task(t) for t in TASKS])


def _task(name: str) -> TaskInfo:
    task = load_task(name)
    return TaskInfo(
        name,
        task.question,
        task.kind,
        task.classes,
        task.primary_metric,
        task.weight,
        hourly=task.ask.startswith("every hour"),
    )


def _count(pattern: str, names: Mapping[str, Tensor]) -> int:
    """How many numbers the pattern finds among the names."""
    return len({match[1] for name in names if (match := re.fullmatch(pattern, name))})


def _state_dict(file: Path) -> dict[str, Tensor]:
    """Named tensors, out of the wrappings that are in use."""
    if not file.is_file():
        raise UserError(f"no file {file}", expected="a state dict of the authors' code")
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers' own kinds are many
        raise UserError(
            f"{file} cannot be read",
            found=f"no tensors ({type(error).__name__})",
            expected="a .safetensors file, or tensors alone saved by torch.save",
            do="Save model.state_dict() anew.",
        ) from None
    while inner := [found[k] for k in NESTED if k in found and isinstance(found[k], Mapping)]:
        found = inner[0]
    for prefix in PREFIXES:
        inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
        found = inside or found
    if others := [name for name, value in found.items() if not isinstance(value, Tensor)]:
        raise _foreign(file, [f"no tensor: {name}" for name in others])
    return dict(found)


def _foreign(file: Path, faults: list[str]) -> UserError:
    return UserError(
        f"{file} is not a checkpoint of the authors' code",
        found="; ".join(faults[:10]) + (f"; {len(faults) - 10} more" if faults[10:] else ""),
        expected="the names and shapes of its state dict",
        do="Give the file that its training wrote, with all tensors.",
    )
