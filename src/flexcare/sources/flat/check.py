"""`flexcare check flat DIR`: everything that is wrong with a folder of flat tables."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb

from flexcare.config import check as checked
from flexcare.config import read_toml
from flexcare.errors import UserError
from flexcare.features.notes import note_rules
from flexcare.features.variables import Variable, VariableSet, variable_set
from flexcare.features.waves import UnusableWave, check_wave
from flexcare.sources.flat.faults import LONG, Faults, shortened
from flexcare.sources.flat.layout import CELLS, TABLE_OF_KIND, TABLES, TASKS, VARIABLES
from flexcare.sources.flat.reading import find_tables, read_table
from flexcare.sources.tables import OLDEST
from flexcare.tasks import load_task

T = TypeVar("T")
JPEG = b"\xff\xd8"  # how such a file begins


def check(
    folder: Path, connection: duckdb.DuckDBPyConnection, most: int | None = None
) -> tuple[Faults, dict[str, Path]]:
    """Read a folder's tables into flat_NAME (reading.py) and look at them.

    Args:
        most: faults of one kind that are kept to be shown; None: all.

    Returns:
        what is wrong, and the file of each table.

    Raises:
        UserError: no such folder.
    """
    faults = Faults(most)
    files = find_tables(folder, faults)
    look = _Look(folder, connection, faults, files)
    for name in TABLES:
        there = read_table(connection, name, files.get(name), faults)
        look.cells(name, there)
    for name, table in TABLES.items():
        look.keys(name)
        for other in table.refers:
            look.references(name, other)
    look.stays()
    look.documents()
    look.images()
    look.vectors()
    look.variables()
    look.tasks()
    return faults, files


class _Look:
    """The questions put to the tables; each adds faults."""

    def __init__(
        self,
        folder: Path,
        connection: duckdb.DuckDBPyConnection,
        faults: Faults,
        files: dict[str, Path],
    ) -> None:
        self.folder, self.connection, self.faults, self.files = folder, connection, faults, files

    def _rows(self, name: str, column: str, expected: str, sql: str) -> None:
        """Faults of the rows that SQL (row, found) gives."""
        if name not in self.files:
            return
        limit = "" if self.faults.most is None else f" LIMIT {self.faults.most}"
        rows = self.connection.execute(
            f"SELECT row, left(found, {LONG + 1}), count(*) OVER () FROM ({sql})"
            f" ORDER BY row{limit}"
        ).fetchall()
        if rows:
            found = [(row, shortened(str(text))) for row, text, _ in rows]
            self.faults.extend(self.files[name].name, column, expected, found, rows[0][2])

    def cells(self, name: str, there: set[str]) -> None:
        """Cells that are empty, or not what their column holds."""
        for column, about in TABLES[name].columns.items():
            if column not in there:
                continue
            if about.filled and about.cells != "vector":
                empty = (
                    f"SELECT row, 'nothing' AS found FROM flat_{name} WHERE \"{column}\" IS NULL"
                )
                self._rows(name, column, "something in every row", empty)
            for wrong, expected in _faults_of(about.cells, f'"{column}"'):
                sql = (
                    f'SELECT row, "{column}" AS found FROM flat_{name}'
                    f' WHERE "{column}" IS NOT NULL AND {wrong}'
                )
                self._rows(name, column, expected, sql)
            if about.cells != "vector":
                sql = (
                    "SELECT row, 'bytes that are no such text' AS found"
                    f' FROM flat_{name} WHERE contains("{column}", chr(65533))'
                )
                self._rows(name, column, "text in UTF-8", sql)

    def keys(self, name: str) -> None:
        """Rows that repeat the key of an earlier one."""
        key = TABLES[name].key
        if key:
            listed = ", ".join(f'"{column}"' for column in key)
            shown = " || ' ' || ".join(f"coalesce(\"{column}\", '')" for column in key)
            sql = (
                f"SELECT row, {shown} || ' again, as in row ' || first AS found FROM (SELECT *,"
                f" min(row) OVER (PARTITION BY {listed}) AS first FROM flat_{name}"
                f' WHERE "{key[0]}" IS NOT NULL) WHERE row > first'
            )
            self._rows(name, ", ".join(key), "one row for each", sql)

    def references(self, name: str, other: str) -> None:
        """Rows about a subject or stay that its table does not have."""
        column = TABLES[other].key[0]
        sql = (
            f"SELECT row, {column} AS found FROM flat_{name} WHERE {column} IS NOT NULL AND"
            f" TRY_CAST({column} AS BIGINT) NOT IN (SELECT TRY_CAST({column} AS BIGINT)"
            f" FROM flat_{other} WHERE TRY_CAST({column} AS BIGINT) IS NOT NULL)"
        )
        self._rows(name, column, f"a {column} of the table {other}", sql)

    def stays(self) -> None:
        sql = (
            'SELECT row, "stop" || \', start \' || "start" AS found FROM flat_stays'
            ' WHERE TRY_CAST("stop" AS TIMESTAMP) <= TRY_CAST("start" AS TIMESTAMP)'
        )
        self._rows("stays", "stop", "a time after the start of the stay", sql)
        of_subject = (
            " FROM flat_stays AS s JOIN flat_subjects AS p"
            " ON TRY_CAST(s.subject_id AS BIGINT) = TRY_CAST(p.subject_id AS BIGINT) WHERE"
        )
        ((no_year, _),) = _faults_of("year", "birth_year")
        sql = (
            "SELECT s.row, s.\"start\" || ', birth_year ' || birth_year AS found"
            f'{of_subject} year(TRY_CAST(s."start" AS TIMESTAMP)) - TRY_CAST(birth_year AS INT)'
            f" NOT BETWEEN 0 AND {OLDEST} AND NOT {no_year}"
        )
        self._rows("stays", "start", f"a time when the subject is 0 to {OLDEST} years old", sql)
        sql = (
            "SELECT s.row, 'after death at ' || died_at AS found"
            f"{of_subject} TRY_CAST(died_at AS TIMESTAMP) < CASE WHEN length(died_at) = 10"
            " THEN date_trunc('day', TRY_CAST(s.\"start\" AS TIMESTAMP))"
            ' ELSE TRY_CAST(s."start" AS TIMESTAMP) END'
        )
        self._rows("stays", "start", "a time before the subject's death", sql)

    def documents(self) -> None:
        kinds = ", ".join(f"'{kind}'" for kind in note_rules().parts)
        sql = f"SELECT row, kind AS found FROM flat_documents WHERE kind NOT IN ({kinds})"
        self._rows("documents", "kind", f"nothing, or one of {kinds}", sql)

    def images(self) -> None:
        """Image files that are not there, or are no JPEG."""
        rows = self.connection.execute(
            "SELECT row, path FROM flat_images WHERE path IS NOT NULL ORDER BY row"
        ).fetchall()
        wrong: dict[str, list[tuple[int | None, str]]] = {"a file": [], "a JPEG file": []}
        for row, path in rows:
            if not (self.folder / path).is_file():
                wrong["a file"].append((row, f"{path}, which is not there"))
            elif not _is_jpeg(self.folder / path):
                wrong["a JPEG file"].append((row, path))
        for expected, found in wrong.items():
            if found:
                file = self.files["images"].name
                expected = f"the path of {expected}, from the folder on"
                self.faults.extend(file, "path", expected, found, len(found))

    def vectors(self) -> None:
        """Cells that hold no numbers, and vectors of another width than most of their variable."""
        bad = (
            "vector IS NULL OR len(vector) = 0"
            " OR len(list_filter(vector, lambda x: x IS NULL OR NOT isfinite(x))) > 0"
        )
        sql = f"SELECT row, 'something else' AS found FROM flat_embeddings WHERE {bad}"
        self._rows("embeddings", "vector", "finite numbers (in csv with spaces between)", sql)
        sql = (
            "SELECT row, len(vector) || ' numbers' AS found FROM (SELECT *, mode(len(vector)) OVER"
            f" (PARTITION BY variable) AS width FROM flat_embeddings WHERE NOT ({bad}))"
            " WHERE len(vector) <> width"
        )
        self._rows("embeddings", "vector", "as many numbers as the variable's other vectors", sql)

    def variables(self) -> None:
        """The variables file, rows of no variable of their table, and values it cannot have."""
        variables = self._variable_set()
        if variables is None:
            return
        for table in dict.fromkeys(TABLE_OF_KIND.values()):
            names = variables_of(variables, table)
            self._names(table, "variable", VARIABLES, list(names))
        for name, variable in variables_of(variables, "waves").items():
            self._records(name, variable)
        known = variables_of(variables, "events")
        plain = [name for name, variable in known.items() if not variable.categories]
        for wrong, expected in _faults_of("number", "value"):
            self._values(plain, wrong, expected)
        for name, variable in known.items():
            if variable.categories:
                texts = [_quoted(text) for text in variable.category_of_texts()]
                # A number is written in many ways, so that it is compared as a number.
                wrong = (
                    f"lower(value) NOT IN ({', '.join(texts)}) AND NOT coalesce("
                    f"list_contains({_numbers(variable)}, TRY_CAST(value AS DOUBLE)), false)"
                )
                named = ", ".join(variable.categories)
                self._values([name], wrong, f"a category of {name}: {named}")

    def _records(self, name: str, variable: Variable) -> None:
        """Records of a variable of waves that are not what it says."""
        mine = f"FROM flat_waves WHERE variable = {_quoted(name)}"
        sql = f"SELECT row, rate AS found {mine} AND TRY_CAST(rate AS DOUBLE) <> {variable.rate}"
        self._rows("waves", "rate", f"{variable.rate:g} samples a second, as of {name}", sql)
        wrong: dict[str, list[tuple[int | None, str]]] = {}
        for row, path in self.connection.execute(
            f"SELECT row, path {mine} AND path IS NOT NULL ORDER BY row"
        ).fetchall():
            try:
                check_wave(self.folder / path, variable.channels, variable.samples)
            except UnusableWave as fault:
                wrong.setdefault(fault.expected, []).append((row, fault.found))
        for expected, found in wrong.items():
            self.faults.extend(self.files["waves"].name, "path", expected, found, len(found))

    def _variable_set(self) -> VariableSet | None:
        """The variables, if nothing is wrong with any of them."""
        tables = self._or_fault(VARIABLES, lambda: read_toml(self.folder / VARIABLES))
        if tables is None:
            return None
        before = len(self.faults)
        for name, table in tables.items():
            self._or_fault(VARIABLES, partial(checked, Variable, table, f"{VARIABLES}, {name}"))
        if len(self.faults) > before:
            return None
        return self._or_fault(VARIABLES, lambda: variable_set(tables, VARIABLES))

    def _values(self, names: list[str], wrong: str, expected: str) -> None:
        """Values of these variables that are wrong."""
        if names:
            listed = ", ".join(map(_quoted, names))
            sql = (
                f"SELECT row, value AS found FROM flat_events WHERE variable IN ({listed})"
                f" AND {wrong}"
            )
            self._rows("events", "value", expected, sql)

    def _names(self, table: str, column: str, where: str, names: list[str]) -> None:
        """Rows with a name that is none of these."""
        listed = ", ".join(map(_quoted, names)) or "''"
        sql = f"SELECT row, {column} AS found FROM flat_{table} WHERE {column} NOT IN ({listed})"
        kinds = " or ".join(kind for kind, place in TABLE_OF_KIND.items() if place == table)
        self._rows(table, column, f"a variable of {where} of kind {kinds}", sql)

    def tasks(self) -> None:
        """Task files that cannot be read, or ask for answers that are not in the labels."""
        rows = self.connection.execute("SELECT DISTINCT name FROM flat_labels").fetchall()
        answered = {name for (name,) in rows}
        for path in sorted((self.folder / TASKS).glob("*.toml")):
            file = f"{TASKS}/{path.name}"
            task = self._or_fault(file, partial(load_task, str(path)))
            if task is None or task.label.get("rule") != "answer":
                continue
            names = [task.label["name"]] if "name" in task.label else task.label.get("names", [])
            for name in names or [""]:
                if name not in answered:
                    expected = "a name of the table labels: " + ", ".join(sorted(answered))
                    self.faults.add(file, "label", expected, repr(name))

    def _or_fault(self, file: str, read: Callable[[], T]) -> T | None:
        """What a function gives; its complaint is a fault of the file."""
        try:
            return read()
        except UserError as error:
            found = " ".join(filter(None, (error.what, error.found and f"({error.found})")))
            self.faults.add(file, "", error.expected or "a usable file", found)
            return None


def _faults_of(cells: str, column: str) -> list[tuple[str, str]]:
    """What can be wrong with the cells of a column, as in CELLS; of each cell one fault."""
    out: list[tuple[str, str]] = []
    before = "false"
    for wrong, expected in CELLS[cells]:
        here = wrong.replace("CELL", column)
        out.append((f"({here} AND NOT ({before}))", expected))
        before = f"{before} OR {here}"
    return out


def variables_of(variables: VariableSet, table: str) -> dict[str, Variable]:
    """The variables whose rows lie in a table."""
    return {
        name: variable
        for name, variable in variables.variables.items()
        if TABLE_OF_KIND[variable.kind] == table and not variable.sum_of
    }


def _is_jpeg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(JPEG)) == JPEG


def _quoted(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def _numbers(variable: Variable) -> str:
    """SQL of the numbers that stand for a category: its score, or its name."""
    if variable.scores:
        return f"{list(variable.scores)}::DOUBLE[]"
    names = ", ".join(f"TRY_CAST({_quoted(name)} AS DOUBLE)" for name in variable.categories)
    return f"[{names}]"
