"""A training step at MIMIC's missingness and the paper's size, against what it could be instead.

Both sides of a figure have the same parameters, the same batch (48 h of series for all, films for
30 %, notes for 60 %; histories with a median of 130 word pieces) and the same precision, unless the
name says otherwise.
"""

from collections.abc import Callable
from functools import partial

import torch
from invented import NAMES, PIECES, SHARE, batch, network
from measure import keep, ratio, seconds
from torch.utils.flop_counter import FlopCounterMode

from flexcare.batch import Batch
from flexcare.config import ObjectiveConfig
from flexcare.models.dense import DenseFusion
from flexcare.models.flexcare import FlexCare
from flexcare.training.objectives import objective

ONE = ("phenotyping",)
SIZE = 32


def step(model: FlexCare, one: Batch, low: bool = False) -> Callable[[], object]:
    """Forward, backward and update; `low`: bfloat16 where training.precision would use it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            total = objective(model(one), one, model.tasks, ObjectiveConfig())["total"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()

    run()  # warm
    return run


def dense() -> FlexCare:
    """The same network as one masked sequence a patient, padded to the batch's longest."""
    model = network()
    streams = model.fusion
    model.fusion = DenseFusion(model.config, model.combinations)
    model.fusion.load_state_dict(streams.state_dict())
    return model


def embedding() -> Callable[[], object]:
    """A step's notes through a text encoder of BERT-base size, 512 pieces each, dropout on."""
    from transformers import BertConfig, BertModel

    encoder = BertModel(BertConfig()).train()
    pieces = torch.randint(0, 30000, (round(SHARE["note"] * SIZE), PIECES))

    def run() -> None:
        with torch.no_grad():
            encoder(pieces)

    return run


def roofline(size: int) -> None:
    """The time of the step's own matrix products at a large product's rate, within the step's."""
    work = step(network(), batch(size, ONE))
    with FlopCounterMode(display=False) as counter:
        work()
    square = torch.randn(4096, 4096)
    shares = []
    for _ in range(5):
        rate = 2 * len(square) ** 3 / min(seconds(lambda: square @ square) for _ in range(2))
        shares.append(counter.get_total_flops() / rate / seconds(work))
    keep(
        f"share of a step that its matrix products need, batch {size}",
        "at least 0.35",
        shares,
        note=f"{counter.get_total_flops() / 1e9:.0f} GFLOP a step, moonshot 0.6",
    )


def main() -> None:
    ours, theirs = network(), dense()
    for name, full in (("", False), (", every note 512 pieces", True)):
        one = batch(SIZE, ONE, full_notes=full)
        fast, slow = step(ours, one), step(theirs, one)
        goal = "at least 5"
        ratio(f"step, dense / streams{name}", goal, partial(seconds, slow), partial(seconds, fast))
    one = batch(SIZE, ONE)
    fast, slow, low, again = step(ours, one), step(theirs, one), step(ours, one, True), embedding()
    for name, mine in (("", fast), (" in bfloat16", low)):
        ratio(
            f"step, dense with text encoder in every step / streams with cached embeddings{name}",
            "at least 100",
            lambda: seconds(slow) + seconds(again),
            partial(seconds, mine),
        )
    ratio("step, single / bfloat16", "at least 1", lambda: seconds(fast), lambda: seconds(low))
    seven = step(ours, batch(SIZE, NAMES))
    ratio(
        "step of 7 tasks / of 1 on the same patients",
        "at most 1.3",
        partial(seconds, seven),
        partial(seconds, fast),
        rounds=15,
    )
    roofline(256)


if __name__ == "__main__":
    main()
