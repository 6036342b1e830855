"""A checkpoint gives back what was saved, or says why it cannot."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from flexcare.errors import UserError
from flexcare.training import checkpoint
from flexcare.training.checkpoint import Progress, load_checkpoint, save_checkpoint

PLACE = Progress(
    epoch=3,
    step=7,
    total=31,
    rates={"death": 0.1 / 3},
    best_losses={"death": 2 / 3},
    best=1 / 3,
    best_epoch=2,
    task_bests={"death": 0.7},
    improved=["death"],
    sums={"total": 0.1 + 0.2},
    counts={"total": 7},
    lines=[{"epoch": 0, "mean": None}, {"epoch": 1, "mean": 1e-17}],
)


def network(width=3):
    """Two layers and Adam, of which the second layer was never used."""
    model = nn.ModuleDict({"used": nn.Linear(width, 2), "unused": nn.Linear(2, 1)})
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def learn(model, optimizer, seed):
    torch.manual_seed(seed)
    for _ in range(3):
        optimizer.zero_grad()
        model["used"](torch.randn(4, 3)).square().mean().backward()
        optimizer.step()


def test_model_optimizer_and_place_come_back_exactly(tmp_path):
    model, optimizer = network()
    learn(model, optimizer, 0)
    save_checkpoint(tmp_path / "c", model, optimizer, PLACE)
    other, its_optimizer = network()
    assert load_checkpoint(tmp_path / "c", other, its_optimizer) == PLACE
    for one in ((model, optimizer), (other, its_optimizer)):
        learn(*one, seed=1)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_parameter_that_was_never_used_has_no_moments(tmp_path):
    model, optimizer = network()
    learn(model, optimizer, 0)
    save_checkpoint(tmp_path / "c", model, optimizer, PLACE)
    assert not [key for key in load_file(tmp_path / "c") if key.startswith("moments/unused")]
    load_checkpoint(tmp_path / "c", *network())


def test_a_place_before_the_first_epoch_comes_back(tmp_path):
    model, optimizer = network()
    save_checkpoint(tmp_path / "c", model, optimizer, Progress())
    assert load_checkpoint(tmp_path / "c", model, optimizer) == Progress()


def test_a_run_killed_while_it_writes_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    model, optimizer = network()
    save_checkpoint(tmp_path / "c", model, optimizer, PLACE)
    before = (tmp_path / "c").read_bytes()

    def killed(tensors, path, about):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c", model, optimizer, Progress())
    assert (tmp_path / "c").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", 0.5])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    model, optimizer = network()
    path = tmp_path / "c"
    save_checkpoint(path, model, optimizer, PLACE)
    if content is None:
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == 0.5 else content)
    with pytest.raises(UserError, match="cannot be resumed from"):
        load_checkpoint(path, model, optimizer)


def test_weights_without_a_place_are_no_checkpoint(tmp_path):
    save_file({"weights/x": torch.zeros(1)}, tmp_path / "c")
    with pytest.raises(UserError, match="cannot be resumed from"):
        load_checkpoint(tmp_path / "c", *network())


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    save_checkpoint(tmp_path / "c", *network(), PLACE)
    with pytest.raises(UserError, match=r"does not fit this run\n.*used.weight"):
        load_checkpoint(tmp_path / "c", *network(width=4))


def test_a_checkpoint_of_another_version_is_refused(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c", *network(), PLACE)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_VERSION", 99)
    with pytest.raises(UserError, match="another schema version"):
        load_checkpoint(tmp_path / "c", *network())
