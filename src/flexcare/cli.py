"""The command line: one function a command, which parses, calls and prints."""

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

import cyclopts
from cyclopts import App, Parameter

from flexcare.cli_experiments import experiment
from flexcare.errors import UserError

Split = Literal["train", "tuning", "held_out"]

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
    print(f"{path}: {len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}")
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
        tasks=_names(tasks),
        modalities=_names(modalities),
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
    from flexcare.show import table_of

    print(table_of(judge(run, split, baselines=baselines, resamples=resamples)))


@app.command(sort_key=5)
def report(
    run: Path = Path("laboratory"),
    /,
    *,
    experiments: bool = False,
    split: Split = "held_out",
    beside: Annotated[list[Path] | None, Parameter(negative="")] = None,
    question: str | None = None,
) -> None:
    """Write report.html: one offline page of an evaluated run.

    Args:
        run: folder that `evaluate` has judged; with --experiments that of `flexcare experiment`.
        experiments: one page of all claims and their verdicts, and claims.md, instead.
        split: the split it was judged on.
        beside: another evaluated run to compare with; may be repeated.
        question: the task that the comparison is about.
    """
    from flexcare.report.assemble import report as write

    if experiments:
        from flexcare.experiments.page import claims

        print(f"claims: {claims(run)}")
        return
    print(f"report: {write(run, split, beside=beside or [], question=question)}")


@app.command(sort_key=5)
def reproduce(
    protocol: Path,
    /,
    *,
    data: Path | None = None,
    out: Path | None = None,
    results: Path | None = None,
    split: Split = "held_out",
    models: str | None = None,
) -> None:
    """Run a protocol from raw data to its table of results.

    Args:
        protocol: TOML file, such as those in runs/.
        data: folder that holds the data sets; $FLEXCARE_OPEN_DATA if absent.
        out: folder to work in, where the same command goes on; reproduced/NAME if absent.
        results: folder of results.json and results.md; docs/ beside the protocol's folder.
        split: another than held_out is for development; its results stay in --out.
        models: comma-separated; some of the protocol's, whose results stay in --out.
    """
    from flexcare.reproduce import reproduce as run

    chosen = _names(models)
    page = run(protocol, data=data, out=out, results=results, split=split, models=chosen)
    print(f"results: {page}")


app.command(experiment, sort_key=5)


@app.command(sort_key=6)
def predict(
    bundle: Path,
    path: Path,
    /,
    *,
    out: Path,
    source: str | None = None,
    cxr: Path | None = None,
    note: Path | None = None,
    ed: Path | None = None,
    split: Split | None = None,
    tasks: str | None = None,
    meds: Path | None = None,
) -> None:
    """Predict with a bundle on a store, or on a folder of raw tables.

    Args:
        bundle: folder with weights.safetensors and bundle.json.
        path: store that `prepare` wrote; with --source a folder of raw tables.
        out: predictions table to write (Parquet, MEDS columns).
        source: a name as in prepare; the folder is prepared as the bundle's store was.
        cxr: folder of MIMIC-CXR-JPG.
        note: folder of MIMIC-IV-Note.
        ed: folder of MIMIC-IV-ED.
        split: only these samples; all if absent.
        tasks: comma-separated; all that both know if absent.
        meds: folder to write, too: a file a binary task, as meds-evaluation reads it.
    """
    from tempfile import TemporaryDirectory

    from flexcare.evaluation.predictions import write_meds, write_predictions
    from flexcare.files import refuse_existing
    from flexcare.preparation import prepare as run
    from flexcare.serving.predictor import load

    refuse_existing(out)
    if meds is not None:
        refuse_existing(meds, "--meds")
    predictor = load(bundle)
    names = _names(tasks)
    with TemporaryDirectory() as place:
        if source is not None:
            path = run(
                source,
                path,
                Path(place) / "store",
                cxr=cxr,
                note=note,
                ed=ed,
                tasks=tasks or ",".join(predictor.tasks),
                settings=predictor.preparation(source, Path(place)),
            )
        table = predictor.predict_store(path, split=split, tasks=names)
    write_predictions(out, table)
    print(f"predictions: {len(table):,} in {out}")
    if meds is not None:
        print(f"MEDS: {', '.join(write_meds(meds, table)) or 'no binary task'} in {meds}")


@app.command(name="import-authors", sort_key=7)
def import_authors(
    file: Path,
    /,
    *,
    out: Path,
    heads: int = 2,
    mask: Literal["boolean", "additive"] = "boolean",
) -> None:
    """Make a bundle of a checkpoint of the authors' released code.

    Args:
        file: state dict (.safetensors, .pt or .pth).
        out: bundle to write.
        heads: attention heads, which a state dict does not tell.
        mask: boolean as the paper says, or additive as the released code does.
    """
    from flexcare.files import refuse_existing
    from flexcare.serving.authors import import_authors as run

    refuse_existing(out)
    run(file, out, heads=heads, mask=mask)
    print(f"bundle: {out}")


@app.command(sort_key=8)
def show(path: Path, /) -> None:
    """Explain any artefact: store, run, bundle, predictions.

    Args:
        path: the folder or file.
    """
    from flexcare.show import explain

    print(explain(path))


def _names(text: str | None) -> list[str] | None:
    """The names of a comma-separated list."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


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
