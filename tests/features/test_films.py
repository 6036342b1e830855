"""Films: the decoder's scaling and ours give what an obvious resize gives."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray

from flexcare.features import films as reading
from flexcare.features.films import UnreadableFilm, centre, read_film, read_films
from flexcare.features.scaling import brightness, fit_films
from hospital import picture

Grey = NDArray[np.uint8]


def scene(height: int, width: int) -> Grey:
    """Smooth, with every part of it different: a slope, a bright disc, a dark corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    grey = 60 + 100 * rows / height + 40 * columns / width
    grey[(rows - height * 0.4) ** 2 + (columns - width * 0.55) ** 2 < (height * 0.15) ** 2] = 240
    grey[: height // 5, : width // 5] = 10
    return grey.astype(np.uint8)


def written(path: Path, grey: Grey) -> Path:
    path.write_bytes(simplejpeg.encode_jpeg(grey[..., None], quality=98, colorspace="GRAY"))
    return path


def obvious(grey: Grey, side: int) -> NDArray[np.float64]:
    """Resize by the mean of what each new pixel covers, then cut: slow and plain."""
    height, width = grey.shape
    short = round(side * 256 / 224)
    tall, wide = (round(n * short / min(height, width)) for n in (height, width))
    fine = 8  # samples a pixel, each way
    rows = ((np.arange(tall * fine) + 0.5) * height / (tall * fine)).astype(int)
    columns = ((np.arange(wide * fine) + 0.5) * width / (wide * fine)).astype(int)
    big = grey[rows][:, columns].astype(float)
    small = big.reshape(tall, fine, wide, fine).mean((1, 3))
    top, left = (tall - side) // 2, (wide - side) // 2
    return np.asarray(small[top : top + side, left : left + side])


@pytest.mark.parametrize("shape", [(512, 512), (700, 500), (500, 700), (256, 256), (1000, 380)])
def test_a_film_is_what_an_obvious_resize_gives(tmp_path: Path, shape: tuple[int, int]) -> None:
    grey = scene(*shape)
    film = read_film(written(tmp_path / "a.jpg", grey), 112)
    assert (film.shape, film.dtype) == ((112, 112), np.uint8)
    difference = np.abs(film - obvious(grey, 112))
    assert difference.mean() < 2
    assert np.quantile(difference, 0.98) < 25  # only along edges


def test_a_small_film_is_enlarged() -> None:
    film = centre(scene(40, 60), 112)
    difference = np.abs(film - obvious(scene(40, 60), 112))
    assert difference.mean() < 4


def test_a_film_agrees_with_pillow(tmp_path: Path) -> None:
    images = pytest.importorskip("PIL.Image")
    path = written(tmp_path / "a.jpg", scene(900, 640))
    opened = images.open(path).convert("L")
    factor = 256 / min(opened.size)
    size = [round(n * factor) for n in opened.size]
    small = np.array(opened.resize(size, images.Resampling.BILINEAR), float)
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    want = small[top : top + 224, left : left + 224]
    assert np.abs(read_film(path, 224) - want).mean() < 1.5


def test_the_centre_is_cut() -> None:
    """A bright edge outside the centre square is gone, a mark in the middle stays in the middle."""
    grey = np.full((256, 512), 50, np.uint8)
    grey[:, :100] = 255
    grey[118:138, 246:266] = 200
    film = centre(grey, 224)
    assert film[:, :5].max() < 60
    rows, columns = np.nonzero(film > 150)
    assert (round(rows.mean() * 2), round(columns.mean() * 2)) == (223, 223)


def test_a_flat_film_stays_flat() -> None:
    assert (centre(np.full((333, 517), 77, np.uint8), 112) == 77).all()


def test_a_coloured_jpeg_is_read_as_grey(tmp_path: Path) -> None:
    colour = np.repeat(scene(200, 200)[..., None], 3, 2)
    (tmp_path / "a.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(colour)))
    film = read_film(tmp_path / "a.jpg", 112)
    assert np.abs(film - obvious(scene(200, 200), 112)).mean() < 3


def test_what_is_too_fine_to_see_becomes_grey() -> None:
    """Shrinking averages what a pixel covers; picking single pixels would keep the noise."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512)).astype(np.uint8)
    assert centre(noise, 56).std() < noise.std() / 8


LARGE = bytes(simplejpeg.encode_jpeg(scene(300, 300)[..., None], colorspace="GRAY"))


@pytest.mark.parametrize("content", [b"", b"not a film", picture(80)[:300], LARGE[:-2000]])
def test_an_unreadable_film_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableFilm):
        read_film(tmp_path / "a.jpg", 28)


def test_films_read_together_are_those_read_alone_in_order(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{n}.jpg", scene(100 + n, 90)) for n in range(30)]
    paths[7].write_bytes(LARGE[:-2000])
    paths[29].unlink()
    together = list(read_films(paths, 28))
    assert [n for n, film in enumerate(together) if film is None] == [7, 29]
    for path, film in zip(paths, together, strict=True):
        assert film is None or (film == read_film(path, 28)).all()


def test_few_films_wait_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading.os, "cpu_count", lambda: 2)
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield tmp_path / "absent.jpg"

    films = read_films(endless(), 28)
    for used in range(1, 20):
        assert next(films) is None
        assert asked <= used + 2 * reading.AHEAD
    films.close()


def test_brightness_is_that_of_all_pixels() -> None:
    generator = np.random.default_rng(0)
    films = [generator.integers(0, 255, (8, 8)).astype(np.uint8) for _ in range(5)]
    fitted = fit_films(np.array([brightness(film) for film in films]), 64)
    every = np.stack(films) / 255
    assert fitted == pytest.approx({"mean": every.mean(), "sd": every.std()})


def test_no_film_or_a_black_one_scales_by_1() -> None:
    assert fit_films(np.zeros((0, 2), np.int64), 16) == {"mean": 0.0, "sd": 1.0}
    assert fit_films(np.zeros((1, 2), np.int64), 16) == {"mean": 0.0, "sd": 1.0}
