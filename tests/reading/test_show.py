"""Pictures of pages show the lines found on them."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from htr_lightning.reading.show import show
from htr_lightning.reading.sources import Source
from htr_lightning.reading.transcribe import open_lines


def test_a_page_that_cannot_be_read_has_no_picture(write_page: Callable[..., Path], tmp_path: Path) -> None:
    xml, target = write_page(tmp_path, ["un", "deux"]), tmp_path / "lines.jpg"
    (image,) = (path for path in tmp_path.iterdir() if path != xml)
    source = Source(xml, image, True)
    Image.new("L", (20, 10)).save(image)  # of another size than the page
    lines = [line for line, _ in open_lines(source)]
    assert len(lines) == 2
    show(lines, target)
    assert not target.exists()
    write_page(tmp_path, ["un", "deux"])
    show([line for line, _ in open_lines(source)], target)
    assert target.exists()
