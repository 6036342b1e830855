"""ICD codes become CCS categories by the published tables."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flexcare.cohort.icd import ccs_categories, ccs_category
from flexcare.tasks import load_task


@pytest.mark.parametrize(
    ("code", "version", "category", "exact"),
    [
        ("N179", 10, 157, True),
        ("N17.9", 10, 157, True),
        ("n179 ", 10, 157, True),
        ("5849", 9, 157, True),
        ("4280", 9, 108, True),
        ("4280", 10, 0, False),
        ("N1831", 10, 158, False),  # newer than the table: as N183
        ("I4820", 10, 106, False),
        ("E1165", 10, 50, True),
        ("E1100", 10, 50, True),
        ("N9", 10, 0, False),
        ("", 9, 0, False),
        ("N179", 11, 0, False),
    ],
)
def test_category_of_a_code(code: str, version: int, category: int, exact: bool) -> None:
    assert ccs_category(code, version) == (category, exact)


def test_every_code_is_counted_by_how_it_was_found() -> None:
    codes = pa.array(["N179", "N1831", "N1831", "XYZ"])
    categories, counts = ccs_categories(codes, np.array([10, 10, 10, 10]))
    assert categories.tolist() == [157, 158, 158, 0]
    assert list(counts.values()) == [1, 2, 1]


def test_each_different_code_once_equals_row_by_row() -> None:
    generator = np.random.default_rng(0)
    known = ["N179", "N1831", "5849", "4280", "XYZ"]
    codes, versions = generator.choice(known, 200), generator.choice([9, 10, 11], 200)
    categories, counts = ccs_categories(pa.array(codes.tolist()), versions)
    found = [ccs_category(str(c), int(v)) for c, v in zip(codes, versions, strict=True)]
    assert categories.tolist() == [category for category, _ in found]
    assert list(counts.values()) == [
        sum(exact for _, exact in found),
        sum(category > 0 and not exact for category, exact in found),
        sum(category == 0 for category, _ in found),
    ]


def test_nobody_has_codes() -> None:
    categories, counts = ccs_categories(pa.array([], pa.string()), np.array([], np.int64))
    assert (categories.tolist(), sum(counts.values())) == ([], 0)


def test_the_25_phenotypes_are_those_of_the_specification(spec: Path) -> None:
    with (spec / "phenotypes.csv").open() as file:
        rows = list(csv.DictReader(file))
    task = load_task("phenotyping")
    named = dict(zip(task.classes, task.label["categories"], strict=True))
    assert named == {row["phenotype"]: int(row["ccs"]) for row in rows}
