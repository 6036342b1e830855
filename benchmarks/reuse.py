"""Adding one task to a store: the other six taken from an earlier store, against all seven anew.

Above: `flexcare prepare` of seven tasks with --reuse of a store of six. Below: the same without.
Readmission needs no film or text that the others do not need; drg has texts of its own, which are
embedded on both sides. Whole processes, so that both sides count their start; an invented
hospital with films and notes.
"""

import sys
import tempfile
from pathlib import Path

from measure import process, ratio

from flexcare.preparation import prepare
from flexcare.sources.synthetic import simulate
from flexcare.tasks import STANDARD

SUBJECTS = 2_000


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulate(folder / "hospital", SUBJECTS, seed=0)

        def prepared(*options: str | Path) -> float:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                command = [Path(sys.executable).with_name("flexcare"), "prepare", "synthetic"]
                place = [folder / "hospital", "--out", Path(out) / "seven"]
                return process([*command, *place, *options])[0]

        for task in ("readmission", "drg"):
            six = folder / f"without-{task}"
            others = [name for name in STANDARD if name != task]
            prepare("synthetic", folder / "hospital", six, tasks=others, say=lambda line: None)
            with_six = ("--reuse", six)
            ratio(
                f"adding {task} to a store, against all anew",
                "at most 0.5",
                lambda given=with_six: prepared(*given),
                prepared,
            )


if __name__ == "__main__":
    main()
