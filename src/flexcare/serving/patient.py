"""One patient as plain values -> a batch, by the feature functions that preparation uses."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from flexcare.batch import Batch, Tokens
from flexcare.errors import UserError, unknown
from flexcare.features.facts import code_values, distinct_facts, field_columns, last_values
from flexcare.features.films import UnreadableFilm, centre, read_film
from flexcare.features.notes import note_rules, parts
from flexcare.features.series import bin_events, to_columns
from flexcare.features.text import HashedNgrams, TextEncoder, text_encoder
from flexcare.features.variables import VariableSet
from flexcare.features.waves import UnusableWave, read_wave, standardised, wave_of
from flexcare.schema import ModalityInfo
from flexcare.serving.bundle import Bundle
from flexcare.serving.charted import charted_events, coded_events
from flexcare.serving.matching import variables_of

MOST_HOURS = 24 * 3660  # ten years: more is a mistake
Patient = Mapping[str, Any]


class PatientReader:
    """Turns patients into batches for one bundle.

    Args:
        encoder: name or folder of the text encoder that embedded the bundle's notes; None: the
            built-in one.

    Raises:
        UserError: an encoder is given and is another one.
    """

    def __init__(self, bundle: Bundle, encoder: str | Path | None = None) -> None:
        self.modalities = {info.name: info for info in bundle.modalities}
        self.scaling, self.most = bundle.scaling, bundle.model.config.max_facts
        self.variables: dict[str, VariableSet] = {}
        self.encoder: TextEncoder = text_encoder(str(encoder)) if encoder else HashedNgrams()
        for info in bundle.modalities if encoder else ():
            if info.kind == "text":
                self._check_encoder(info)

    def batch(
        self, patient: Patient, hours: float | None, tasks: tuple[str, ...]
    ) -> tuple[Batch, list[str]]:
        """A batch of one row without labels, and what was left out of it and why."""
        _check_hours(hours)
        left_out: list[str] = []
        inputs = {}
        for name, given in patient.items():
            if name not in self.modalities:
                raise unknown("modality", str(name), self.modalities, "The bundle takes these.")
            if given is not None:
                info = self.modalities[name]
                tokens = READ[info.kind](self, info, given, hours, left_out)
                if tokens is not None:
                    inputs[name] = tokens
        return Batch(1, inputs, tasks), left_out

    def series(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens | None:
        """Hourly bins up to the prediction time; None before the first observation."""
        if hours is None:
            raise UserError(
                "a series needs the prediction time", found="no hours", do="Give hours=..."
            )
        variables = self._variables(info)
        events = charted_events(given, hours, variables, left_out)
        values, observed, count = bin_events(events, np.array([float(hours)]), variables)
        if not (events.seconds >= 0).any() or not count[0]:
            left_out.append(f"{info.name}: nothing observed from ICU admission to hour {hours:g}")
            return None
        return _tokens(to_columns(values, observed, variables, *self._numbers(info)))

    def static(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens | None:
        """One token a field that is known by the prediction time."""
        variables, until = self._variables(info), float(hours or 0)
        events = charted_events(given, until, variables, left_out)
        values = last_values(events, np.array([until]), len(variables.names))
        if np.isnan(values).all():
            left_out.append(f"{info.name}: no field is known")
            return None
        return _tokens(field_columns(values, variables, *self._numbers(info)), ~np.isnan(values))

    def codes(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens | None:
        """One token a code that was known by the prediction time and that the model knows."""
        until = float(hours or 0)
        events = coded_events(given, until, self._scaling(info)["codes"], left_out)
        values, valid = code_values(distinct_facts(events, np.array([until]), self.most), 1)
        if not valid.any():
            left_out.append(f"{info.name}: no known code")
            return None
        return _tokens(values, valid)

    def embedding(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens | None:
        """One token a vector."""
        vectors = np.asarray(given)
        vectors = vectors[None] if vectors.ndim == 1 else vectors
        if (
            vectors.ndim != 2
            or vectors.shape[1] != info.width
            or vectors.dtype.kind not in "fiu"
            or not np.isfinite(vectors).all()
        ):
            raise UserError(
                f"the vectors of {info.name} cannot be used",
                found=f"{type(given).__name__} of {vectors.dtype}, shape {vectors.shape}",
                expected=f"finite numbers ({info.width},) or (vectors, {info.width})",
            )
        if not len(vectors):
            left_out.append(f"{info.name}: no vector")
            return None
        center, scale = self._numbers(info)
        return _tokens(((vectors[-self.most :] - center) / scale)[None].astype(np.float32))

    def wave(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens | None:
        """A standardised wave, from its channels or the path of a record."""
        (variable, *_) = self._variables(info).variables.values()
        wave = _wave(given, variable.channels, variable.samples, info.name)
        if np.isnan(wave).all():
            left_out.append(f"{info.name}: nothing but gaps")
            return None
        values = standardised(wave[None], *self._numbers(info))
        return _tokens(values, np.ones((1, 1), bool))

    def film(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens:
        """A standardised film, from a grey picture or the path of a JPEG."""
        scaling = self._scaling(info)
        pixels = _picture(given, info.width).astype(np.float32) / 255
        pixels = (pixels - scaling["mean"]) / scaling["sd"]
        return Tokens(
            torch.from_numpy(pixels.astype(np.float32)[None]),
            torch.ones(1, 1, dtype=torch.bool),
            torch.zeros(1, dtype=torch.int64),
        )

    def note(
        self, info: ModalityInfo, given: Any, hours: float | None, left_out: list[str]
    ) -> Tokens | None:
        """Word vectors of one text or several; None without a word."""
        self._check_encoder(info)
        entries = given if isinstance(given, list | tuple) else [given]
        texts = [text for entry in entries for text in _texts(entry)]
        vectors = [np.zeros((0, info.width), np.float16), *self.encoder.embed(texts)]
        pieces = np.concatenate(vectors).astype(np.float32)
        if not len(pieces):
            left_out.append(f"{info.name}: no text")
            return None
        return _tokens(pieces[None])

    def _variables(self, info: ModalityInfo) -> VariableSet:
        """Checked once, when first needed: an imported bundle has none and still takes tensors."""
        if info.name not in self.variables:
            self.variables[info.name] = variables_of(info, "the bundle")
        return self.variables[info.name]

    def _scaling(self, info: ModalityInfo) -> dict[str, Any]:
        if info.name not in self.scaling:
            raise UserError(
                f"the bundle does not say how its modality {info.name} was scaled",
                found="an imported network",
                expected="a bundle that `flexcare train` wrote",
                do="Ask it with tensors of your own: flexcare.serving.bundle.load_bundle.",
            )
        found: dict[str, Any] = self.scaling[info.name]
        return found

    def _numbers(self, info: ModalityInfo) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Centre and scale."""
        found = self._scaling(info)
        return np.array(found["center"], np.float32), np.array(found["scale"], np.float32)

    def _check_encoder(self, info: ModalityInfo) -> None:
        wanted = info.settings.get("encoder", "an unknown text encoder")
        if self.encoder.fingerprint != wanted:
            raise UserError(
                "the notes of the bundle were embedded by another text encoder",
                found=self.encoder.fingerprint,
                expected=wanted,
                do="Give its name or folder: flexcare.load(bundle, text_encoder=...).",
            )


# By kind of modality.
READ: dict[
    str,
    Callable[[PatientReader, ModalityInfo, Any, float | None, list[str]], Tokens | None],
] = {
    "time_series": PatientReader.series,
    "image": PatientReader.film,
    "text": PatientReader.note,
    "static": PatientReader.static,
    "codes": PatientReader.codes,
    "embedding": PatientReader.embedding,
    "wave": PatientReader.wave,
}


def _check_hours(hours: Any) -> None:
    usable = isinstance(hours, int | float | np.number) and 0 <= hours <= MOST_HOURS  # not NaN
    if hours is not None and not usable:
        raise UserError(
            "the prediction time cannot be used",
            found=f"{hours!r}",
            expected=f"hours from ICU admission, a number from 0 to {MOST_HOURS:,}",
        )


def _picture(given: Any, side: int) -> NDArray[np.uint8]:
    """(side, side) as preparation makes it."""
    if isinstance(given, str | Path):
        try:
            return read_film(Path(given), side)
        except (UnreadableFilm, OSError) as error:
            raise UserError(
                "the film cannot be read",
                found=getattr(error, "strerror", "") or "no JPEG that can be decoded",
                expected="the path of a JPEG file",
            ) from None
    picture = np.asarray(given)
    if picture.dtype != np.uint8 or picture.ndim != 2 or not picture.size:
        raise UserError(
            "the film cannot be used",
            found=f"{type(given).__name__} of {picture.dtype}, shape {picture.shape}",
            expected="a uint8 array (height, width), 0 black, or the path of a JPEG file",
        )
    return centre(picture, side)


def _wave(given: Any, channels: tuple[str, ...], samples: int, name: str) -> NDArray[np.float32]:
    """(channels, samples) as preparation makes it."""
    try:
        if isinstance(given, str | Path):
            return read_wave(Path(given), channels, samples)
        rows = given if isinstance(given, Mapping) else dict(zip(channels, given, strict=True))
        return wave_of(dict(rows), channels, samples)
    except UnusableWave as fault:
        found, expected = fault.found, fault.expected
    except (TypeError, ValueError):
        found = f"a {type(given).__name__}"
        expected = (
            f"{samples:,} numbers of each channel: {', '.join(channels)}; as a table by channel"
            ", an array (channels, samples), or the path of a record"
        )
    raise UserError(f"the wave of {name} cannot be used", found=found, expected=expected)


def _texts(entry: Any) -> list[str]:
    """A text as it is, or the parts of a document that preparation keeps."""
    if isinstance(entry, str):
        return [entry.strip()] if entry.strip() else []
    rules = note_rules()
    if not isinstance(entry, Mapping) or entry.keys() != {"kind", "text"}:
        raise UserError(
            "a note cannot be read",
            found=f"a {type(entry).__name__}",
            expected='texts, or {"kind": ..., "text": ...} of whole documents',
        )
    if entry["kind"] not in rules.parts:
        raise unknown("kind of document", str(entry["kind"]), rules.parts)
    return list(parts(entry["kind"], entry["text"], rules).values())


def _tokens(values: NDArray[np.float32], valid: NDArray[np.bool_] | None = None) -> Tokens:
    """(1, L, width), all of it valid unless told otherwise."""
    there = np.ones(values.shape[:2], bool) if valid is None else valid
    rows = torch.zeros(1, dtype=torch.int64)
    return Tokens(torch.from_numpy(values), torch.from_numpy(there), rows)
