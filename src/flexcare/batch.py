"""The noun of the right half: what is known of some patients, and what is asked."""

from collections.abc import Collection
from dataclasses import InitVar, dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Tokens:
    """One modality of a batch: `n` sequences, and the `m` of the batch's rows that have one.

    Attributes:
        values: what the modality's encoder takes, float32:
            time_series (n, L, columns), image (n, height, width), text (n, L, encoder width),
            static (n, fields, columns), embedding (n, L, width), codes (n, L, 2): the code's
            number and log(1 + hours since it was first seen), wave (n, channels, samples), NaN
            where missing.
        valid: (n, L) bool, False where padding; image and wave: (n, 1), all True.
        rows: (m,) int64, strictly increasing: batch rows.
        shared: (m,) int64, the sequence of each row; None: m = n, in order. Kept as `of`.
        until: (m,) int64, how many tokens of its sequence each may know; None: all. Less than all
            is for models with causal streams, whose tokens know no later one.
    """

    values: Tensor
    valid: Tensor
    rows: Tensor
    shared: InitVar[Tensor | None] = None
    until: Tensor | None = None
    of: Tensor = field(init=False)

    def __post_init__(self, shared: Tensor | None) -> None:
        n, m = self.values.shape[0], self.rows.shape[0]
        self.of = torch.arange(m, device=self.rows.device) if shared is None else shared
        fits = self.valid.shape[0] == n and self.of.shape[0] == m
        if not fits or self.valid.dtype != torch.bool or (m and int(self.of.max()) >= n):
            raise ValueError(
                f"Tokens of {m} rows with values {tuple(self.values.shape)} and valid "
                f"{tuple(self.valid.shape)} {self.valid.dtype}"
            )

    def known(self) -> Tensor:
        """(m, L) bool: the tokens of its sequence that each row may know."""
        known = self.valid[self.of]
        if self.until is not None:
            known = known & (
                torch.arange(known.shape[1], device=known.device) < self.until[:, None]
            )
        return known

    def of_some(self, kept: Tensor) -> "Tokens":
        """The tokens of some rows, (m,) bool; sequences that none of them has are left out."""
        used, of = torch.unique(self.of[kept], return_inverse=True)
        until = None if self.until is None else self.until[kept]
        return Tokens(self.values[used], self.valid[used], self.rows[kept], of, until)

    def to(self, device: torch.device) -> "Tokens":
        """The same tokens with every tensor on `device`."""
        until = None if self.until is None else self.until.to(device)
        values, valid, rows = (x.to(device) for x in (self.values, self.valid, self.rows))
        return Tokens(values, valid, rows, self.of.to(device), until)


@dataclass
class Batch:
    """`size` (B) samples, what is known of each, and the tasks asked of all of them.

    Attributes:
        size: B, the number of rows.
        inputs: by modality name; a modality that no sample has may be left out.
        tasks: names of the T tasks asked of every row.
        labels: by task, (B, outputs) float32 (multiclass: (B, 1), the class number). Empty when
            nothing is known of the answers.
        label_masks: by task, the same shape, bool: True where the label exists.
        sample_rows: by task, (B,) int64: the row of the store's samples table, -1 where that task
            has no sample for this patient and time.
    """

    size: int
    inputs: dict[str, Tokens]
    tasks: tuple[str, ...]
    labels: dict[str, Tensor] = field(default_factory=dict)
    label_masks: dict[str, Tensor] = field(default_factory=dict)
    sample_rows: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task, labels in self.labels.items():
            if labels.shape[0] != self.size or self.label_masks[task].shape != labels.shape:
                raise ValueError(
                    f"labels of {task}: {tuple(labels.shape)} in a batch of {self.size}"
                )
        for name, tokens in self.inputs.items():
            if tokens.rows.numel() and int(tokens.rows.max()) >= self.size:
                raise ValueError(f"modality {name} has rows beyond the batch of {self.size}")

    def present(self, modalities: tuple[str, ...]) -> Tensor:
        """(B, M) bool: which of `modalities` each row has; one without a valid token is absent."""
        device = next((t.rows.device for t in self.inputs.values()), torch.device("cpu"))
        out = torch.zeros(self.size, len(modalities), dtype=torch.bool, device=device)
        for column, name in enumerate(modalities):
            if name in self.inputs:
                tokens = self.inputs[name]
                out[tokens.rows, column] = tokens.known().any(1)
        return out

    def without(self, modalities: Collection[str]) -> "Batch":
        """The same batch with these modalities absent from every row."""
        inputs = {name: one for name, one in self.inputs.items() if name not in modalities}
        return replace(self, inputs=inputs)

    def hiding(self, modalities: tuple[str, ...], hidden: Tensor) -> "Batch":
        """The same batch, but what is `hidden`, (B, M) bool, of `modalities` is absent."""
        inputs = dict(self.inputs)
        for column, name in enumerate(modalities):
            if name in inputs:
                kept = ~hidden[inputs[name].rows, column]
                if not kept.all():
                    inputs[name] = inputs[name].of_some(kept)
                    if not kept.any():
                        del inputs[name]
        return replace(self, inputs=inputs)

    def dropping(self, share: float) -> "Batch":
        """The same batch without some modalities, drawn from torch's own generator.

        Each that a row has is hidden with probability `share`, by itself; a row's last one stays.
        """
        names = tuple(sorted(self.inputs))
        if not names:
            return self
        luck = torch.where(self.present(names), torch.rand(self.size, len(names)), -1)
        last = torch.zeros_like(luck, dtype=torch.bool).scatter(1, luck.argmax(1, True), True)
        return self.hiding(names, (luck < share) & ~last)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with every tensor on `device`."""
        return Batch(
            self.size,
            {name: tokens.to(device) for name, tokens in self.inputs.items()},
            self.tasks,
            {k: v.to(device) for k, v in self.labels.items()},
            {k: v.to(device) for k, v in self.label_masks.items()},
            self.sample_rows,
        )
