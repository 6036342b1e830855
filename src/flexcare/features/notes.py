"""The sections of a document, by the rules of notes.toml."""

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

WHOLE = "whole"  # the name of a text that is a whole document


@dataclass(frozen=True)
class NoteRules:
    """What notes.toml says, ready for use."""

    header: re.Pattern[str]  # a line that begins with a known header and a colon
    same: dict[str, str]  # other spelling -> section
    parts: dict[str, list[str]]  # kind of document -> sections kept; [] is all


@lru_cache
def note_rules() -> NoteRules:
    """The rules that come with the package."""
    table: dict[str, Any] = tomllib.loads((files("flexcare.features") / "notes.toml").read_text())
    names = sorted(table["headers"], key=len, reverse=True)
    header = re.compile(
        r"^[ \t]*(" + "|".join(map(re.escape, names)) + r")[ \t]*:", re.IGNORECASE | re.MULTILINE
    )
    same = {other: name for name, others in table["same"].items() for other in others}
    return NoteRules(header, same, table["parts"])


def sections(text: str, rules: NoteRules) -> dict[str, str]:
    """Every section of a document that is not empty, by lower-case name; the first of each wins."""
    found = list(rules.header.finditer(text))
    out: dict[str, str] = {}
    ends = [*(following.start() for following in found[1:]), len(text)]
    for here, end in zip(found, ends, strict=False):
        name = here.group(1).lower()
        body = text[here.end() : end].strip()
        if body:
            out.setdefault(rules.same.get(name, name), body)
    return out


def parts(kind: str, text: str, rules: NoteRules) -> dict[str, str]:
    """What is kept of a document of this kind: section name -> text, without empty ones."""
    wanted = rules.parts[kind]
    if not wanted:
        return {WHOLE: text.strip()} if text.strip() else {}
    found = sections(text, rules)
    return {name: found[name] for name in wanted if name in found}
