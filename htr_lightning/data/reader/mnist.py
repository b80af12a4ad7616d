"""Read handwritten characters in the IDX format: MNIST, EMNIST, KMNIST and QMNIST."""

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Len
from torchvision.datasets import EMNIST, KMNIST, MNIST, QMNIST

from htr_lightning.data.files import files_below
from htr_lightning.data.root import data_folder
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError, first_line
from htr_lightning.parameters import Count

Names = Annotated[Sequence[str], Len(2, 2)]
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DOWNLOADS = {"mnist": MNIST, "emnist": EMNIST, "kmnist": KMNIST, "qmnist": QMNIST}
TYPES = {0x08: "u1", 0x0C: ">i4"}  # unsigned bytes, and the 32-bit integers of QMNIST labels
WRITER = 2  # column of QMNIST's labels: class, series, writer, index, ... (Yadav and Bottou, 2019)


class Mnist(Sequence[Sample]):
    """The characters of MNIST or a similar data set, each treated as a line of length one.

    The files store light ink on dark paper; samples are inverted to dark ink on light paper, as in every reader.

    Args:
        root: folder containing the IDX files, plain or gzipped, at any depth; also the destination of downloads.
        split: train, val or test. Validation uses the last `val_size` training characters.
        val_size: number of training characters held out for validation.
        download: whether to download missing files from torchvision's mirror and verify their checksums.
        name: name of the data set and first component of each sample id, e.g. mnist, kmnist, qmnist or
            emnist-letters.
        files: names of the image and label files for the training and test splits. A label is a single number or, in
            QMNIST, a row of eight numbers, of which the first is the class and the third is the writer.
        classes: characters, ordered by label.
        mapping: name of a file that maps labels to characters, as in EMNIST, used instead of `classes`. Each row
            contains a label and code points, of which the first is used.
        transpose: whether images are stored column by column, as in EMNIST.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        val_size: Count = 5000,
        download: bool = False,
        name: str = "mnist",
        files: Mapping[str, Names] = FILES,
        classes: str | None = "0123456789",
        mapping: str | None = None,
        transpose: bool = False,
    ) -> None:
        known = name.partition("-")[0] in DOWNLOADS
        self._contents = f"the {name} files"
        self._source = "download them there with data.reader.download=true" if known else ""
        new = download and root is not None and not Path(root).exists()
        self.root = Path(str(root)) if new else data_folder(root, self._contents, self._source)
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split of {name}; expected train, val or test")
        part = "test" if split == "test" else "train"
        if part not in files:
            raise InputError(f"data.reader.files.{part}: missing; set it to the names of its images and labels")
        if download and not _find(self.root, files[part][0]):
            _download(name, self.root, part)
        images, labels = (read_idx(self._file(file)) for file in files[part])
        if images.ndim != 3 or labels.ndim not in (1, 2) or len(images) != len(labels):
            raise InputError(
                f"{self.root}: images {images.shape} and labels {labels.shape} do not match; download them again"
            )
        first, last = {"train": (0, len(images) - val_size), "val": (len(images) - val_size, len(images))}.get(
            split, (0, len(images))
        )
        if not 0 <= first < last:
            raise InputError(
                f"{self.root}: split '{split}' is empty with {len(images)} characters and val_size={val_size}; change "
                "data.reader.val_size"
            )
        self._images = (images.transpose(0, 2, 1) if transpose else images)[first:last]
        self.ids = [f"{name}/{part}/{index}" for index in range(first, last)]
        labels = labels[first:last]
        if labels.ndim == 1:
            self.groups = self.ids  # the files do not identify the writers
        elif labels.shape[1] > WRITER:
            self.groups, labels = [f"{name}/writer_{writer}" for writer in labels[:, WRITER].tolist()], labels[:, 0]
        else:
            raise InputError(
                f"{self.root}: expected 1 or 8 numbers per label, got {labels.shape[1]}; download the files again"
            )
        characters = dict(enumerate(classes or "")) if mapping is None else read_mapping(self._file(mapping))
        if unknown := set(np.unique(labels).tolist()) - set(characters):
            where = mapping or "data.reader.classes"
            raise InputError(f"{self.root}: label {min(unknown)} of {name} is not in {where}; use matching files")
        self.texts = [characters[label] for label in labels.tolist()]
        self.sizes = [self._images.shape[1:]] * len(self.ids)
        self.skipped: list[Skipped] = []

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        return Sample(self.ids[index], 255 - self._images[index], self.texts[index], self.groups[index])

    def _file(self, name: str) -> Path:
        path = _find(self.root, name)
        if path is None:
            raise InputError(
                f"{self.root}: contains no {name}[.gz]; set data.root to the folder containing {self._contents}"
                + (f", or {self._source}" if self._source else "")
            )
        return path


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes or 32-bit integers (format: http://yann.lecun.com/exdb/mnist).

    Raises:
        InputError: if the magic number is wrong, or the file size does not match the header.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or not 1 <= content[3] <= 4:
        raise InputError(f"{path}: not an IDX file (it starts with {content[:4]!r}); download it again")
    kind, dimensions = np.dtype(TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack_from(f">{dimensions}I", content, 4) if len(content) >= start else (0,)
    expected = start + int(np.prod(shape, dtype=object)) * kind.itemsize
    if len(content) != expected:
        raise InputError(
            f"{path}: expected {expected} bytes according to the header, got {len(content)}; download it again"
        )
    try:
        return np.frombuffer(content, dtype=kind, offset=start).reshape(shape)
    except ValueError as error:  # no values, but dimensions that NumPy does not support
        raise InputError(f"{path}: invalid shape {shape} ({error}); download it again") from None


def read_mapping(path: Path) -> dict[int, str]:
    """Read a mapping from labels to characters; each row contains a label and decimal code points.

    Raises:
        InputError: if a row is malformed.
    """
    characters = {}
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), start=1):
        label, *codes = line.split() or [""]
        if not label and not codes:
            continue
        try:
            characters[int(label)] = chr(int(codes[0]))
        except (ValueError, IndexError, OverflowError):
            raise InputError(
                f"{path}:{number}: expected a label and code points, got '{line[:40]}'; download the file again"
            ) from None
    return characters


def _download(name: str, root: Path, part: str) -> None:
    family, _, subset = name.partition("-")
    if family not in DOWNLOADS:
        raise InputError(f"{name}: cannot be downloaded automatically; copy its files to {root}")
    try:
        DOWNLOADS[family](str(root), train=part == "train", download=True, **({"split": subset} if subset else {}))
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"{root}: {name} cannot be downloaded ({first_line(error)}); copy its files to this folder"
        ) from None


def _find(root: Path, name: str) -> Path | None:
    """Find a file by name, plain or gzipped.

    Raises:
        InputError: if files in several folders match; MNIST and KMNIST use the same names.
    """
    found = [path for path in files_below(root) if path.name in (name, f"{name}.gz")] if root.is_dir() else []
    if len({path.parent for path in found}) > 1:
        raise InputError(
            f"{found[0]} and {found[-1]}: files from two data sets; set data.root to the folder of one of them"
        )
    return found[0] if found else None
