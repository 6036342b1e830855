"""The report: one HTML file that opens anywhere, offline (SPEC 7 "Reported")."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flexcare.files import whole
from flexcare.report import sections, taken, words
from flexcare.report.content import ReportContent
from flexcare.report.figures import COLOURS
from flexcare.report.questions import questions

TEMPLATES = Path(__file__).parent


def write_report(path: Path, content: ReportContent) -> None:
    """Write the page to `path`, whole or not at all; parts that are absent are said to be absent.

    The page holds everything it needs: no script, no address is opened. The same content gives the
    same bytes.
    """
    text = render(content)
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(content: ReportContent) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html").render(_context(content))


def _context(content: ReportContent) -> dict[str, Any]:
    evaluation = content.evaluation
    models = evaluation.get("models", [])
    provenance = dict(content.provenance)
    warnings = [*provenance.pop("warnings", []), words.under_served_line(evaluation)]
    parts = {
        "opening": sections.opening(content),
        "glance": sections.glance(content),
        "questions": questions(content),
        "missing": sections.missing(content),
        "taken": taken.section(content.taken),
        "routing": sections.routing(content),
        "flow": sections.flow(content),
        "learning": sections.learning(content),
        "settings": sections.settings(content.settings),
        "provenance": sections.settings(provenance),
    }
    return {
        "title": content.title,
        "generated": content.generated,
        "warnings": [text for text in warnings if text],
        "tally": words.tally(evaluation),
        "models": [(name, content.models.get(name, "")) for name in models],
        "colours": COLOURS,
        "evaluation": evaluation,
        "splits": words.listed([s.replace("_", "-") for s in evaluation.get("splits", [])]),
        **parts,
    }
