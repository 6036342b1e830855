"""The command line: one function a command, which parses, calls and prints."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import App, Parameter

from flexcare.cli_bundles import (
    Split,
    ensemble,
    explain,
    extend_modality,
    extend_task,
    import_authors,
    names_of,
    predict,
)
from flexcare.cli_experiments import experiment
from flexcare.cli_protocols import reproduce, tune
from flexcare.errors import UserError

app = App(
    name="flexcare",
    help="One model for many clinical questions, from whatever is known of a patient.\n\n"
    "simulate -> prepare -> train -> evaluate -> report -> predict",
    help_format="plaintext",
    result_action="return_value",
)
for _name in ("--help", "--version"):
    app[_name].group = "Options"


@app.command(sort_key=1)
def simulate(
    *, subjects: int, out: Path, seed: int = 0, films: bool = True, notes: bool = True
) -> None:
    """Invent a hospital in MIMIC-IV's layout, with known truth.

    Args:
        subjects: number of patients.
        out: folder to write.
        seed: of everything random.
        films: with chest films.
        notes: with discharge summaries and reports.
    """
    from flexcare.sources.synthetic import simulate as run

    run(out, subjects, seed, films=films, notes=notes)
    print(f"invented hospital: {out}")


@app.command(sort_key=2)
def prepare(
    source: str,
    path: Path,
    /,
    *,
    out: Path,
    cxr: Path | None = None,
    note: Path | None = None,
    ed: Path | None = None,
    preset: str = "corrected",
    tasks: str | None = None,
    variables: Path | None = None,
    text_encoder: str | None = None,
    clock: Literal["charttime", "storetime"] | None = None,
    config: Path | None = None,
    reuse: Path | None = None,
) -> None:
    """Turn raw tables into a store: cohort, questions, answers, features.

    Args:
        source: mimic-iv, eicu, physionet2012, physionet2019, meds, flat or synthetic.
        path: folder of the source.
        out: store to write.
        cxr: folder of MIMIC-CXR-JPG.
        note: folder of MIMIC-IV-Note.
        ed: folder of MIMIC-IV-ED.
        preset: corrected, paper or authors.
        tasks: comma-separated names, .toml files, MEDS label files or ACES task files (.yaml); the
            source's usual ones if absent.
        variables: variables file (.toml) in place of the source's.
        text_encoder: hashed, minilm, or a Hugging Face folder.
        clock: when a value counts as known: when charted, or when stored.
        config: TOML with any other setting of preparation.
        reuse: earlier store; what would become the same is taken from it.
    """
    from flexcare.config import read_toml
    from flexcare.preparation import prepare as run

    run(
        source,
        path,
        out,
        cxr=cxr,
        note=note,
        ed=ed,
        preset=preset,
        tasks=tasks,
        variables=variables,
        text_encoder=text_encoder,
        clock=clock,
        settings=read_toml(config) if config else None,
        reuse=reuse,
    )
    print(f"store: {out}")


@app.command(sort_key=2)
def check(source: Literal["flat"], path: Path, /) -> None:
    """Look for everything that is wrong with a hospital's own tables.

    Args:
        source: flat.
        path: folder of the tables.
    """
    from flexcare.sources.flat import faults_of

    faults = faults_of(path)
    for line in faults.lines():
        print(line)
    print(f"{path}: {faults.number()}")
    if len(faults):
        sys.exit(1)


@app.command(sort_key=2)
def template(source: Literal["flat"], path: Path, /) -> None:
    """Write a small invented folder of tables to begin with.

    Args:
        source: flat.
        path: folder to write.
    """
    from flexcare.sources.flat import write_template

    write_template(path)
    print(f"example: {path}")


@app.command(sort_key=3)
def train(
    store: Path,
    /,
    *,
    out: Path,
    config: Path | None = None,
    tasks: str | None = None,
    modalities: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    resume: bool = False,
) -> None:
    """Train one model on a store's questions.

    Args:
        store: folder that `prepare` wrote.
        out: run folder.
        config: TOML with network, [model], [objective] and [training].
        tasks: comma-separated; all of the store if absent.
        modalities: comma-separated; all of the store if absent.
        epochs: passes over the samples of every task.
        seed: of everything random.
        resume: go on from the last checkpoint of --out.
    """
    from flexcare.config import read_toml
    from flexcare.training.run import train as run

    run(
        store,
        out,
        tasks=names_of(tasks),
        modalities=names_of(modalities),
        epochs=epochs,
        seed=seed,
        settings=read_toml(config) if config else None,
        resume=resume,
    )
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several of us
        print(f"run: {out}")


@app.command(sort_key=4)
def evaluate(
    run: Path, /, *, split: Split = "held_out", baselines: bool = True, resamples: int = 1000
) -> None:
    """Judge a run and the baselines on the same samples.

    Args:
        run: folder that `train` wrote.
        split: train, tuning or held_out.
        baselines: boosted trees and the majority, too.
        resamples: of the subjects, for the intervals.
    """
    from flexcare.evaluation.run import evaluate as judge
    from flexcare.report.words import under_served_line
    from flexcare.show import table_of

    found = judge(run, split, baselines=baselines, resamples=resamples)
    print(table_of(found))
    if line := under_served_line(found):
        print(line)


@app.command(sort_key=4)
def missing(run: Path, /, *, split: Split = "held_out", resamples: int = 1000) -> None:
    """Judge a run with modalities taken away: whole sets of them, and shares of each.

    Args:
        run: folder that `train` wrote.
        split: train, tuning or held_out.
        resamples: of the subjects, for the intervals.
    """
    from flexcare.evaluation.missing import missing as judge
    from flexcare.evaluation.subsets import as_rows
    from flexcare.report.taken import write_figure
    from flexcare.show import plain_table

    found = judge(run, split, resamples=resamples)
    for part in found.values():
        print(plain_table(*as_rows(part)))
    print("* differs from all: the interval of the paired difference leaves 0 out")
    print(f"figure: {write_figure(run / 'missing' / 'grid.svg', found['grid'])}")


@app.command(sort_key=4)
def value(run: Path, /, *, sample: str | None = None, split: Split = "held_out") -> None:
    """Say what a modality would tell of patients who lack it, by patients alike who have it.

    Args:
        run: folder that `train` wrote.
        sample: one sample_id; all patients of the split if absent.
        split: train, tuning or held_out.
    """
    from flexcare.evaluation.value import ASSUMPTIONS, as_rows, of_sample_as_rows, value_of
    from flexcare.evaluation.value import value as of_split
    from flexcare.show import plain_table

    if sample is None:
        print(plain_table(*as_rows(of_split(run, split))))
    else:
        found = value_of(run, sample)
        print(f"{sample}, known: {', '.join(found['known']) or 'nothing'}")
        print(f"bits of uncertainty now: {found['uncertainty']:.3f}")
        print(plain_table(*of_sample_as_rows(found)))
    print("assumed:", *ASSUMPTIONS, sep="\n  ")


@app.command(sort_key=5)
def report(
    run: Path | None = None,
    /,
    *,
    experiments: bool = False,
    told: Path | None = None,
    split: Split = "held_out",
    beside: Annotated[list[Path] | None, Parameter(negative="")] = None,
    question: str | None = None,
) -> None:
    """Write report.html: one offline page of an evaluated run.

    Args:
        run: folder that `evaluate` has judged; with --experiments that of `flexcare experiment`,
            laboratory if absent.
        experiments: one page of all claims and their verdicts, and claims.md, instead.
        told: folder of claims.md and claims.json, where the laboratory's claims replace those
            told earlier; the laboratory if absent.
        split: the split it was judged on.
        beside: another evaluated run to compare with; may be repeated.
        question: the task that the comparison is about.
    """
    from flexcare.report.assemble import report as write

    if experiments:
        from flexcare.experiments.page import claims

        if split != "held_out" or beside or question:
            raise UserError(
                "--experiments goes with --told alone", found="options of a run's report"
            )
        print(f"claims: {claims(run or Path('laboratory'), told)}")
        return
    if run is None:
        raise UserError("no RUN is named", expected="RUN, a folder of a run, or --experiments")
    if told:
        raise UserError("--told is of claims", expected="--experiments --told DIR")
    print(f"report: {write(run, split, beside=beside or [], question=question)}")


app.command(experiment, sort_key=5)
app.command(reproduce, sort_key=5)
app.command(tune, sort_key=5)
app.command(ensemble, sort_key=6)
app.command(explain, sort_key=6)
app.command(predict, sort_key=6)
extend = App(
    name="extend",
    help="Teach a bundle something new; its old answers stay the same to the bit.",
    sort_key=7,
)
extend.command(extend_task, name="task")
extend.command(extend_modality, name="modality")
app.command(extend)
app.command(import_authors, name="import-authors", sort_key=7)


@app.command(sort_key=8)
def show(path: Path, /) -> None:
    """Explain any artefact: store, run, bundle, predictions.

    Args:
        path: the folder or file.
    """
    from flexcare.show import explain

    print(explain(path))


def main(tokens: list[str] | None = None) -> None:
    """Run a command; a user's mistake is one clear message and exit code 2, ctrl-C is 130."""
    arguments = sys.argv[1:] if tokens is None else tokens
    debug = "--debug" in arguments
    try:
        app([a for a in arguments if a != "--debug"], exit_on_error=False, print_error=True)
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except cyclopts.CycloptsError:
        sys.exit(2)
    except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        print(
            f"error: {type(error).__name__}: {error}\n  do:       This is a fault of flexcare. "
            "Run the command again with --debug and report what it prints.",
            file=sys.stderr,
        )
        sys.exit(1)
