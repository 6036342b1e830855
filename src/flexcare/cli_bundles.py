"""The commands of bundles: asking one, making one of others, teaching one something new."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flexcare.training.extend import Options

Split = Literal["train", "tuning", "held_out"]


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
    names = names_of(tasks)
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


def ensemble(*bundles: Path, out: Path) -> None:
    """Make one bundle of several: it answers with the mean of their probabilities.

    Args:
        bundles: at least two, or their runs, alike in all but their weights, such as seeds.
        out: bundle to write.
    """
    from flexcare.files import refuse_existing
    from flexcare.serving.ensemble import ensemble as run

    refuse_existing(out)
    run(bundles, out)
    print(f"bundle: {out}")


def extend_task(
    bundle: Path,
    store: Path,
    /,
    *,
    tasks: str,
    out: Path,
    config: Path | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    unfreeze: bool = False,
    resume: bool = False,
) -> None:
    """Teach a bundle tasks that it does not know.

    Args:
        bundle: folder with weights.safetensors and bundle.json.
        store: folder that `prepare` wrote, with the new tasks.
        tasks: comma-separated, new to the bundle.
        out: run folder, whose bundle answers old and new tasks.
        config: TOML with [objective] and [training]; what it leaves out is as the bundle has it.
        epochs: passes over the samples.
        seed: of everything random.
        unfreeze: train everything, to compare; old answers change.
        resume: go on from the last checkpoint of --out.
    """
    from flexcare.training.extend import extend_task as run

    run(bundle, store, names_of(tasks) or [], out, _options(config, epochs, seed, unfreeze, resume))
    _extended(out)


def extend_modality(
    bundle: Path,
    store: Path,
    /,
    *,
    modalities: str,
    out: Path,
    config: Path | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    unfreeze: bool = False,
    resume: bool = False,
) -> None:
    """Teach a bundle to read modalities that it does not take.

    Args:
        bundle: folder with weights.safetensors and bundle.json.
        store: folder that `prepare` wrote, with the new modalities and tasks of the bundle.
        modalities: comma-separated, new to the bundle.
        out: run folder, whose bundle takes old and new modalities.
        config: TOML with tasks (to learn from), [objective] and [training]; what it leaves out is
            as the bundle has it.
        epochs: passes over the samples.
        seed: of everything random.
        unfreeze: train everything, to compare; old answers change.
        resume: go on from the last checkpoint of --out.
    """
    from flexcare.training.extend import extend_modality as run

    names = names_of(modalities) or []
    run(bundle, store, names, out, _options(config, epochs, seed, unfreeze, resume))
    _extended(out)


def _options(
    config: Path | None, epochs: int | None, seed: int | None, unfreeze: bool, resume: bool
) -> "Options":
    """How an extension is learned."""
    from flexcare.config import read_toml
    from flexcare.training.extend import Options

    settings = read_toml(config) if config else None
    return Options(unfreeze, settings, epochs, seed, resume)


def _extended(out: Path) -> None:
    """Show what an extension left."""
    from flexcare.show import explain

    if os.environ.get("RANK", "0") == "0":
        print(explain(out))


def explain(
    bundle: Path,
    store: Path,
    /,
    *,
    sample: str,
    task: str | None = None,
    answer: str | None = None,
    deletion: bool = False,
    show_text: bool = False,
    out: Path | None = None,
) -> None:
    """Take the answer about one sample apart: modalities, experts, hours, words, patches.

    Args:
        bundle: folder with weights.safetensors and bundle.json.
        store: store that `prepare` wrote.
        sample: its sample_id, as a table of predictions has it.
        task: comma-separated; the sample's own if absent.
        answer: the output to explain, of a task with several; the most probable if absent.
        deletion: how fast the answer changes without what mattered, and without anything else.
        show_text: name the words of notes, not only their places.
        out: folder to write explain.json and pictures to.
    """
    from flexcare.explain import as_text, write
    from flexcare.explain import explain as run
    from flexcare.files import refuse_existing

    if out is not None:
        refuse_existing(out)
    found = run(
        bundle,
        store,
        sample,
        tasks=names_of(task),
        answer=answer,
        deletion=deletion,
        show_text=show_text,
    )
    print(as_text(found))
    if out is not None:
        write(out, found)
        print(f"explanation: {out}")


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


def names_of(text: str | None) -> list[str] | None:
    """The names of a comma-separated list."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
