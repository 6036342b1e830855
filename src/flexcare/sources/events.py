"""Raw measurement rows -> values of variables, in SQL (SPEC 5: units, limits, texts, ties)."""

from collections import Counter
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from flexcare.features.variables import SERIES, VariableSet

SEED_SECONDS = 24 * 3600  # a value this long before admission may seed the first bin of a series
SORTED = 4_000_000  # rows sorted at once
LAST_SECOND = 2**31 - 1  # of int32
PLAIN_TEXT = "lower(trim(raw.text))"
# Of a code spelling matters.
CODE_OR_TEXT = "CASE WHEN coded THEN trim(raw.text) ELSE lower(trim(raw.text)) END"

FATES = (
    "kept",
    "of no stay of the cohort",
    "without a readable time",
    "outside the stay",
    "without a store time",
    "without a usable value",
    "outside the plausible range",
)

# Rows of all raw tables, in one shape: stay (row of the cohort's stays, null: none), the item's row
# of `items`, number and text as charted, seconds and stored from ICU admission, length of the stay.

_VALUES = """
CREATE TEMP TABLE valued AS
WITH raw AS ({raw}), named AS (
    SELECT raw.*,
        coalesce(TRY_CAST(number AS DOUBLE), TRY_CAST(raw.text AS DOUBLE)) AS charted,
        texts.category AS told, coalesce(texts.flagged, false) AS flagged
    FROM raw LEFT JOIN texts ON texts.variable = raw.variable
        AND texts.text = CASE WHEN categorical THEN {text} END
), converted AS (
    SELECT named.*, coalesce(told, scores.category) AS category,
        charted * coalesce(conversions.scale, 1) + coalesce(conversions.shift, 0) AS quantity
    FROM named
    LEFT JOIN conversions ON conversions.itemid = CASE WHEN converts THEN named.itemid END
        AND charted > conversions.above AND charted <= conversions.up_to
    LEFT JOIN scores ON scores.variable = named.variable
        AND scores.score = CASE WHEN categorical THEN charted END
)
SELECT stay, seconds, stored, variable, place, flagged,
    TRY_CAST(CASE WHEN categorical THEN category ELSE quantity END AS FLOAT) AS value,
    CASE
        WHEN stay IS NULL THEN 1
        WHEN seconds IS NULL THEN 2
        WHEN seconds < earliest OR seconds > length THEN 3
        WHEN {no_clock} THEN 4
        WHEN value IS NULL OR NOT isfinite(value) THEN 5
        WHEN NOT categorical AND (value < low OR value > high) THEN 6
        ELSE 0 END::UTINYINT AS fate
FROM converted
"""

# Rows of the parts in the order they became visible; each gives the sum of what was known then.
_SUMS = """
INSERT INTO valued
WITH parts AS (
    SELECT stay, seconds, stored, place, value AS number, {known}
    FROM valued JOIN all_scores AS scores
        ON scores.variable = valued.variable AND scores.category = value
    WHERE fate = 0 AND valued.variable IN ({variables})
    WINDOW w AS (PARTITION BY stay, seconds ORDER BY stored NULLS FIRST, place, value,
        valued.variable ROWS UNBOUNDED PRECEDING)
), sums AS (SELECT *, {total} AS total FROM parts)
SELECT stay, seconds, stored, {number}, place, false, {value}::FLOAT, 0
FROM sums {categories} WHERE total IS NOT NULL
"""


def tidy_events(
    connection: duckdb.DuckDBPyConnection,
    raw: str,
    variables: VariableSet,
    clock: str,
    dropped: Counter[str],
    codes: dict[str, list[str]] | None = None,
) -> Iterator[pa.Table]:
    """Values of variables from raw rows.

    Args:
        raw: SQL that selects stay, all of the table `items`, text, number, seconds, stored, length.
            Of a variable of codes the text is the code; of one of embeddings or waves the number is
            the row of the source's vectors or waves.
        clock: charttime, or storetime: a value without a store time is then left out.
        dropped: counts of rows left out are added, by reason.
        codes: by variable of codes, filled with the sorted codes that occur in the cohort's stays.

    Yields:
        stay, seconds, available (int32), variable (int16), value (float32), sorted by stay, time
        and then by what wins: the later storetime, the item's place in its file, the larger value.
    """
    _register(connection, variables)
    missing = "stored IS NULL" if clock == "storetime" else "false"
    text = PLAIN_TEXT
    if any(variable.kind == "codes" for variable in variables.variables.values()):
        connection.execute(f"CREATE OR REPLACE TEMP TABLE raw_rows AS {raw}")
        (codes if codes is not None else {}).update(_number_codes(connection, variables))
        raw, text = "FROM raw_rows", CODE_OR_TEXT
    connection.execute(_VALUES.format(raw=raw, text=text, no_clock=missing))
    connection.execute("DROP TABLE IF EXISTS raw_rows")
    for number, (name, variable) in enumerate(variables.variables.items()):
        if variable.sum_of:
            connection.execute(_sum_sql(variables, number, name))
    fates = connection.sql(
        "SELECT fate, count(*), count(*) FILTER (flagged), max(stay) FROM valued GROUP BY fate"
    ).fetchall()
    for fate, count, flagged, _ in fates:
        if fate:
            dropped[f"events {FATES[fate]}"] += count
        elif flagged:
            dropped["events not testable, kept with their lowest score"] += flagged
    # Whole seconds, an event never earlier visible than it was.
    visible = "greatest(seconds, stored)" if clock == "storetime" else "seconds"
    rows = sum(count for _, count, _, _ in fates)
    stays = 1 + max((last for _, _, _, last in fates if last is not None), default=-1)
    step = max(1, SORTED * stays // max(1, rows))
    for first in range(0, stays, step):
        ordered = connection.sql(
            f"SELECT stay::INT AS stay, greatest(floor(seconds), -{LAST_SECOND})::INT AS seconds,"
            f" greatest(least(ceil({visible}), {LAST_SECOND}), -{LAST_SECOND})::INT AS available,"
            " variable::SMALLINT AS variable, value FROM valued WHERE fate = 0"
            f" AND stay >= {first} AND stay < {first + step}"
            " ORDER BY valued.stay, valued.seconds, stored NULLS FIRST, place, value, variable"
        )
        yield ordered.to_arrow_table()
    connection.execute("DROP TABLE valued")


def _number_codes(
    connection: duckdb.DuckDBPyConnection, variables: VariableSet
) -> dict[str, list[str]]:
    """The codes of each variable, sorted; with their numbers they join the table of texts."""
    connection.execute(
        "INSERT INTO texts SELECT variable, code,"
        " row_number() OVER (PARTITION BY variable ORDER BY code) - 1, false FROM"
        " (SELECT DISTINCT variable, trim(text) AS code FROM raw_rows"
        " WHERE coded AND stay IS NOT NULL AND trim(text) <> '')"
    )
    out = {}
    for number, (name, variable) in enumerate(variables.variables.items()):
        if variable.kind == "codes":
            sql = f"SELECT text FROM texts WHERE variable = {number} ORDER BY category"
            out[name] = [text for (text,) in connection.sql(sql).fetchall()]
    return out


def _register(connection: duckdb.DuckDBPyConnection, variables: VariableSet) -> None:
    """The variables file as small tables: items, conversions, texts, scores."""
    items, conversions, texts, scores = [], [], [], []
    place = 0
    for number, variable in enumerate(variables.variables.values()):
        low, high = variable.range or (float("-inf"), float("inf"))
        for item in variable.items:
            apply = [c for c in variable.convert if not c.items or item in c.items]
            coded = variable.kind == "codes"
            kind = coded or bool(variable.categories), coded, bool(apply)
            earliest = -SEED_SECONDS if variable.kind == SERIES else float("-inf")
            items.append((str(item), number, place, *kind, low, high, earliest))
            place += 1
            conversions += [
                (
                    str(item),
                    float("-inf") if c.above is None else c.above,
                    float("inf") if c.up_to is None else c.up_to,
                    c.scale,
                    c.offset,
                )
                for c in apply
            ]
        if variable.categories:
            flags = {text.lower() for text in variable.not_testable}
            texts += [(number, t, c, t in flags) for t, c in variable.category_of_texts().items()]
            first: dict[float, int] = {}
            for category, score in enumerate(variable.score_of_categories()):
                first.setdefault(score, category)
            scores += [
                (number, c, s, first[s] == c) for c, s in enumerate(variable.score_of_categories())
            ]
    _table(
        connection,
        "items",
        "itemid VARCHAR, variable SMALLINT, place INT, categorical BOOL, coded BOOL,"
        " converts BOOL, low FLOAT, high FLOAT, earliest DOUBLE",
        items,
    )
    _table(
        connection,
        "conversions",
        "itemid VARCHAR, above DOUBLE, up_to DOUBLE, scale DOUBLE, shift DOUBLE",
        conversions,
    )
    _table(
        connection, "texts", "variable SMALLINT, text VARCHAR, category INT, flagged BOOL", texts
    )
    _table(
        connection,
        "all_scores",
        "variable SMALLINT, category INT, score DOUBLE, first BOOL",
        scores,
    )
    connection.execute("CREATE OR REPLACE TEMP VIEW scores AS SELECT * FROM all_scores WHERE first")


def _table(
    connection: duckdb.DuckDBPyConnection, name: str, columns: str, rows: Sequence[Sequence[object]]
) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({columns})")
    if rows:
        names = [column.split()[0] for column in columns.split(", ")]
        values = map(list, zip(*rows, strict=True))
        connection.register("rows", pa.table(dict(zip(names, values, strict=True))))
        connection.execute(f"INSERT INTO {name} FROM rows")
        connection.unregister("rows")


def _sum_sql(variables: VariableSet, number: int, name: str) -> str:
    """SQL that adds the events of a derived variable (the total of the GCS)."""
    parts = [variables.names.index(part) for part in variables.variables[name].sum_of]
    known = ", ".join(
        f"last_value(CASE WHEN valued.variable = {p} THEN score END IGNORE NULLS) OVER w AS part{p}"
        for p in parts
    )
    categorical = bool(variables.variables[name].categories)
    return _SUMS.format(
        known=known,
        variables=", ".join(map(str, parts)),
        total=" + ".join(f"part{p}" for p in parts),
        number=number,
        value="s.category" if categorical else "total",
        categories=f"JOIN scores s ON s.variable = {number} AND s.score = total"
        if categorical
        else "",
    )
