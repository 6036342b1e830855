"""The invented report, made once."""

from dataclasses import replace

import pytest
from fake_content import make_content

from flexcare.report.page import render


@pytest.fixture(scope="session")
def content():
    return make_content(resamples=60)


@pytest.fixture(scope="session")
def short(content):
    """The same with one question of each kind."""
    kept = ("readmission", "diagnosis", "drg")
    tasks = {name: content.evaluation["tasks"][name] for name in kept}
    return replace(content, evaluation=dict(content.evaluation, tasks=tasks), training=[])


@pytest.fixture(scope="session")
def page(content):
    return render(content)
