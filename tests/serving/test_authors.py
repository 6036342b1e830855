"""Checkpoints of the authors' code: the golden answers, and files that are something else."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flexcare.batch import Batch, Tokens
from flexcare.errors import UserError
from flexcare.serving.authors import TASKS, import_authors
from flexcare.serving.bundle import load_bundle

BESIDE = Path(__file__).parents[2] / ".." / "shared" / "golden" / "authors_forward.safetensors"
GOLDEN = Path(os.environ.get("FLEXCARE_GOLDEN", BESIDE))
HEADS = {"mortality": 1, "decomp": 1, "ph": 25, "los": 10, "readm": 1, "diag": 14}


def state_dict(hidden=8, layers=2, experts=3, columns=7, note=12, feedforward=3, patch=4, grid=2):
    """An invented state dict of the authors' layout, of any size."""
    torch.manual_seed(0)
    shapes = {
        "task_embedding.weight": (40, hidden),
        "ehr_projection.weight": (hidden, columns),
        "ehr_projection.bias": (hidden,),
        "ehr_cls_token": (1, 1, hidden),
        "ehr_pos_embed": (1, 9, hidden),
        "patch_projection.proj.weight": (hidden, 3, patch, patch),
        "patch_projection.proj.bias": (hidden,),
        "cxr_cls_token": (1, 1, hidden),
        "cxr_pos_embed": (1, grid**2 + 1, hidden),
        "note_fc.weight": (hidden, note),
        "note_fc.bias": (hidden,),
        "note_cls_token": (1, 1, hidden),
        "note_pos_embed": (1, 11, hidden),
        "mm_cls_token": (1, 1, hidden),
        "cross_cls_tokens": (3, 1, hidden),
        "mm_choose.weight": (hidden, 2 * hidden),
        "mm_choose2.weight": (1, hidden),
        "mm_layernorm.weight": (hidden,),
        "mm_layernorm.bias": (hidden,),
        "moe.w_gate": (hidden, experts),
        "moe.w_noise": (hidden, experts),
        "moe.task_gate": (hidden, experts),
        "moe.mean": (1,),
        "moe.std": (1,),
        "dense_layer_drg.weight": (769, hidden),
        "dense_layer_drg.bias": (769,),
    }
    for name, outputs in HEADS.items():
        shapes[f"dense_layer_{name}.weight"] = (outputs, 2 * hidden)
        shapes[f"dense_layer_{name}.bias"] = (outputs,)
    for index in range(experts):
        for layer in ("fc1", "fc2"):
            shapes[f"moe.experts.{index}.{layer}.weight"] = (hidden, hidden)
            shapes[f"moe.experts.{index}.{layer}.bias"] = (hidden,)
    encoders = [f"transformer_fusion.layers.{i}" for i in range(layers)]
    for name in (*encoders, "encoder_layer_fusion"):
        shapes |= {
            f"{name}.self_attn.in_proj_weight": (3 * hidden, hidden),
            f"{name}.self_attn.in_proj_bias": (3 * hidden,),
            f"{name}.self_attn.out_proj.weight": (hidden, hidden),
            f"{name}.self_attn.out_proj.bias": (hidden,),
            f"{name}.linear1.weight": (feedforward * hidden, hidden),
            f"{name}.linear1.bias": (feedforward * hidden,),
            f"{name}.linear2.weight": (hidden, feedforward * hidden),
            f"{name}.linear2.bias": (hidden,),
        }
        for part in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{name}.{part}"] = (hidden,)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def golden_batch(golden):
    """What the golden file says is known of its samples, as a batch that asks every task."""
    present = golden["input.present"].bool()  # series, film, note
    bins = golden["input.time_series"].shape[1]
    valid = {
        "series": torch.arange(bins) < golden["input.time_series_length"][:, None],
        "film": torch.ones(len(present), 1, dtype=torch.bool),
        "note": golden["input.note_mask"] == 1,
    }
    values = {
        "series": golden["input.time_series"],
        "film": golden["input.image"],
        "note": golden["input.note_embedding"],
    }
    inputs = {}
    for column, name in enumerate(values):
        rows = present[:, column].nonzero()[:, 0]
        inputs[name] = Tokens(values[name][rows].float(), valid[name][rows], rows)
    return Batch(len(present), inputs, tuple(TASKS))


@pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden file (FLEXCARE_GOLDEN says where)")
@pytest.mark.parametrize("mask", ["boolean", "additive"])
def test_authors_golden_answers(mask, tmp_path):
    golden = load_file(GOLDEN)
    import_authors(GOLDEN, tmp_path / "bundle", mask=mask)
    bundle = load_bundle(tmp_path / "bundle")
    with torch.no_grad():
        output = bundle.model(golden_batch(golden))
    for info in bundle.tasks:
        logits = output.logits[info.name]
        found = logits if info.kind == "multiclass" else logits.sigmoid()
        expected = golden[f"output.{mask}.{info.name}"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="no golden file (FLEXCARE_GOLDEN says where)")
def test_authors_golden_masks_differ():
    """Else the comparison above would not tell the masks apart."""
    golden = load_file(GOLDEN)
    differences = [
        (golden[f"output.boolean.{task}"] - golden[f"output.additive.{task}"]).abs().max()
        for task in TASKS
    ]
    assert min(differences) > 1e-3


def test_sizes_are_read_from_the_shapes(tmp_path):
    save_file(state_dict(), tmp_path / "theirs.safetensors")
    import_authors(tmp_path / "theirs.safetensors", tmp_path / "b", heads=4, mask="additive")
    bundle = load_bundle(tmp_path / "b")
    config = bundle.model.config
    assert (config.hidden, config.layers, config.experts, config.feedforward) == (8, 2, 3, 3)
    assert (config.heads, config.mask, config.absent_combinations) == (4, "additive", "visible")
    assert (config.patch, config.max_bins, config.max_pieces) == (4, 9, 11)
    assert {info.name: (info.kind, info.width) for info in bundle.modalities} == {
        "series": ("time_series", 7),
        "film": ("image", 8),
        "note": ("text", 12),
    }
    outputs = {info.name: info.outputs for info in bundle.tasks}
    assert outputs == {task: HEADS[head] for task, (_, head) in TASKS.items()}


def test_tensors_arrive_at_their_place(tmp_path):
    theirs = state_dict()
    save_file(theirs, tmp_path / "theirs.safetensors")
    import_authors(tmp_path / "theirs.safetensors", tmp_path / "b")
    ours = load_bundle(tmp_path / "b").model.state_dict()
    tokens = "fusion.combination_tokens."
    for name, expected in {
        f"{tokens}film+series": theirs["cross_cls_tokens"][0, 0],
        f"{tokens}note+series": theirs["cross_cls_tokens"][1, 0],
        f"{tokens}film+note": theirs["cross_cls_tokens"][2, 0],
        f"{tokens}film+note+series": theirs["mm_cls_token"][0, 0],
        "encoders.film.positions": theirs["cxr_pos_embed"][0, :4],
        "experts.weight2": torch.stack([theirs[f"moe.experts.{i}.fc2.weight"].T for i in range(3)]),
        "fusion.layers.1.up.weight": theirs["transformer_fusion.layers.1.linear1.weight"],
    }.items():
        assert torch.equal(ours[name], expected)
    assert torch.equal(ours["task_embedding.weight"], theirs["task_embedding.weight"][:6])


def test_what_was_left_out_is_said(tmp_path):
    save_file(state_dict(), tmp_path / "theirs.safetensors")
    import_authors(tmp_path / "theirs.safetensors", tmp_path / "b")
    provenance = load_bundle(tmp_path / "b").provenance
    assert {"moe.mean", "moe.std", "dense_layer_drg.bias"} <= set(provenance["ignored"])
    assert len([name for name in provenance["ignored"] if name.startswith("encoder_layer")]) == 12
    assert list(provenance["left_out"]) == ["drg"]


@pytest.mark.parametrize("nested", ["state_dict", "model", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_usual_wrappings_are_taken_off(nested, prefix, tmp_path):
    theirs = {prefix + name: tensor for name, tensor in state_dict().items()}
    torch.save({nested: theirs, "epoch": 3} if nested else theirs, tmp_path / "theirs.pth")
    import_authors(tmp_path / "theirs.pth", tmp_path / "b")
    assert load_bundle(tmp_path / "b").model.config.hidden == 8


def without(*names):
    return {k: v for k, v in state_dict().items() if k not in names}


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (without("mm_choose.weight"), "missing mm_choose.weight"),
        (without("transformer_fusion.layers.0.norm1.bias"), "missing transformer.*norm1.bias"),
        (without("moe.experts.1.fc1.bias"), "missing moe.experts.1.fc1.bias"),
        (state_dict() | {"extra": torch.zeros(1)}, "unexpected extra"),
        ({"a": torch.zeros(1)}, "missing .* more"),
        (state_dict() | {"task_embedding.weight": torch.zeros(4, 8)}, "shape of task_embedding"),
        (state_dict() | {"mm_choose.weight": torch.zeros(8, 8)}, r"\(8, 8\) instead of \(8, 16\)"),
        (state_dict() | {"cxr_pos_embed": torch.zeros(1, 7, 8)}, "film.positions"),
        (state_dict() | {"patch_projection.proj.weight": torch.zeros(8, 3)}, "dimensions"),
        (state_dict() | {"dense_layer_los.weight": torch.zeros(9, 16)}, "length_of_stay"),
    ],
)
def test_other_networks_are_refused_with_the_names(theirs, words, tmp_path):
    save_file(theirs, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match=words):
        import_authors(tmp_path / "theirs.safetensors", tmp_path / "b")
    assert not (tmp_path / "b").exists()


class Anything:
    """What only an unsafe reader would build."""


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_files_that_cannot_be_read_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="no file"):
        import_authors(tmp_path / name, tmp_path / "b")
    (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="cannot be read"):
        import_authors(tmp_path / name, tmp_path / "b")


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"state_dict": Anything()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="cannot be read"):
        import_authors(tmp_path / "x.pt", tmp_path / "b")


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    save_file(state_dict(), tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match="heads 3"):
        import_authors(tmp_path / "theirs.safetensors", tmp_path / "b", heads=3)
