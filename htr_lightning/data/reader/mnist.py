"""Handwritten digits in the IDX format of MNIST."""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets import MNIST

from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.errors import InputError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class Mnist(Sequence[Sample]):
    """MNIST as lines of one digit, dark on light as every sample is (the files have it the other way round).

    Args:
        root: folder of the IDX files, plain or gzipped, at any depth; they are downloaded there if it lacks them and
            `download` is set.
        split: train, val or test. Validation is the last `val_size` of the 60,000 training digits.
        val_size: digits held out of training.
        download: fetch missing files from the mirror that torchvision knows, checked against its checksums.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "train", val_size: int = 5000, download: bool = False
    ) -> None:
        if root is None:
            raise InputError("data.root is not set; give the folder of the MNIST files, as in data.root=FOLDER")
        self.root = Path(root)
        if split not in ("train", "val", "test"):
            raise InputError(f"'{split}' is no split of MNIST; use one of train, val, test")
        part = "test" if split == "test" else "train"
        if download and not _find(self.root, FILES[part][0]):
            try:
                MNIST(str(self.root), train=part == "train", download=True)
            except (RuntimeError, OSError) as error:
                raise InputError(f"{self.root}: MNIST could not be downloaded ({error}); put its files there") from None
        images, labels = (read_idx(self._file(name)) for name in FILES[part])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InputError(f"{self.root}: {images.shape} images but {labels.shape} labels; the files are not a pair")
        first, last = {"train": (0, len(images) - val_size), "val": (len(images) - val_size, len(images))}.get(
            split, (0, len(images))
        )
        if not 0 <= first < last:
            raise InputError(
                f"{self.root}: split '{split}' of {len(images)} digits is empty; lower val_size={val_size}"
            )
        self._images, self._labels = images[first:last], labels[first:last]
        self.ids = [f"mnist/{part}/{index}" for index in range(first, last)]
        self.groups = self.ids  # the files do not tell the writers
        self.texts = [str(label) for label in self._labels]
        self.sizes = [images.shape[1:]] * len(self.ids)
        self.skipped: list[Skipped] = []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return Sample(self.ids[index], 255 - self._images[index], self.texts[index], self.groups[index])

    def _file(self, name: str) -> Path:
        path = _find(self.root, name)
        if path is None:
            raise InputError(f"{self.root}: no {name}[.gz] in or below it; set data.root, or data.reader.download=true")
        return path


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes as an array (format: http://yann.lecun.com/exdb/mnist).

    Raises:
        InputError: another magic number, or more or fewer bytes than the header promises.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); copy it again") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise InputError(f"{path}: no IDX file of bytes (it begins with {content[:4]!r}); copy it again")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack_from(f">{dimensions}I", content, 4) if len(content) >= start else (0,)
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise InputError(f"{path}: {len(content)} bytes where its header promises {expected}; copy it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _find(root: Path, name: str) -> Path | None:
    return next((path for ending in ("", ".gz") for path in sorted(root.rglob(name + ending))), None)
