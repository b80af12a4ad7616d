"""The frames of an AVIF image are measured before anything is decoded."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from htr_lightning.data.avif import largest_frame
from htr_lightning.data.image import image_size, read_image
from htr_lightning.errors import InputError


def encoded(size: tuple[int, int], mode: str = "L", **options: Any) -> bytes:
    content = BytesIO()
    Image.new(mode, size, 200 if mode == "L" else (200,) * len(mode)).save(content, "AVIF", speed=10, **options)
    return content.getvalue()


def with_size(content: bytes, width: int, height: int) -> bytes:
    """The same frames in a container that states another size."""
    start = content.index(b"ispe") + 8
    return content[:start] + width.to_bytes(4) + height.to_bytes(4) + content[start + 8 :]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (65, 64), (333, 7)])
@pytest.mark.parametrize("options", [{"subsampling": "4:2:0"}, {"subsampling": "4:4:4", "xmp": b"<x/>" * 20}])
def test_the_frames_have_the_size_of_the_image(mode: str, size: tuple[int, int], options: dict[str, Any]) -> None:
    content = encoded(size, mode, **options)
    assert largest_frame(content) == size[0] * size[1]
    assert image_size("x", content) == read_image("x", content=content).shape == size[::-1]


def test_an_image_whose_frames_are_larger_than_stated_is_refused_before_it_is_decoded() -> None:
    content = with_size(encoded((3000, 2000)), 30, 20)
    with Image.open(BytesIO(content)) as image:
        assert image.size == (30, 20)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match="x: contains a frame of 6,000,000 pixels"):
            read("x", content=content, max_pixels=5_999_999)


def test_sequences_are_refused() -> None:
    content = encoded((20, 20), save_all=True, append_images=[Image.new("L", (20, 20))])
    with pytest.raises(InputError, match="x: a sequence of images; save one of them as PNG"):
        read_image("x", content=content)


def test_a_damaged_container_is_refused_and_never_hangs() -> None:
    whole, rng = encoded((40, 20), xmp=b"<x/>"), np.random.default_rng(0)
    for number in range(400):
        damaged = bytearray(whole[: number if number < len(whole) else None])
        for place in rng.integers(0, max(1, len(damaged)), 3 if number >= len(whole) else 0).tolist():
            damaged[place] = int(rng.integers(256))
        try:
            assert largest_frame(bytes(damaged)) > 0
        except ValueError:
            continue
