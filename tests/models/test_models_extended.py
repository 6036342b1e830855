"""What joined a trained network leaves the older answers as they were, to the bit."""

import pytest
import torch

from flexcare.schema import TaskInfo
from flexcare.training.extend import New, grown
from some_networks import INFOS, NAMES, PATTERNS, batch_of, network

BATCH = batch_of(dtype=torch.float32)
BILLING = TaskInfo("billing", "?", "multiclass", ("x", "y"), "macro_f1")


def extended(old, *, tasks=(), modalities=()):
    """The network with something new, every new parameter of which matters."""
    model = grown(old, New(tuple(tasks), tuple(modalities)), 0, frozen=True).eval()
    known = old.state_dict()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            new = parameter[len(known[name]) :] if name in known else parameter
            new += 0.3 * torch.randn_like(new)
    return model


def without(infos):
    """FlexCare without some of the modalities of every kind."""
    kept = tuple(info for info in INFOS if info not in infos)
    return network("flexcare", torch.float32, kept)


def same(one, two, rows):
    """Whether these rows are answered alike, to the bit."""
    return [torch.equal(one.logits[task][rows], two.logits[task][rows]) for task in one.logits]


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.kind)
def test_who_lacks_a_new_modality_is_answered_as_before(info):
    old = without([info])
    new = extended(old, modalities=[info])
    has = PATTERNS[:, INFOS.index(info)]
    before, after = old(BATCH.without([info.name])), new.answer(BATCH)
    assert all(same(before, after, ~has))
    assert not any(same(before, after, has))
    kept = [after.combinations.index(name) for name in before.combinations]
    for name in ("combined", "gates", "weights"):
        rows = [getattr(output, name)[~has] for output in (before, after)]
        assert torch.equal(
            rows[0], rows[1][..., kept, :] if name != "weights" else rows[1][..., kept]
        )


def test_each_of_several_extensions_keeps_what_was_before_it():
    one, two = INFOS[2], INFOS[5]
    first = without([one, two])
    second = extended(first, modalities=[one])
    third = extended(second, modalities=[two])
    has = PATTERNS[:, [INFOS.index(one), INFOS.index(two)]]
    answers = third.answer(BATCH)
    assert all(same(answers, second.answer(BATCH.without([two.name])), ~has[:, 1]))
    assert all(same(answers, first(BATCH.without([one.name, two.name])), ~has.any(1)))
    assert all(same(answers, third(BATCH), has.all(1)))


def test_what_all_or_none_have_is_answered_in_one_pass():
    info = INFOS[3]
    new = extended(without([info]), modalities=[info])
    passes = []
    new.register_forward_hook(lambda *_: passes.append(1))
    everything = batch_of(torch.ones(4, len(INFOS), dtype=torch.bool), dtype=torch.float32)
    new.answer(everything)
    new.answer(BATCH.without([info.name]))
    assert len(passes) == 2
    new.answer(BATCH)
    assert len(passes) == 4


def test_a_new_task_leaves_the_older_ones_alone():
    old = network("flexcare", torch.float32)
    new = extended(old, tasks=[BILLING])
    assert new.generations((*NAMES[:1], "billing", *NAMES[1:])) == [NAMES, ("billing",)]
    assert all(same(old(BATCH), new.answer(BATCH), torch.ones(len(PATTERNS)).bool()))
    twice = extended(new, tasks=[TaskInfo("cost", "?", "binary", ("high",), "average_precision")])
    assert twice.generations(("cost", "billing", "days")) == [("days",), ("billing",), ("cost",)]


def test_a_network_that_never_grew_is_asked_once():
    model = network("flexcare", torch.float32)
    assert model.generations(NAMES) == [NAMES]
    assert all(same(model(BATCH), model.answer(BATCH), torch.ones(len(PATTERNS)).bool()))
