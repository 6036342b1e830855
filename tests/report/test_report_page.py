"""The page: whole, offline, the same every time, without patients, and never at a loss."""

import re
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_predictions import FIRST_SUBJECT, plans, tables

from flexcare.report import page as page_module
from flexcare.report.content import ReportContent
from flexcare.report.page import render, write_report
from flexcare.report.words import decimal, with_span

SECTIONS = (
    "opening",
    "glance",
    "questions",
    "missing",
    "taken",
    "experts",
    "flow",
    "learning",
    "settings",
    "provenance",
)
VOID = {"meta", "path", "use", "br"}


class Outline(HTMLParser):
    """Ids and inner links of a page; complains about tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given and tag in ("section", "article") else []
        self.links += [given["href"]] if tag == "a" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}>"


def outline(text):
    found = Outline()
    found.feed(text)
    assert not found.open
    return found


def section(text, name):
    """The text between tags of one section, in one line."""
    inside = re.search(rf'<section id="{name}">(.*?)</section>', text, re.DOTALL).group(1)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", inside))


def test_nothing_outside_the_page_is_asked_for(page):
    assert not re.search(r"<(script|link|img|iframe|object|embed|base|form)\b", page)
    assert "@import" not in page
    assert "@font-face" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))
    assert all(link.startswith("#") for link in re.findall(r'(?:href|src)="([^"]*)"', page))
    assert set(re.findall(r"https?://[^\"'\s<]*", page)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_same_content_same_bytes(content, page):
    assert render(content) == page


def test_no_patient_is_on_the_page(page):
    given = tables()["flexcare"]
    assert given["subject_id"][0].as_py() == FIRST_SUBJECT
    words = set(re.findall(r"[\w/]+", page))
    assert not words & set(map(str, given["subject_id"].to_pylist()))
    assert not words & set(given["sample_id"].to_pylist())
    assert str(FIRST_SUBJECT)[:5] not in page


def test_page_is_well_formed_and_every_link_leads_somewhere(page):
    found = outline(page)
    assert set(SECTIONS) | {plan.info.name for plan in plans()} == set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)


def test_empty_content_says_of_each_section_why_it_is_absent():
    text = render(ReportContent(title="Nothing yet"))
    outline(text)
    for name in SECTIONS:
        assert "Left out: " in section(text, name), name


@pytest.mark.parametrize("name", [f.name for f in fields(ReportContent) if f.name != "title"])
def test_any_part_may_be_absent(short, name):
    empty = getattr(ReportContent(title=""), name)
    text = render(replace(short, **{name: empty}))
    outline(text)


def test_a_task_that_nobody_answered_is_no_crash(content):
    evaluation = dict(content.evaluation, tasks=dict(content.evaluation["tasks"]))
    evaluation["tasks"]["drg"] = dict(evaluation["tasks"]["drg"], models={}, differences=[])
    text = render(replace(content, evaluation=evaluation))
    assert 'id="drg"' not in text
    assert 'id="diagnosis"' in text


def test_one_model_alone_is_no_crash(short):
    evaluation = dict(short.evaluation, models=["flexcare"], tasks={})
    for name, task in short.evaluation["tasks"].items():
        models = {"flexcare": task["models"]["flexcare"]}
        evaluation["tasks"][name] = dict(task, models=models, differences=[])
    outline(render(replace(short, evaluation=evaluation)))


def test_where_trees_win_the_page_says_so(page):
    assert "trees are better here, by" in section(page, "glance")
    assert "worse on 1" in page


def test_numbers_come_with_their_intervals(content, page):
    value = content.evaluation["tasks"]["in_hospital_mortality"]["models"]["flexcare"]["metrics"]
    auroc = value["auroc"]
    expected = f"{auroc['value']:.2f} ({auroc['low']:.2f}–{auroc['high']:.2f})"
    assert expected in section(page, "questions").replace("  ", " ")


def test_what_was_taken_away_is_told_with_what_it_cost(content, page):
    text = section(page, "taken").replace("  ", " ")
    rows = {row["subset"]: row["scores"] for row in content.taken["subsets"]["subsets"]}
    assert len(rows) == 7
    for subset in ("all", "without film", "note only"):
        value = rows[subset]["decompensation"]["average_precision"]
        assert f"{value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})" in text
    gap = rows["note only"]["diagnosis"]["macro_average_precision"]["difference"]
    assert gap["high"] < 0
    assert "worse" in text
    assert "film, at random" in text


def test_a_label_without_both_answers_has_a_reason_and_no_number(page):
    text = section(page, "questions")
    assert "because all their labels are the same: Pleural other." in text
    assert re.search(r"Pleural other +0 of \d+ +– all \d+ labels are 0 +–", text)


def test_small_groups_are_called_too_few(page):
    assert "too few: fewer than 20 samples" in section(page, "questions")


def with_model(content, task, **changes):
    """The content with other facts about the first model of one task."""
    tasks = dict(content.evaluation["tasks"])
    models = dict(tasks[task]["models"])
    models["flexcare"] = models["flexcare"] | changes
    tasks[task] = dict(tasks[task], models=models)
    return replace(content, evaluation=dict(content.evaluation, tasks=tasks))


def test_under_served_groups_are_named_before_everything_and_in_their_question(short):
    gap = {
        "key": "sex",
        "group": "F",
        "number": "auroc",
        "value": -0.06,
        "low": -0.1,
        "high": -0.02,
    }
    text = render(with_model(short, "readmission", under_served=[gap]))
    assert text.index("question of the report: readmission (sex F)") < text.index('id="opening"')
    said = "sex F: AUROC is lower than that of all patients by 0.060 (0.020–0.100)."
    assert said in section(text, "questions")
    assert "(sex F)" not in render(with_model(short, "readmission", under_served=[]))


def test_coverage_below_the_promise_is_said_with_both_numbers(short):
    kept = {"number": "coverage", "value": 0.81, "low": 0.77, "high": 0.85}
    found = [{"key": "age_band", "group": "80+", **kept}]
    text = section(render(with_model(short, "readmission", under_served=found)), "questions")
    assert (
        "age band 80+: the true answer is in 0.81 (0.77–0.85) of the sets, 0.90 were promised"
        in text
    )


def test_calibration_is_told_before_and_after(content, page):
    model = content.evaluation["tasks"]["in_hospital_mortality"]["models"]["flexcare"]
    before, after = (
        decimal(of["metrics"]["calibration_error"]["value"]) for of in (model, model["calibrated"])
    )
    said = f"its calibration error goes from {before} to {after}."
    assert said in section(page, "questions")
    assert "Rings: flexcare after calibration." in section(page, "questions")
    assert "calibration error after calibration" in section(page, "questions")


def test_sets_tell_their_coverage_of_all_and_of_each_group(content, page):
    sets = content.evaluation["tasks"]["readmission"]["models"]["flexcare"]["conformal"]
    assert f"Here it is for {with_span(sets['coverage'])}" in section(page, "questions")
    groups = content.evaluation["tasks"]["readmission"]["models"]["flexcare"]["subgroups"]
    for row in groups["sex"]:
        told = f"{row['group']} {row['subjects']} "
        assert told + with_span(row["coverage"]) in re.sub(r"\s+", " ", section(page, "questions"))


def test_sets_of_all_that_cover_less_than_promised_are_called_so(short):
    sets = short.evaluation["tasks"]["drg"]["models"]["flexcare"]["conformal"]
    said = "That is less than promised"
    assert said not in section(render(short), "questions")
    less = dict(sets, coverage={"value": 0.8, "low": 0.75, "high": 0.85})
    assert said in section(render(with_model(short, "drg", conformal=less)), "questions")


def test_a_run_judged_without_tuning_predictions_has_no_sets(short):
    text = render(with_model(short, "readmission", calibrated=None, conformal=None))
    outline(text)
    assert text.count("Sets of answers") == 2


def test_text_from_outside_cannot_become_markup(short):
    text = render(replace(short, title="<script>alert(1)</script>", generated="a & b"))
    assert "<script" not in text
    assert "a &amp; b" in text


def test_warnings_stand_before_everything(page):
    assert page.index("Read this first") < page.index('<section id="opening">')
    assert "Expert 10 is dead" in section(page, "experts")


def test_sums_and_shares_of_gate_weight_show_the_same(short):
    routing = short.routing
    sums = {task: (np.array(usage) * 731).tolist() for task, usage in routing.usage.items()}
    one, two = (
        section(render(replace(short, routing=given)), "experts")
        for given in (routing, replace(routing, usage=sums))
    )
    assert one == two


def test_page_is_written_whole_or_not_at_all(short, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, short)
    before = path.read_bytes()

    def full(self, *args, **kwargs):
        raise OSError(28, "full")

    monkeypatch.setattr(page_module.Path, "write_text", full)
    with pytest.raises(Exception, match="no space left"):
        write_report(path, replace(short, title="other"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_many_classes_are_not_drawn_as_a_picture(short):
    evaluation = dict(short.evaluation, tasks=dict(short.evaluation["tasks"]))
    drg = evaluation["tasks"]["drg"]
    models = {name: dict(model, confusion=None) for name, model in drg["models"].items()}
    evaluation["tasks"] = {"drg": dict(drg, models=models)}
    text = render(replace(short, evaluation=evaluation))
    assert "True class against predicted class" not in text
    outline(text)
