"""How numbers are told to a network: squashed, summed up over a series, cut into pieces."""

import math

import torch
from torch import Tensor

from flexcare.schema import ModalityInfo

# Of squashed numbers: a fifth of an interquartile range from the usual, a third, ..., 50 of them.
KNOTS = (0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7, 2.3, 3.0, 4.0)
PIECES = 2 * len(KNOTS)


def squashed(values: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): a value far outside the usual does not drown the others."""
    return values.sign() * values.abs().log1p()


def pieces(values: Tensor) -> Tensor:
    """How far each number has got through each interval between `KNOTS`. (..., n) -> (..., n * P).

    0 to 1 above 0 and -1 to 0 below it, so that a linear function of them is any function with
    bends at the knots, thresholds among them, and 0 says nothing: as of what is missing or usual.
    (Piecewise linear encoding of Gorishniy et al., NeurIPS 2022, arXiv 2203.05556, with knots that
    are the same for every variable, as these are measured in their own interquartile ranges.)
    """
    knots = values.new_tensor([*(-k for k in reversed(KNOTS)), 0, *KNOTS])
    low, high = knots[:-1], knots[1:]
    passed = ((values[..., None] - low) / (high - low)).clamp(0, 1)
    return (passed - (high <= 0).to(passed.dtype)).flatten(-2)


class History:
    """What was seen of each variable up to each bin, as summaries for trees have it.

    Columns: of each value column the mean, lowest and highest observed so far (before any, what
    the bin assumes); of each variable how often it was seen and the hours since, as log(1 + x).
    """

    def __init__(self, info: ModalityInfo) -> None:
        names = list(info.settings["variables"])
        self.values = info.width - len(names)
        columns = info.settings["columns"][: self.values]
        # Several columns are one variable's where it has categories: NAME=CATEGORY.
        self.owner = [names.index(c if c in names else c.rsplit("=", 1)[0]) for c in columns]
        self.width = 3 * self.values + 2 * len(names)

    def __call__(self, columns: Tensor) -> Tensor:
        """(n, L, columns) without NaN -> (n, L, width)."""
        values, seen = columns[..., : self.values], columns[..., self.values :] > 0
        hour = torch.arange(1, columns.shape[1] + 1, device=columns.device)[:, None]
        count = seen.cumsum(1)
        since = hour - torch.where(seen, hour, 0).cummax(1).values
        mine, known = seen[..., self.owner], count[..., self.owner]
        mean = torch.where(mine, values, 0).cumsum(1) / known.clamp(min=1)
        low = torch.where(mine, values, math.inf).cummin(1).values
        high = torch.where(mine, values, -math.inf).cummax(1).values
        told = [torch.where(known > 0, x, values) for x in (mean, low, high)]
        return torch.cat([*told, count.log1p(), since.log1p()], -1)

    def last(self, columns: Tensor, now: Tensor, end: Tensor) -> Tensor:
        """The row of the last bin alone, which needs no running sums.

        Args:
            columns: (n, L, columns), 0 after the last bin.
            now, end: (n, columns) and (n,), the last bin and its number.
        """
        values, seen = columns[..., : self.values], columns[..., self.values :] > 0
        hour = torch.arange(1, columns.shape[1] + 1, device=columns.device)[:, None]
        count = seen.sum(1)
        since = end[:, None] - torch.where(seen, hour, 0).amax(1)
        mine, known = seen[..., self.owner], count[..., self.owner]
        mean = torch.where(mine, values, 0).sum(1) / known.clamp(min=1)
        low = torch.where(mine, values, math.inf).amin(1)
        high = torch.where(mine, values, -math.inf).amax(1)
        told = [torch.where(known > 0, x, now[:, : self.values]) for x in (mean, low, high)]
        return torch.cat([*told, count.log1p(), since.log1p()], -1)
