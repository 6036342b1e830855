"""A sample's inputs cut into what a person can name: a variable in an hour, a patch, a word.

Each detail can be turned down, from what it is (1) to what says nothing (0): a variable to its
normal value, not observed; a patch of a film or wave to the training split's mean; a word, a
vector, a field and a code to none in particular. A gap of a wave stays one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flexcare.batch import Tokens
from flexcare.explain.question import Question
from flexcare.features.facts import distinct_facts
from flexcare.features.series import bins_until, to_columns
from flexcare.features.text import TextEncoder
from flexcare.features.variables import VariableSet
from flexcare.loading.events import OwnEvents, Vectors
from flexcare.loading.loader import Loader
from flexcare.models.encoders import Codes, Encoder, Image, Wave


class Detail(NamedTuple):
    """`what` of a series is the variable, of a note the kind and section of the text."""

    what: str
    where: str = ""
    value: str = ""


@dataclass(frozen=True)
class Details:
    """One modality of one sample, cut into K details.

    Attributes:
        kind: of the modality.
        tokens: the sample's sequence (1, ...), float64.
        base: what it becomes when all is turned down; the same shape or one that broadcasts.
        number: which detail each entry of the sequence belongs to, likewise.
        named: the K details.
        grid: rows and columns of those that lie in one.
    """

    kind: str
    tokens: Tokens
    base: Tensor
    number: Tensor
    named: list[Detail]
    grid: tuple[int, int] | None = None

    def turned(self, weights: Tensor) -> Tokens:
        """(n, K) weights -> n rows with a sequence each."""
        values, valid = self.tokens.values, self.tokens.valid
        given = values.nan_to_num()  # a gap must not reach the gradients
        turned = self.base + weights[:, self.number] * (given - self.base)
        values = torch.where(values.isnan(), torch.nan, turned)
        rows = torch.arange(len(weights))
        return Tokens(values, valid.expand(len(weights), -1), rows)


class Turned:
    """A question about a sample, some of whose details are turned down.

    Attributes:
        count: U, of the details of all modalities, one modality after the other.
        places: by modality, where its details are among them.
    """

    def __init__(self, question: Question, known: dict[str, Details]) -> None:
        self.question, self.known = question, known
        self.places: dict[str, slice] = {}
        self.count = 0
        for name, details in known.items():
            first, self.count = self.count, self.count + len(details.named)
            self.places[name] = slice(first, self.count)

    def __call__(self, weights: Tensor) -> Tensor:
        """(n, U) weights -> (n,) log-odds."""
        inputs, hooks = {}, []
        for name, details in self.known.items():
            own = weights[:, self.places[name]]
            inputs[name] = details.turned(own)
            # A code is a number; what can be turned down is the vector that stands for it.
            for encoder in encoders(self.question.model, name):
                if isinstance(encoder, Codes):
                    hooks.append(encoder.codes.register_forward_hook(partial(_scaled, own)))
        try:
            return self.question(len(weights), inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def answers(self, weights: Tensor) -> Tensor:
        """The same, without gradients and for any number of rows."""
        with torch.no_grad():
            return torch.cat([self(part) for part in torch.split(weights, self.question.rows)])


def _scaled(weights: Tensor, table: nn.Module, given: Any, vectors: Tensor) -> Tensor:
    return vectors * weights[..., None]


def encoders(model: nn.Module, name: str) -> list[Encoder]:
    """Those of a modality, one in each network that the model consists of."""
    parts = model.named_modules()
    return [m for path, m in parts if isinstance(m, Encoder) and path.split(".")[-1] == name]


@dataclass(frozen=True)
class Reading:
    """Where the details of a sample are told from.

    Attributes:
        row: of the sample, in the store.
        encoder: the text encoder, whose word pieces may be named; None: they may not.
    """

    loader: Loader
    row: int
    model: nn.Module
    encoder: TextEncoder | None

    def known(self) -> dict[str, Details]:
        """By modality that the sample has, sorted by name."""
        store, rows = self.loader.store, np.array([[self.row]])
        batch = self.loader.batch(rows, (store.samples["task"][self.row].as_py(),))
        out = {}
        for name in sorted(batch.inputs):
            kind, tokens = store.modalities[name].kind, batch.inputs[name]
            # Of one sample the loader gives one sequence, without padding.
            own = Tokens(tokens.values.double(), tokens.valid, tokens.rows)
            out[name] = KINDS[kind](self, name, own)
        return out

    def scaled(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Centre and scale of a modality."""
        found = self.loader.scaling[name]
        return np.array(found["center"], np.float32), np.array(found["scale"], np.float32)

    def series(self, name: str, tokens: Tokens) -> Details:
        """A detail is a variable in an hour: its value, and whether it was observed."""
        own = self.loader.series_of[name]
        variables, (center, scale) = own.variables, self.scaled(name)
        columns, width = variables.value_columns(), len(variables.names)
        owner = torch.tensor([number for number, _ in columns] + list(range(width)))
        bins = tokens.values.shape[1]
        normal = np.array([[v.normal_value() for v in variables.variables.values()]], np.float32)
        nothing = np.zeros((1, width), bool)
        base = torch.from_numpy(to_columns(normal, nothing, variables, center, scale)).double()
        first = int(bins_until(own.hours[[self.row]])[0]) - bins
        named = []
        for bin, values in enumerate(tokens.values[0].numpy()):
            told, seen = told_values(values, variables, center, scale), values[len(columns) :]
            named += [
                Detail(variable, f"hour {first + bin}", value if is_seen else f"({value})")
                for variable, value, is_seen in zip(variables.names, told, seen, strict=True)
            ]
        number = torch.arange(bins)[:, None] * width + owner
        return Details("time_series", tokens, base[None], number, named, (bins, width))

    def film(self, name: str, tokens: Tokens) -> Details:
        """A detail is a patch; a patch that is turned down is as bright as the mean film."""
        (encoder, *_) = encoders(self.model, name)
        assert isinstance(encoder, Image)
        side = tokens.values.shape[-1]
        place = torch.arange(side) // encoder.patch
        count = side // encoder.patch
        named = [
            Detail("patch", f"row {r + 1}, column {c + 1} of {count}")
            for r in range(count)
            for c in range(count)
        ]
        number = place[:, None] * count + place
        return Details("image", tokens, torch.zeros(1), number, named, (count, count))

    def note(self, name: str, tokens: Tokens) -> Details:
        """A detail is a word piece."""
        store, (offsets, texts) = self.loader.store, self.loader.texts
        own = texts[offsets[self.row] : offsets[self.row + 1]]
        named = []
        for row, (first, stop) in zip(own.tolist(), store.embeddings[1][own], strict=True):
            kind, section = (store.texts[column][row].as_py() for column in ("kind", "section"))
            words = [""] * int(stop - first)
            if self.encoder:
                words = self.encoder.pieces(store.texts["text"][row].as_py())
            named += [
                Detail(f"{kind}: {section}", f"piece {place + 1}", word)
                for place, word in enumerate(words)
            ]
        return _plain("text", tokens, named[: tokens.values.shape[1]])

    def static(self, name: str, tokens: Tokens) -> Details:
        """A detail is a field that is known."""
        variables, (center, scale) = self._facts(name).variables, self.scaled(name)
        valid = tokens.valid[0]
        fields = zip(variables.names, tokens.values[0].numpy(), range(len(valid)), strict=True)
        named = [
            Detail(field, "", told_values(values, variables, center, scale)[place])
            for field, values, place in fields
            if valid[place]
        ]
        number = (valid.cumsum(0) - 1).clamp(min=0)[:, None]  # an unknown field is 0 already
        return Details("static", tokens, torch.zeros(1), number, named)

    def codes(self, name: str, tokens: Tokens) -> Details:
        """A detail is a code and its age."""
        known = self.loader.scaling[name]["codes"]
        every = [(v, c) for v in self._facts(name).variables.names for c in known[v]]
        named = []
        for number, age in tokens.values[0].numpy():
            variable, code = every[int(number)]
            named.append(Detail(variable, f"first seen {np.expm1(age):.0f} h before", code))
        keep = torch.tensor([1.0, 0.0], dtype=torch.float64)  # the number is no quantity
        return Details("codes", tokens, tokens.values * keep, _places(tokens), named)

    def vectors(self, name: str, tokens: Tokens) -> Details:
        """A detail is a vector."""
        own = self._facts(name)
        assert isinstance(own, Vectors)
        rows = np.array([self.row])
        _, events = own.of(rows)
        facts = distinct_facts(events, own.hours[rows], own.most)
        names = own.variables.names
        every = zip(facts.place, facts.variable, facts.since, strict=True)
        named = [Detail(names[v], f"vector {p + 1}", f"{since:.0f} h old") for p, v, since in every]
        return _plain("embedding", tokens, named)

    def wave(self, name: str, tokens: Tokens) -> Details:
        """A detail is a channel in a patch of time."""
        (encoder, *_) = encoders(self.model, name)
        assert isinstance(encoder, Wave)
        channels, samples = tokens.values.shape[1:]
        count = samples // encoder.patch
        leads = next(iter(self._facts(name).variables.variables.values())).channels
        named = [
            Detail(lead, f"samples {first + 1} to {first + encoder.patch}")
            for lead in leads
            for first in range(0, samples, encoder.patch)
        ]
        number = torch.arange(channels)[:, None] * count + torch.arange(samples) // encoder.patch
        return Details("wave", tokens, torch.zeros(1), number, named, (channels, count))

    def _facts(self, name: str) -> OwnEvents:
        return self.loader.facts[name]


# By kind of modality.
KINDS: dict[str, Callable[[Reading, str, Tokens], Details]] = {
    "time_series": Reading.series,
    "image": Reading.film,
    "text": Reading.note,
    "static": Reading.static,
    "codes": Reading.codes,
    "embedding": Reading.vectors,
    "wave": Reading.wave,
}


def _places(tokens: Tokens) -> Tensor:
    return torch.arange(tokens.values.shape[1])[:, None]


def _plain(kind: str, tokens: Tokens, named: list[Detail]) -> Details:
    """A detail a token, which becomes 0."""
    return Details(kind, tokens, torch.zeros(1), _places(tokens), named)


def told_values(
    columns: NDArray[np.float64],
    variables: VariableSet,
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
) -> list[str]:
    """Of each variable its value in its unit, or the category, from a token's columns."""
    out = [""] * len(variables.names)
    named = list(variables.variables.values())
    for place, (number, category) in enumerate(variables.value_columns()):
        if category is None:
            value = columns[place] * scale[number] + center[number]
            out[number] = f"{value:.4g} {named[number].unit}"
        elif columns[place]:
            out[number] = named[number].categories[category]
    return out
