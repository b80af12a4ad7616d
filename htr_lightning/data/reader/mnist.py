"""Handwritten characters in the IDX format of MNIST: MNIST, EMNIST, KMNIST, QMNIST."""

import gzip
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets import EMNIST, KMNIST, MNIST, QMNIST

from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.data.split import SPLITS
from htr_lightning.errors import InputError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
DOWNLOADS = {"mnist": MNIST, "emnist": EMNIST, "kmnist": KMNIST, "qmnist": QMNIST}
TYPES = {0x08: "u1", 0x0C: ">i4"}  # bytes, and the integers of QMNIST's labels
WRITER = 2  # column of QMNIST's labels: class, series, writer, digit of the writer, ... (Yadav and Bottou, 2019)


class Mnist(Sequence[Sample]):
    """MNIST and similar sets as lines of one character, dark on light like every sample (the files are light on dark).

    Args:
        root: folder of the IDX files, plain or gzipped, at any depth; they are downloaded there if they are missing and
            `download` is set.
        split: train, val or test. Validation is the last `val_size` of the training characters.
        val_size: characters held out of training.
        download: get missing files from the mirror known to torchvision, and check them against its checksums.
        name: of the set, first part of every sample id: mnist, kmnist, qmnist, or emnist-letters and the like.
        files: names of the images and labels of train and test. Labels are one number each, or the eight of QMNIST, of
            which the first is the class and the third the writer.
        classes: the characters in the order of their labels.
        mapping: file beside the images that gives the characters instead, as EMNIST has one: rows of a label and its
            code points, the first of which is taken.
        transpose: the images are stored by columns, as those of EMNIST are.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        val_size: int = 5000,
        download: bool = False,
        name: str = "mnist",
        files: Mapping[str, Sequence[str]] = FILES,
        classes: str | None = "0123456789",
        mapping: str | None = None,
        transpose: bool = False,
    ) -> None:
        if root is None:
            raise InputError("data.root is not set; give the folder of the MNIST files, as in data.root=FOLDER")
        self.root = Path(root)
        if split not in SPLITS:
            raise InputError(f"'{split}' is not a split of {name}; use one of train, val, test")
        part = "test" if split == "test" else "train"
        if download and not _find(self.root, files[part][0]):
            _download(name, self.root, part)
        images, labels = (read_idx(self._file(file)) for file in files[part])
        if images.ndim != 3 or labels.ndim not in (1, 2) or len(images) != len(labels):
            raise InputError(f"{self.root}: {images.shape} images but {labels.shape} labels; use files of one set")
        first, last = {"train": (0, len(images) - val_size), "val": (len(images) - val_size, len(images))}.get(
            split, (0, len(images))
        )
        if not 0 <= first < last:
            raise InputError(
                f"{self.root}: split '{split}' of {len(images)} digits is empty; lower val_size={val_size}"
            )
        self._images = (images.transpose(0, 2, 1) if transpose else images)[first:last]
        self.ids = [f"{name}/{part}/{index}" for index in range(first, last)]
        labels = labels[first:last]
        if labels.ndim == 1:
            self.groups = self.ids  # the files do not name the writers
        elif labels.shape[1] > WRITER:
            self.groups, labels = [f"{name}/writer_{writer}" for writer in labels[:, WRITER].tolist()], labels[:, 0]
        else:
            raise InputError(f"{self.root}: labels of {labels.shape[1]} numbers; QMNIST has 8, the others 1")
        characters = dict(enumerate(classes or "")) if mapping is None else read_mapping(self._file(mapping))
        if unknown := set(np.unique(labels).tolist()) - set(characters):
            where = mapping or "data.reader.classes"
            raise InputError(f"{self.root}: label {min(unknown)} of {name} is not in {where}; check that they belong "
                             "together")  # fmt: skip
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
            raise InputError(f"{self.root}: no {name}[.gz] in or below it; set data.root, or data.reader.download=true")
        return path


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes or 32-bit integers as an array (format: http://yann.lecun.com/exdb/mnist).

    Raises:
        InputError: the magic number is wrong, or the number of bytes is not what the header states.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); copy it again") from None
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES or not 1 <= content[3] <= 4:
        raise InputError(f"{path}: not an IDX file of bytes (it begins with {content[:4]!r}); copy it again")
    kind, dimensions = np.dtype(TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    shape = struct.unpack_from(f">{dimensions}I", content, 4) if len(content) >= start else (0,)
    expected = start + int(np.prod(shape, dtype=object)) * kind.itemsize
    if len(content) != expected:
        raise InputError(f"{path}: {len(content)} bytes, but its header states {expected}; copy it again")
    try:
        return np.frombuffer(content, dtype=kind, offset=start).reshape(shape)
    except ValueError as error:  # no values, but sizes beyond those of an array
        raise InputError(f"{path}: {shape} values ({error}); copy it again") from None


def read_mapping(path: Path) -> dict[int, str]:
    """A mapping from labels to characters: rows of a label and decimal code points.

    Raises:
        InputError: a row is malformed.
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
                f"{path}:{number}: '{line[:40]}' is not a label with its code points; copy the file again"
            ) from None
    return characters


def _download(name: str, root: Path, part: str) -> None:
    family, _, subset = name.partition("-")
    if family not in DOWNLOADS:
        raise InputError(f"{name}: its download address is not known; put its files into {root}")
    try:
        DOWNLOADS[family](str(root), train=part == "train", download=True, **({"split": subset} if subset else {}))
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{root}: {name} could not be downloaded ({str(error).splitlines()[0]}); put its files there"
                         ) from None  # fmt: skip


def _find(root: Path, name: str) -> Path | None:
    """The file of a name, plain or gzipped.

    Raises:
        InputError: there are several, since KMNIST uses the same names as MNIST.
    """
    found = sorted({*root.rglob(name), *root.rglob(f"{name}.gz")})
    if len({path.parent for path in found}) > 1:
        raise InputError(f"{found[0]} and {found[-1]}: files of two sets; set data.root to the folder of one")
    return found[0] if found else None
