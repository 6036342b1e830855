"""Films: from JPEG files to a finished films.npy with its brightness, against the decoder alone.

Below: the steps of preparation: read the files, decode them scaled, cut, write, sum for the
scaling. Above: simplejpeg alone, with the same scaled decoding, by as many threads, of bytes that
already lie in memory; so the ratio of the times is that of the images a second. The invented
films have the size of those of MIMIC-CXR-JPG.
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg
from measure import ratio, seconds

from flexcare.features.films import SHORT_SIDE, read_films
from flexcare.features.scaling import brightness
from flexcare.store import GrowingArray

COUNT, HEIGHT, WIDTH, SIDE = 48, 3000, 2500, 224
NOISE = 3.0  # grey levels; makes files of the about 1.5 MB that the real ones have


def invented(number: int) -> bytes:
    """A JPEG of a slope, a bright disc and noise."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    grey = 40 + 100 * rows / HEIGHT + 40 * columns / WIDTH
    grey[(rows - 1300) ** 2 + (columns - 1200) ** 2 < (300 + 10 * number) ** 2] += 40
    grey += random.normal(0, NOISE, grey.shape)
    pixels = grey.clip(0, 255).astype(np.uint8)[..., None]
    return bytes(simplejpeg.encode_jpeg(pixels, quality=95, colorspace="GRAY"))


def written(paths: list[Path], out: Path) -> None:
    """What preparation does with films."""
    with GrowingArray(out, np.uint8, (SIDE, SIDE)) as films:
        for film in read_films(paths, SIDE):
            assert film is not None
            films.append(film[None])
            brightness(film)


def decode(data: bytes) -> None:
    least = int(SIDE * SHORT_SIDE)
    simplejpeg.decode_jpeg(
        data, colorspace="GRAY", min_height=least, min_width=least, min_factor=1, strict=True
    )


def decoded(contents: list[bytes]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, contents))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents = [invented(number) for number in range(COUNT)]
        paths = [folder / f"{number}.jpg" for number in range(COUNT)]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        size = sum(map(len, contents)) / COUNT / 1e6
        print(f"{COUNT} films of {HEIGHT} x {WIDTH} pixels, {size:.2f} MB each", flush=True)
        ratio(
            "films a second, of the decoder's",
            "at least 0.8",
            lambda: seconds(lambda: decoded(contents)),
            lambda: seconds(lambda: written(paths, folder / "films.npy")),
        )


if __name__ == "__main__":
    main()
