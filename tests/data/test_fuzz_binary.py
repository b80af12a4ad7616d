"""Corrupted .gnt, .dgrl, IDX and parquet files yield samples or raise InputError."""

import gzip
import random
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from casia_files import dgrl, gnt, noise
from fuzz import check, refused, run
from PIL import Image
from pyarrow import parquet

from htr_lightning.data.reader.casia import CasiaCharacters, CasiaLines
from htr_lightning.data.reader.huggingface import HuggingFace
from htr_lightning.data.reader.mnist import Mnist
from htr_lightning.data.sample import Sample
from htr_lightning.errors import InputError

KINDS = ["gnt"] * 6 + ["dgrl"] * 6 + ["images", "labels", "gz"] * 2 + ["parquet"]  # parquet is slow
WORDS = [0, 1, 2, 9, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1]


def _png(rng: np.random.Generator) -> bytes:
    file = BytesIO()
    Image.fromarray(noise(rng, 12, 30)).save(file, "PNG")
    return file.getvalue()


def _seeds() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    table = {"image": [{"bytes": _png(rng), "path": None} for _ in range(3)], "text": ["un", "deux", "trois"]}
    written = BytesIO()
    parquet.write_table(pyarrow.table(table), written)
    images = struct.pack(">4I", 0x803, 4, 6, 5) + noise(rng, 4, 30).tobytes()
    return {
        "gnt": gnt([(c, noise(rng, 9 + i, 7 + i)) for i, c in enumerate("啊a阿埃")]),
        "dgrl": dgrl([("啊阿a", noise(rng, 11, 20)), ("埃", noise(rng, 9, 8)), ("挨哎", noise(rng, 10, 15))]),
        "images": images,
        "labels": struct.pack(">2I", 0x801, 4) + bytes([1, 2, 3, 4]),
        "gz": gzip.compress(images, mtime=0),
        "parquet": written.getvalue(),
    }


SEEDS = _seeds()
PLACES = {
    "gnt": "gnt/HWDB1.1tst_gnt/1.gnt",
    "dgrl": "dgrl/HWDB2.0Test/1-a.dgrl",
    "images": "idx/t10k-images-idx3-ubyte",
    "labels": "idx/t10k-labels-idx1-ubyte",
    "gz": "idx_gz/t10k-images-idx3-ubyte.gz",
    "parquet": "hub/test.parquet",
}


def prepare(folder: Path) -> Path:
    for kind, place in PLACES.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(SEEDS[kind])
    (folder / "idx_gz" / "t10k-labels-idx1-ubyte").write_bytes(SEEDS["labels"])
    return folder


def mutated(content: bytes, dice: random.Random) -> bytes:
    """Corrupt a file in one to three places: change bytes or numbers, or remove, repeat or truncate data."""
    for _ in range(dice.choice([1, 1, 2, 3])):
        start = dice.randrange(max(1, len(content)))
        match dice.randrange(6):
            case 0:
                content = content[:start]
            case 1:
                content = content[:start] + dice.randbytes(dice.randrange(5)) + content[start + dice.randrange(5) :]
            case 2:
                content = content[:start] + content[start + dice.randrange(60) :]
            case 3:
                content = content[:start] + content[start : start + dice.randrange(60)] + content[start:]
            case _:
                form = dice.choice(["<I", ">I", "<H", ">H"])
                start = dice.choice([start, start // 4 * 4, dice.randrange(min(80, max(1, len(content))))])
                word = struct.pack(form, dice.choice(WORDS) % 256 ** struct.calcsize(form))
                content = content[:start] + word + content[start + len(word) :]
    return content


def open_reader(folder: Path, kind: str, faulty: str) -> Sequence[Sample]:
    match kind:
        case "gnt":
            return CasiaCharacters(folder / "gnt", "test", characters="all", faulty=faulty)
        case "dgrl":
            return CasiaLines(folder / "dgrl", "test", faulty=faulty)
        case "images" | "labels":
            return Mnist(folder / "idx", "test")
        case "gz":
            return Mnist(folder / "idx_gz", "test")
    parts = dict.fromkeys(("train", "val", "test"), "test")
    return HuggingFace(folder / "hub", "test", splits=parts, faulty=faulty, cache_dir=str(folder / "cache"))


def read_mutated(folder: Path, seed: int) -> str:
    """Read a corrupted file; return "read" or "refused", or raise any unexpected exception."""
    dice = random.Random(seed)
    kind = dice.choice(KINDS)
    (folder / PLACES[kind]).write_bytes(mutated(SEEDS[kind], dice))
    try:
        reader = open_reader(folder, kind, dice.choice(["error", "skip"]))
        for sample, size in zip(reader, reader.sizes, strict=True):
            assert sample.image.dtype == np.uint8
            assert sample.image.shape == tuple(size)
            assert "\n" not in sample.id
        return "read"
    except InputError as error:
        return refused(str(error))
    finally:
        (folder / PLACES[kind]).write_bytes(SEEDS[kind])


def test_400_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    outcomes = Counter(read_mutated(folder, seed) for seed in range(400))
    assert min(outcomes["read"], outcomes["refused"]) > 60  # otherwise the corruption is too mild or too severe


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_20_000_mutated_files_are_read_or_refused_each_in_5_seconds_and_one_gigabyte(tmp_path: Path) -> None:
    check(__file__, 20_000, tmp_path)


if __name__ == "__main__":
    run(prepare, read_mutated, int(sys.argv[1]))
