"""Small networks with strong random weights, and random batches for them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.models.flexcare import FlexCare
from flexcare.schema import ModalityInfo, TaskInfo

WIDTHS = {"time_series": 3, "image": 8, "text": 5}
TASKS = (
    TaskInfo("death", "?", "binary", ("dead",), "average_precision"),
    TaskInfo("days", "?", "multiclass", ("0", "1", "2"), "quadratic_kappa", 0.5, hourly=True),
    TaskInfo("findings", "?", "multilabel", ("a", "b"), "macro_average_precision", 0.2),
)
NAMES = tuple(task.name for task in TASKS)
SMALL = {"hidden": 8, "layers": 2, "heads": 2, "feedforward": 2, "patch": 4, "experts": 4}
MIXED = ("time_series", "image", "text", "time_series", "image")  # kinds of 1 to 5 modalities


def modalities(kinds: Sequence[str]) -> list[ModalityInfo]:
    return [ModalityInfo(f"m{i}", kind, WIDTHS[kind], {}) for i, kind in enumerate(kinds)]


def network(kinds: Sequence[str], dtype: torch.dtype = torch.float64, **settings) -> FlexCare:
    """A network in eval mode whose every parameter matters."""
    torch.manual_seed(0)
    model = FlexCare(ModelConfig(**(SMALL | settings)), modalities(kinds), TASKS).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def every_pattern(count: int) -> Tensor:
    """(2^count, count) bool: every pattern of absence, nothing known included."""
    return torch.cartesian_prod(*[torch.tensor([False, True])] * count).reshape(-1, count)


def random_batch(
    model: FlexCare,
    present: Tensor,
    tasks: tuple[str, ...] = NAMES,
    seed: int = 1,
    padding: float = float("nan"),
    empty_rows: bool = False,
) -> Batch:
    """A batch in which row b has modality m where `present[b, m]`.

    `empty_rows`: an absent modality is there as a row without a valid token, full of `padding`.
    """
    random = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    inputs = {}
    for column, info in enumerate(model.modalities):
        rows = torch.arange(len(present)) if empty_rows else present[:, column].nonzero()[:, 0]
        values, valid = _values(info, len(rows), random)
        valid = valid & present[rows, column][:, None]
        hidden = (~valid).reshape(*valid.shape, *[1] * (values.ndim - 2))
        values = torch.where(hidden.expand_as(values), padding, values)
        inputs[info.name] = Tokens(values.to(dtype), valid, rows)
    return Batch(len(present), inputs, tasks)


def _values(info: ModalityInfo, n: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    if info.kind == "image":
        values = torch.rand(n, info.width, info.width, generator=random)
        return values, torch.ones(n, 1, dtype=torch.bool)
    values = torch.randn(n, 5, info.width, generator=random)
    lengths = torch.randint(1, 6, (n, 1), generator=random)
    return values, torch.arange(5) < lengths
