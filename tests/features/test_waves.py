"""A record is read as its variable says, with its gaps, or refused with what is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flexcare.errors import UserError
from flexcare.features.waves import UnusableWave, check_wave, read_wave, read_waves

CHANNELS, SAMPLES = ("I", "II", "V1"), 8
WAVE = np.random.default_rng(0).normal(size=(3, SAMPLES)).astype(np.float32)


def written(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_channels_come_in_their_order_whatever_the_files(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", V1=WAVE[2], I=WAVE[0], II=WAVE[1].astype(np.float64))
    np.testing.assert_array_equal(read_wave(path, CHANNELS, SAMPLES), WAVE)


def test_what_is_missing_is_a_gap(tmp_path: Path) -> None:
    second = [1, None, 3, float("nan"), 5, float("inf"), 7, 8]
    path = written(tmp_path / "a.parquet", I=WAVE[0], II=second)
    found = read_wave(path, CHANNELS, SAMPLES)
    np.testing.assert_array_equal(found[0], WAVE[0])
    nan = np.nan
    np.testing.assert_array_equal(found[1], np.array([1, nan, 3, nan, 5, nan, 7, 8], np.float32))
    assert np.isnan(found[2]).all()


def test_whole_numbers_are_read_too(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", I=np.arange(SAMPLES, dtype=np.int16))
    np.testing.assert_array_equal(read_wave(path, CHANNELS, SAMPLES)[0], np.arange(SAMPLES))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"I": WAVE[0, :7]}, "7 samples instead of 8 samples"),
        ({"I": WAVE[0], "V2": WAVE[1]}, "column V2 of float instead of .*: I, II, V1"),
        ({"I": list("abcdefgh")}, "column I of string instead of numbers"),
        ({}, "no column instead of at least one channel of I, II, V1"),
    ],
)
def test_a_record_of_something_else_is_refused(tmp_path: Path, columns, words) -> None:
    path = written(tmp_path / "a.parquet", **columns)
    for look in (check_wave, read_wave):
        with pytest.raises(UnusableWave, match=words):
            look(path, CHANNELS, SAMPLES)


def test_files_that_are_absent_truncated_or_damaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableWave, match=r"a\.parquet, which is not there"):
        check_wave(tmp_path / "a.parquet", CHANNELS, SAMPLES)
    path = written(tmp_path / "a.parquet", I=WAVE[0], II=WAVE[1])
    whole = path.read_bytes()
    for part in (whole[:-20], whole[:10], b"", b"a wave"):
        path.write_bytes(part)
        with pytest.raises(UnusableWave, match="cannot be read instead of a whole Parquet file"):
            check_wave(path, CHANNELS, SAMPLES)
    path.write_bytes(whole[:4] + b"\xff" * 20 + whole[24:])
    with pytest.raises(UnusableWave, match="which is damaged"):
        read_wave(path, CHANNELS, SAMPLES)
    with pytest.raises(UserError, match=r"record a\.parquet cannot be used"):
        list(read_waves([path], CHANNELS, SAMPLES))


def test_many_records_come_in_order(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.parquet", I=WAVE[0] + n) for n in range(300)]
    found = [wave[0] for wave in read_waves(paths, CHANNELS, SAMPLES)]
    np.testing.assert_array_equal(found, [WAVE[0] + n for n in range(300)])
