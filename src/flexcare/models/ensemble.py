"""Several trained networks as one, which answers with the mean of their probabilities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flexcare.batch import Batch
from flexcare.models.layers import widened
from flexcare.models.network import Network, Output
from flexcare.schema import Kind


class Ensemble(Network):
    """Networks of one kind, settings, modalities and tasks; it costs what all of them cost.

    Attributes:
        members: the networks; encoders are their own.
        network: what each of them is called.
    """

    name = "ensemble"

    def __init__(self, members: Sequence[Network]) -> None:
        nn.Module.__init__(self)  # Network's would make encoders that nobody uses
        first = members[0]
        self.network, self.config, self.tasks = first.name, first.config, first.tasks
        self.modalities, self.combinations = first.modalities, first.combinations
        self.members = nn.ModuleList(members)

    def reads_parts(self, name: str) -> bool:
        first = self.members[0]
        assert isinstance(first, Network)
        return first.reads_parts(name)

    def forward(self, batch: Batch) -> Output:
        """Answer every task of the batch for every row.

        Gates and weights are means, too. The members' experts are numbered each by their own
        training, so mean gates say how evenly experts are used, not what one of them does. The
        members' vectors of a combination have no common directions: there is no `combined`.

        Raises:
            UserError: the batch names a modality or a task that the networks do not have.
        """
        outputs: list[Output] = [member(batch) for member in self.members]
        kinds = {info.name: info.kind for info in self.tasks}
        return Output(
            {
                task: mean_logits(kinds[task], torch.stack([o.logits[task] for o in outputs]))
                for task in batch.tasks
            },
            batch.tasks,
            outputs[0].combinations,
            present=outputs[0].present,
            gates=torch.stack([output.gates for output in outputs]).mean(0),
            weights=torch.stack([output.weights for output in outputs]).mean(0),
        )


def mean_logits(kind: Kind, logits: Tensor) -> Tensor:
    """Logits (B, outputs) whose probabilities are the mean of the members'.

    Args:
        logits: (members, B, outputs); from their logarithms, for a probability may round to 1.
    """
    logits = widened(logits)
    if kind == "multiclass":
        return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))
    yes, no = (functional.logsigmoid(side).logsumexp(0) for side in (logits, -logits))
    return yes - no
