"""What the table of claims says of verdicts, broken variants and what was never run."""

import re

import pytest

from flexcare.experiments.page import claims, markdown
from flexcare.files import write_json

RULE = {
    "says": "it is",
    "measure": "leak",
    "of": "on",
    "minus": "",
    "bound": "at most 0",
    "value": 1.0,
    "low": 0.5,
    "high": 1.5,
    "seeds": [1.0, 1.0],
    "verdict": "refuted",
}


def result(verdict, broken=False, **changes):
    return {
        "id": "M1",
        "question": "?",
        "equal": "all",
        "refuted_by": "nothing",
        "data": "synthetic",
        "size": "demo",
        "broken": broken,
        "verdict": verdict,
        "rules": [RULE],
        "seeds": 3,
        "command": "flexcare experiment M1",
        "minutes": 1.2,
        "date": "2026-01-01",
        "arms": {},
        "versions": {"flexcare": "0", "torch": "0"},
        **changes,
    }


def row(text, claim="M1"):
    return next(line for line in text.splitlines() if line.startswith(f"| {claim} |"))


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("supported", "refuted", "refuted"),
        ("undecided at this size", "refuted", "refuted"),
        ("refuted", "refuted", "not told apart"),
        ("supported", "undecided at this size", "NOT found out (undecided at this size)"),
    ],
)
def test_a_broken_variant_is_told_apart_from_what_is_not_refuted(good, bad, said):
    text = markdown([result(good), result(bad, broken=True)])
    assert row(text) == (f"| M1 | ? | synthetic, demo | 3 | {good} | {said} | 1.2 | 2026-01-01 |")


def test_claims_that_were_never_run_are_rows(tmp_path):
    write_json(tmp_path / "synthetic/demo/M1/result.json", result("supported"))
    write_json(tmp_path / "eicu/demo/M3/result.json", result("supported", id="M3", data="eicu"))
    html = claims(tmp_path).read_text()
    text = (tmp_path / "claims.md").read_text()
    assert text.count("| M1 |") == 1
    assert text.count("| M3 |") == 2
    for claim in ("F1", "Q1"):
        assert "| synthetic, demo |  | not run | not run |  |  |" in row(text, claim)
        assert f"<tr><td>{claim}</td>" in html


def test_the_page_has_what_is_told_elsewhere(tmp_path):
    told = [result("supported", id="F1"), result("refuted", True, id="F1")]
    write_json(tmp_path / "docs/claims.json", {"artefact": "claims", "claims": told})
    write_json(tmp_path / "synthetic/demo/M1/result.json", result("supported"))
    html = claims(tmp_path, tmp_path / "docs").read_text()
    (line,) = re.findall(r"<tr><td>F1</td>.*?</tr>", html, re.DOTALL)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", line)[2:] == [
        "synthetic, demo", "3", "supported", "refuted",
    ]  # fmt: skip
    assert html.count("<details") == 1


def test_results_and_claims_that_do_not_say_their_seeds_are_read(tmp_path):
    earlier = {key: one for key, one in result("supported", data="eicu").items() if key != "seeds"}
    write_json(tmp_path / "claims.json", {"artefact": "claims", "claims": [earlier]})
    write_json(tmp_path / "synthetic/demo/M1/result.json", {**earlier, "data": "synthetic"})
    claims(tmp_path)
    text = (tmp_path / "claims.md").read_text()
    assert text.count("demo | 2 | supported |") == 2


def test_an_interval_without_the_chance_of_patients_says_so():
    for patients, said in ((True, "1.000 (0.500 to 1.500);"), (False, "to 1.500, chance of seeds")):
        text = markdown([result("refuted", rules=[RULE | {"patients": patients}])])
        assert said in text


def test_beside_each_rule_stands_what_it_said_of_the_broken_variant():
    kept, lost = RULE | {"verdict": "supported"}, RULE | {"says": "it stays"}
    good, bad = result("supported", rules=[kept] * 2), result("refuted", True, rules=[kept, lost])
    lines = [line for line in markdown([good, bad]).splitlines() if "leak, on:" in line]
    assert [line.split(" | ")[-2:] for line in lines] == [
        ["supported", "supported |"],
        ["supported", "refuted |"],
    ]
    assert "Broken variant: on: " in markdown([good])


def test_a_link_to_a_claim_opens_it(tmp_path):
    """A browser opens closed details around the target of a link, not the target itself."""
    write_json(tmp_path / "synthetic/demo/M1/result.json", result("supported"))
    html = claims(tmp_path).read_text()
    (target,) = re.findall(r'<tr><td><a href="#([^"]*)">M1</a>', html)
    assert re.search(
        rf'<details[^>]*>\s*<summary>.*?</summary>.*?<table id="{target}">', html, re.DOTALL
    )
