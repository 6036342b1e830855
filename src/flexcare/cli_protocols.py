"""The commands of protocols: searching settings, making the table of results."""

from pathlib import Path

from flexcare.cli_bundles import Split, names_of


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

    chosen = names_of(models)
    page = run(protocol, data=data, out=out, results=results, split=split, models=chosen)
    print(f"results: {page}")


def tune(
    protocol: Path,
    /,
    *,
    data: Path | None = None,
    out: Path | None = None,
    models: str | None = None,
    trials: int | None = None,
) -> None:
    """Search the settings of a protocol's models on the tuning split.

    Args:
        protocol: TOML file with [tuning].
        data: folder that holds the data sets; $FLEXCARE_OPEN_DATA if absent.
        out: folder to work in, where the same command goes on; reproduced/NAME if absent.
        models: comma-separated; some of the protocol's.
        trials: of each model; the protocol's number if absent.
    """
    from flexcare.reproduce import tune as run

    found = run(protocol, data=data, out=out, models=names_of(models), trials=trials)
    print(f"tuned: {found}")
