"""Adding to a store: what is unchanged taken from an earlier store, against all anew.

Above: `flexcare prepare` with --reuse of a store that lacks one thing: a task, a variable, or a
source folder. Below: the same without. Readmission needs no film or text that the others do not
need; drg has texts of its own, and a folder of notes is all texts: these are embedded on both
sides. A variable is added to the file, so that the charts are read again. Whole processes, so that
both sides count their start; an invented hospital with films and notes.
"""

import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from measure import process, ratio

from flexcare.sources.synthetic import simulate
from flexcare.tasks import STANDARD

SUBJECTS = 2_000
Options = list[str | Path]


def without(task: str) -> Options:
    """All tasks but one."""
    return ["--tasks", ",".join(name for name in STANDARD if name != task)]


def fewer_variables(folder: Path) -> Path:
    """The variables file without its last variable."""
    text = (files("flexcare.sources") / "mimic_iv_variables.toml").read_text()
    last = [found.start() for found in re.finditer(r"^\[\w+\]$", text, re.MULTILINE)][-1]
    path = folder / "fewer_variables.toml"
    path.write_text(text[:last])
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hospital = folder / "hospital"
        simulate(hospital, SUBJECTS, seed=0)

        def prepare(out: Path, options: Options) -> float:
            command = [Path(sys.executable).with_name("flexcare"), "prepare", "mimic-iv", hospital]
            films = ["--cxr", hospital / "cxr"]
            return process([*command, "--out", out, *films, *options])[0]

        def prepared(options: Options) -> float:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                return prepare(Path(out) / "store", options)

        note: Options = ["--note", hospital / "note"]
        cases: dict[str, tuple[Options, Options]] = {
            "the task readmission": ([*note, *without("readmission")], note),
            "the task drg": ([*note, *without("drg")], note),
            "a variable": ([*note, "--variables", fewer_variables(folder)], note),
            "a folder of notes": (without("drg"), [*note, *without("drg")]),
        }
        for added, (before, now) in cases.items():
            earlier = folder / f"without {added}"
            prepare(earlier, before)
            ratio(
                f"adding {added} to a store, against all anew",
                "at most 0.5",
                lambda now=now, old=earlier: prepared([*now, "--reuse", old]),
                lambda now=now: prepared(now),
            )


if __name__ == "__main__":
    main()
