"""One encoder a kind of modality: what the batch holds -> token vectors (SPEC 6).

A new kind is one class and one row of `ENCODERS`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.errors import UserError
from flexcare.models.numbers import PIECES, History, pieces, squashed
from flexcare.schema import ModalityInfo

POSITION_SCALE = 0.02  # deviation of learned vectors at the start


def learned(*shape: int) -> nn.Parameter:
    """Learned vectors (positions, combination tokens), small and random at the start."""
    return nn.Parameter(torch.randn(*shape) * POSITION_SCALE)


class Encoder(nn.Module):
    """What every row of `ENCODERS` is: values (n, *shape), valid (n, L) -> (n, L', D), (n, L').

    `shape` is what one sample of the modality looks like, None where any length will do; `ordered`
    says that its tokens follow each other in time.
    """

    ordered = False

    def __init__(
        self,
        shape: tuple[int | None, ...],
        width: int,
        config: ModelConfig,
        numbers: Sequence[int] = (),
    ) -> None:
        """`numbers` are the columns that `model.pieces` cuts into pieces."""
        super().__init__()
        self.shape = shape
        self.cut = list(numbers) if config.pieces else []
        self.project = nn.Linear(width + PIECES * len(self.cut), config.hidden)

    def projected(self, values: Tensor, valid: Tensor) -> Tensor:
        """(n, L, width) -> (n, L, D)."""
        # Padding may hold NaN, which times 0 stays NaN: it is replaced, not multiplied away.
        clean = torch.where(valid[..., None], values, 0)
        if self.cut:
            clean = torch.cat([clean, pieces(clean[..., self.cut])], -1)
        out: Tensor = self.project(clean.to(self.project.weight.dtype))
        return out

    def check(self, name: str, tokens: Tokens) -> None:
        """Refuse values of another shape than the modality's."""
        found = tuple(tokens.values.shape[1:])
        if len(found) != len(self.shape) or any(
            want not in (None, size) for want, size in zip(self.shape, found, strict=True)
        ):
            raise UserError(
                f"values of modality {name} do not fit the model",
                found="shape " + _shown(found),
                expected="shape " + _shown(self.shape),
                do="Prepare the data with the settings the model was trained with.",
            )


class TimeSeries(Encoder):
    """One token a bin. (n, L, columns), (n, L) -> (n, min(L, max_bins), D) and its valid.

    Of a series with more than `max_bins` bins the last ones are kept; positions start at 0. With
    `series_history` a bin also says what all bins up to it have shown (`History`), those that are
    not kept, too.
    """

    ordered = True

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        history = History(info) if config.series_history else None
        width = info.width + (history.width if history else 0)
        numbers = [*_numbers(info), *range(info.width, width)]
        super().__init__((None, info.width), width, config, numbers)
        self.history, self.squash = history, config.squash
        self.positions = learned(config.max_bins, config.hidden)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        values = squashed(values) if self.squash else values
        if self.history:
            values = torch.where(valid[..., None], values, 0)
            if self.positions.shape[0] == 1:
                return self._one(values, valid, self.history)
            values = torch.cat([values, self.history(values)], -1)
        values, valid = self._last(values, valid)
        return self.projected(values, valid) + self.positions[: valid.shape[1]], valid

    def _one(self, values: Tensor, valid: Tensor, history: "History") -> tuple[Tensor, Tensor]:
        """The only kept bin: what `_last` would keep, without a history of those before it."""
        number = torch.arange(1, valid.shape[1] + 1, device=valid.device)
        end = torch.where(valid, number, 0).amax(1)
        rows = torch.arange(len(valid), device=valid.device)
        now, there = values[rows, (end - 1).clamp(min=0)], end[:, None] > 0
        told = torch.cat([now, history.last(values, now, end)], -1)
        return self.projected(told[:, None], there) + self.positions, there

    def _last(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        bins, kept = valid.shape[1], self.positions.shape[0]
        if bins <= kept:
            return values, valid
        number = torch.arange(1, bins + 1, device=valid.device)
        ends = torch.where(valid, number, 0).amax(1, keepdim=True)
        index = (ends - kept).clamp(min=0) + number[:kept] - 1  # (n, kept)
        rows = torch.arange(len(valid), device=valid.device)[:, None]
        return values[rows, index], valid[rows, index]


class Image(Encoder):
    """One token a patch, row by row. (n, side, side) or (n, channels, side, side) -> (n, P, D).

    `settings["channels"]` of the modality is 1 (the default) or what an imported network takes.
    A film given in three equal channels equals one channel whose weights are the three's sum.
    """

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        channels = int(info.settings.get("channels", 1))
        side = (info.width, info.width)
        shape = side if channels == 1 else (channels, *side)
        super().__init__(shape, channels * config.patch**2, config)
        self.patch, self.channels = config.patch, channels
        if info.width % config.patch:
            raise UserError(
                f"films of {info.name} cannot be cut into patches",
                found=f"side {info.width} px, patch {config.patch} px",
                expected="a side that is a multiple of the patch",
                do="Change model.patch, or prepare the films with another side.",
            )
        per_side = info.width // config.patch
        self.positions = learned(per_side**2, config.hidden)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        n, side, p = len(values), values.shape[-1], self.patch
        grid = values.reshape(n, self.channels, side // p, p, side // p, p)
        patches = grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        valid = valid.expand(n, patches.shape[1])
        return self.projected(patches, valid) + self.positions, valid


class Text(Encoder):
    """One token a word piece, the first `max_pieces`. (n, L, width), (n, L) -> (n, L', D).

    With `text_mean` one token, the mean of their vectors: few patients' words are soon learned by
    heart.
    """

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        super().__init__((None, info.width), info.width, config)
        self.mean = config.text_mean
        self.positions = learned(config.max_pieces, config.hidden)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.positions.shape[0]
        values, valid = values[:, :kept], valid[:, :kept]
        if self.mean:
            clean = torch.where(valid[..., None], values, 0).float()
            count = valid.sum(1, keepdim=True)
            values, valid = (clean.sum(1) / count.clamp(min=1))[:, None], count > 0
        return self.projected(values, valid) + self.positions[: valid.shape[1]], valid


class Static(Encoder):
    """One token a field. (n, fields, columns), (n, fields) -> (n, fields, D).

    Which field a token is, its learned vector tells; its columns hold nothing of other fields.
    """

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        fields = len(info.settings["variables"])
        super().__init__((fields, info.width), info.width, config, _numbers(info))
        self.squash = config.squash
        self.fields = learned(fields, config.hidden)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        values = squashed(values) if self.squash else values
        return self.projected(values, valid) + self.fields[: valid.shape[1]], valid


class Codes(Encoder):
    """One token a code, without an order. (n, L, 2), (n, L) -> (n, L, D).

    The code's learned vector, and a linear function of log(1 + hours since it was first seen).
    """

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        super().__init__((None, 2), 1, config)
        self.codes = nn.Embedding(info.width, config.hidden)
        nn.init.normal_(self.project.weight, std=POSITION_SCALE)  # the code is louder than its age

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        number = torch.where(valid, values[..., 0], 0).long()
        return self.codes(number) + self.projected(values[..., 1:], valid), valid


class Embedding(Encoder):
    """One token a vector, without an order. (n, L, width), (n, L) -> (n, L, D)."""

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        super().__init__((None, info.width), info.width, config)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        return self.projected(values, valid), valid


class Wave(Encoder):
    """One token a patch of time. (n, channels, samples), (n, 1) -> (n, P, D), (n, P).

    A patch has its samples, channel by channel and 0 where missing, and of each channel the share
    that is there. One in which nothing is there is no token.
    """

    def __init__(self, info: ModalityInfo, config: ModelConfig) -> None:
        channels = len(next(iter(info.settings["variables"].values()))["channels"])
        super().__init__((channels, info.width), channels * (config.wave_patch + 1), config)
        if info.width % config.wave_patch:
            raise UserError(
                f"waves of {info.name} cannot be cut into patches",
                found=f"{info.width} samples, patch {config.wave_patch}",
                expected="a patch that divides the samples",
                do="Change model.wave_patch.",
            )
        self.patch = config.wave_patch
        self.positions = learned(info.width // config.wave_patch, config.hidden)

    def forward(self, values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        # (n, P, channels, patch)
        cut = values.reshape(*values.shape[:2], -1, self.patch).transpose(1, 2)
        there = cut.isfinite()
        shares = there.to(cut.dtype).mean(-1)
        columns = torch.cat([torch.where(there, cut, 0).flatten(2), shares], -1)
        valid = valid & (shares > 0).any(-1)
        return self.projected(columns, valid) + self.positions, valid


ENCODERS: dict[str, Callable[[ModalityInfo, ModelConfig], Encoder]] = {
    "time_series": TimeSeries,
    "image": Image,
    "text": Text,
    "static": Static,
    "codes": Codes,
    "embedding": Embedding,
    "wave": Wave,
}


def _numbers(info: ModalityInfo) -> list[int]:
    """The columns that hold a variable's value, neither a category nor whether it was seen."""
    names, columns = info.settings.get("variables", {}), info.settings.get("columns", ())
    return [index for index, column in enumerate(columns) if column in names]


def _shown(shape: tuple[int | None, ...]) -> str:
    return "(samples, " + ", ".join("any" if size is None else str(size) for size in shape) + ")"
