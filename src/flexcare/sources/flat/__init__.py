"""A hospital's own tables: one folder of csv or Parquet files, described in docs/data.md."""

from pathlib import Path

import duckdb

from flexcare.sources.flat.check import check
from flexcare.sources.flat.faults import Faults
from flexcare.sources.flat.source import Flat, tasks_of
from flexcare.sources.flat.template import write_template

__all__ = ["Flat", "faults_of", "tasks_of", "write_template"]


def faults_of(folder: Path) -> Faults:
    """Everything that is wrong with a folder of flat tables.

    Raises:
        UserError: no such folder.
    """
    with duckdb.connect() as connection:
        return check(folder, connection)[0]
