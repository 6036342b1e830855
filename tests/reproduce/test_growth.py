"""What more patients bring, as a picture beside the table."""

from pathlib import Path

from flexcare.reproduce import reproduce
from flexcare.reproduce.growth import growth_curves
from flexcare.reproduce.protocol import read_protocol
from flexcare.sources.synthetic import simulate

PROTOCOL = """
first = "trees"
resamples = 10
[data]
source = "synthetic"
path = "hospital"
tasks = ["in_hospital_mortality"]
[models.trees]
kind = "trees"
[models.half]
kind = "trees"
preparation.train_share = 0.5
[models.others]
kind = "trees"
settings.num_leaves = 4
preparation.train_share = 0.5
[models.majority]
kind = "majority"
"""
PNG = b"\x89PNG"


def test_a_protocol_with_shares_of_the_patients_draws_what_they_bring(tmp_path: Path) -> None:
    simulate(tmp_path / "data/hospital", 80, 1, films=False)
    path = tmp_path / "tiny.toml"
    path.write_text(PROTOCOL)
    # Not with another model's half, nor a model that was tried with all alone.
    assert growth_curves(read_protocol(path)) == {"trees": [(0.5, "half"), (1.0, "trees")]}
    page = reproduce(path, data=tmp_path / "data", out=tmp_path / "work", say=lambda _: None)
    assert "](growth-tiny.png)" in page.read_text()
    picture = page.parent / "growth-tiny.png"
    assert picture.read_bytes().startswith(PNG)
    # Published again beside another protocol, the section keeps its picture.
    (tmp_path / "other.toml").write_text(PROTOCOL.replace("preparation.train_share = 0.5", ""))
    reproduce(tmp_path / "other.toml", data=tmp_path / "data", out=page.parent, say=lambda _: None)
    told = page.read_text()
    assert "](growth-tiny.png)" in told
    assert "](growth-other.png)" not in told
