"""A packed file contains exactly the lines of the reader, and interrupted packing is resumed."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest
import torch
from numpy import ndarray

from htr_lightning.augment import Affine
from htr_lightning.card import describe
from htr_lightning.data import pack
from htr_lightning.data.character import FixedSize
from htr_lightning.data.datamodule import SPLITS, LineDataModule
from htr_lightning.data.image import reduce_rows
from htr_lightning.data.pack import Pack, PackWriter, packed_height, packed_splits
from htr_lightning.data.preprocess import FitHeight, NormalizeHandwriting, Preprocess
from htr_lightning.data.sample import Sample, Skipped
from htr_lightning.errors import InputError
from htr_lightning.text.normalize import Normalizer


@cache
def drawn(seed: int, index: int) -> ndarray:
    """Return an image of the given size that contains a number."""
    rng = np.random.default_rng((seed, index))
    height, width = int(rng.integers(20, 90)), int(rng.integers(40, 300))
    image = rng.integers(200, 250, (height, width), dtype=np.uint8)
    cv2.putText(image, str(index), (4, height - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 30, 2)
    return image


class Drawn(Sequence[Sample]):
    """A reader of lines with many image sizes."""

    def __init__(self, split: str, count: int = 20, seconds: float = 0.0) -> None:
        self.seed, self.seconds = SPLITS.index(split), seconds
        self.ids = [f"drawn/{split}/{n}" for n in range(count)]
        self.texts = [f"e\u0301  été {n} \u5b57" for n in range(count)]
        self.groups = [f"hand-{n % 3}" for n in range(count)]
        self.sizes = [self.draw(n).shape for n in range(count)]
        self.skipped = [Skipped(f"drawn/{split}/x", "line without text", "''")] * self.seed
        self.opened: list[int] = []

    def draw(self, index: int) -> ndarray:
        return drawn(self.seed, index)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        self.opened.append(index)
        time.sleep(self.seconds)
        return Sample(self.ids[index], self.draw(index), self.texts[index], self.groups[index])


class Listed(list[Sample]):
    """A reader that returns the given images."""

    def __init__(self, *images: ndarray) -> None:
        super().__init__(Sample(f"x/{n}", image, "a", "g") for n, image in enumerate(images))
        self.ids, _, self.texts, self.groups = (list(column) for column in zip(*self, strict=True))
        self.sizes = [image.shape for image in images]
        self.skipped: list[Skipped] = []


def packed(path: Path, height: int | None = 64, source: str = "", **options) -> Path:
    with PackWriter(path, height, source) as writer:
        for split in SPLITS:
            writer.write(split, Drawn(split, **options))
    return path


def module(preprocess: Preprocess, path: Path | None = None, **options) -> LineDataModule:
    settings = {"workers": 0, "max_lines": 6} | options
    return LineDataModule(Drawn, preprocess, Normalizer(), pack=None if path is None else str(path), **settings)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "CHUNK_LINES", 7)


@pytest.mark.parametrize("height", [None, 16, 32, 200])
def test_a_packed_file_gives_what_the_reader_gave(tmp_path: Path, small_chunks: None, height: int | None) -> None:
    path = packed(tmp_path / "p.htr", height)
    assert packed_splits(path) == list(SPLITS)
    for split in SPLITS:
        reader, lines = Drawn(split), Pack(path, split)
        assert len(lines) == len(reader)
        assert (lines.ids, lines.texts, lines.groups) == (reader.ids, reader.texts, reader.groups)
        assert lines.skipped == reader.skipped
        assert lines.sizes == [sample.image.shape for sample in lines]
        for mine, its in zip(lines, reader, strict=True):
            assert (mine.id, mine.text, mine.group) == (its.id, its.text, its.group)
            assert np.array_equal(mine.image, reduce_rows(its.image, height))
        assert np.array_equal(lines[-1].image, lines[len(lines) - 1].image)
        with pytest.raises(IndexError):
            lines[len(lines)]


def test_no_line_becomes_too_narrow_to_be_read(tmp_path: Path) -> None:
    narrow, low = np.full((64, 4), 250, np.uint8), np.full((8, 90), 250, np.uint8)
    narrow[10:50, 2] = 10
    with PackWriter(tmp_path / "p.htr", 32) as writer:
        writer.write("train", Listed(narrow, low))
    lines = Pack(tmp_path / "p.htr", "train")
    assert np.array_equal(lines[0].image, narrow)
    assert np.array_equal(lines[1].image, low)  # and a small line is not enlarged


def test_the_lines_of_a_chunk_are_bounded_by_their_pixels_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "CHUNK_BYTES", 5000)
    images = [np.full((50, 90), n, np.uint8) for n in range(9)]
    writes: list[int] = []
    with PackWriter(tmp_path / "p.htr", None) as writer:
        writer.write("train", Listed(*images), writes.append)
    assert writes == [0, 2, 2, 2, 2, 1]
    assert all(np.array_equal(s.image, i) for s, i in zip(Pack(tmp_path / "p.htr", "train"), images, strict=True))


def test_what_a_packed_line_is_can_be_written_into(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.htr")
    before = path.read_bytes()
    Pack(path, "val")[0].image[:] = 0
    assert path.read_bytes() == before
    assert Pack(path, "val")[0].image.any()


# The data module.


def same_batches(one: LineDataModule, other: LineDataModule, split: str, training: bool) -> None:
    pairs = zip(one.loader(split, training=training), other.loader(split, training=training), strict=True)
    for mine, its in pairs:
        assert (mine.ids, mine.texts, mine.groups) == (its.ids, its.texts, its.groups)
        assert torch.equal(mine.widths, its.widths)
        assert torch.equal(mine.images, its.images)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("preprocess", [FitHeight(32, margin=4, polarity="dark"), FixedSize(28, 28, 20)])
def test_training_sees_the_same_batches_as_from_the_source(tmp_path: Path, preprocess: Preprocess, split: str) -> None:
    path = packed(tmp_path / "p.htr", packed_height(preprocess))
    plain, from_file = module(preprocess), module(preprocess, path)
    same_batches(plain, from_file, split, training=False)
    same_batches(plain, from_file, split, training=True)
    assert describe(plain, split) == describe(from_file, split)
    assert plain.alphabet == from_file.alphabet


@pytest.mark.parametrize("preprocess", [FitHeight(32), NormalizeHandwriting(None, None)])
def test_a_packed_line_is_preprocessed_as_the_scan_is(tmp_path: Path, preprocess: Preprocess) -> None:
    images = [Drawn("train").draw(n) for n in range(20)]
    images += [255 - image for image in images[:5]]
    with PackWriter(tmp_path / "p.htr", packed_height(preprocess)) as writer:
        writer.write("train", Listed(*images))
    for image, line in zip(images, Pack(tmp_path / "p.htr", "train"), strict=True):
        assert np.array_equal(preprocess(image), preprocess(line.image))


def test_packed_lines_are_augmented_differently_in_every_epoch_by_any_worker(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.htr")
    augment = Affine(1.0, 0.1, 0.2, 0.5, 0.1)

    def images(epoch: int, workers: int) -> list[torch.Tensor]:
        loader = module(FitHeight(32), path, augment=augment, workers=workers).loader("train", training=True)
        loader.sampler.set_epoch(epoch)
        return [batch.images for batch in sorted(loader, key=lambda batch: batch.ids)]

    alone, helped, later = images(0, 0), images(0, 2), images(1, 0)
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in zip(alone, later, strict=True))


def test_a_worker_gets_the_path_and_not_the_pixels(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.htr")
    sent = pickle.dumps(Pack(path, "train"))
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent)[3].image, Pack(path, "train")[3].image)


def test_lines_reduced_too_far_for_a_model_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "p.htr")
    with pytest.raises(InputError, match=r"p\.htr.*height of 64 pixels.*needs a height of 96 pixels.*htr pack"):
        module(FitHeight(48), path).lines("train")
    with pytest.raises(InputError, match="needs full-size images"):
        module(FixedSize(28, 28, 20), path).lines("train")
    smaller = module(FitHeight(24), path).lines("train")  # scaled down again, as if by the reader
    assert next(iter(module(FitHeight(24), path).loader("val"))).images.shape[2] == 24
    assert smaller.texts == module(FitHeight(24)).lines("train").texts


# Resuming.


def test_interrupted_packing_is_resumed_where_it_stopped(tmp_path: Path, small_chunks: None) -> None:
    whole = packed(tmp_path / "whole.htr").read_bytes()

    class Broken(Drawn):
        def __getitem__(self, index: int) -> Sample:
            if index == 17:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    def stop() -> None:
        with PackWriter(tmp_path / "p.htr", 64) as writer:
            writer.write("train", Drawn("train"))
            writer.write("val", Broken("val"))

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not (tmp_path / "p.htr").exists()
    with open(tmp_path / "p.htr.part", "ab") as file:
        file.write(os.urandom(1000))  # part of the interrupted chunk
    readers = {split: Drawn(split) for split in SPLITS}
    with PackWriter(tmp_path / "p.htr", 64) as writer:
        for split, reader in readers.items():
            writer.write(split, reader)
    assert [reader.opened[:1] for reader in readers.values()] == [[], [14], [0]]
    assert (tmp_path / "p.htr").read_bytes() == whole
    assert not (tmp_path / "p.htr.part").exists()


def test_packing_interrupted_anywhere_is_resumed_to_the_same_file(tmp_path: Path, small_chunks: None) -> None:
    whole = packed(tmp_path / "whole.htr").read_bytes()
    for length in np.random.default_rng(0).integers(0, len(whole), 12).tolist() + [0, 5, 8, 12, len(whole) - 1]:
        (tmp_path / "p.htr.part").write_bytes(whole[:length])
        assert packed(tmp_path / "p.htr").read_bytes() == whole
        (tmp_path / "p.htr").unlink()


@pytest.mark.parametrize("seed", range(2))
def test_killed_packing_is_resumed_to_the_same_file(tmp_path: Path, small_chunks: None, seed: int) -> None:
    whole = packed(tmp_path / "whole.htr").read_bytes()
    process = multiprocessing.get_context("fork").Process(
        target=packed, args=(tmp_path / "p.htr",), kwargs={"seconds": 0.005}
    )
    process.start()
    part = tmp_path / "p.htr.part"
    most = int(len(whole) * np.random.default_rng(seed).uniform(0.1, 0.7))
    while not part.exists() or part.stat().st_size < most:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert part.exists()
    assert packed(tmp_path / "p.htr").read_bytes() == whole


def test_packing_does_not_go_on_with_anything_else(tmp_path: Path, small_chunks: None) -> None:
    part = tmp_path / "p.htr.part"
    begun = packed(tmp_path / "whole.htr", source="a").read_bytes()[:-2000]
    part.write_bytes(begun)
    with pytest.raises(InputError, match=r"p\.htr\.part.*different settings.*delete the file"):
        packed(tmp_path / "p.htr", source="b")
    with pytest.raises(InputError, match="different settings"):
        packed(tmp_path / "p.htr", height=48, source="a")

    class Other(Drawn):
        def __init__(self, split: str) -> None:
            super().__init__(split)
            self.texts[3] = "corrected"

    with (
        pytest.raises(InputError, match=r"different lines.*delete the file"),
        PackWriter(tmp_path / "p.htr", 64, "a") as writer,
    ):
        writer.write("train", Other("train"))
    kept = part.read_bytes()
    assert begun.startswith(kept)
    assert len(kept) > len(begun) / 2


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "p.htr.part").write_bytes(b"a download of something else")
    with pytest.raises(InputError, match="not a packed file"):
        packed(tmp_path / "p.htr")
    assert (tmp_path / "p.htr.part").read_bytes() == b"a download of something else"
    (tmp_path / "q.htr").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"q\.htr: already exists"):
        packed(tmp_path / "q.htr")
    with pytest.raises(InputError, match=r"q\.htr"):
        packed(tmp_path / "q.htr" / "p.htr")


def test_nothing_is_left_of_a_packing_that_packed_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x/0: .*9 x 0 pixels"), PackWriter(tmp_path / "p.htr", 64) as writer:
        writer.write("train", Listed(np.zeros((0, 9), np.uint8)))
    assert not list(tmp_path.iterdir())


# Corruption.


def read_all(path: Path) -> list[tuple]:
    return [
        (*sample[:1], sample.image.tobytes(), *sample[2:])
        for split in packed_splits(path)
        for sample in Pack(path, split)
    ]


def test_every_changed_byte_is_noticed(tmp_path: Path, small_chunks: None) -> None:
    path = tmp_path / "p.htr"
    with PackWriter(path, 8) as writer:
        writer.write("train", Drawn("train", 9))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {*range(80), *range(len(whole) - 100, len(whole)), *rng.integers(0, len(whole), 150).tolist()}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"p\.htr.*pack the data again"):
            read_all(path)


def test_a_truncated_file_is_refused(tmp_path: Path, small_chunks: None) -> None:
    path = packed(tmp_path / "p.htr")
    whole = path.read_bytes()
    for length in [*range(0, 60, 7), *np.random.default_rng(0).integers(0, len(whole), 50).tolist(), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"p\.htr.*pack the data again"):
            Pack(path, "train")
    path.write_bytes(whole + b"\n")
    with pytest.raises(InputError, match=r"p\.htr"):
        Pack(path, "train")


def test_what_is_no_packed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.htr: not found; create it with htr pack"):
        Pack(tmp_path / "none.htr", "train")
    with pytest.raises(InputError, match="cannot be read"):
        Pack(tmp_path, "train")
    with PackWriter(tmp_path / "p.htr", 32) as writer:
        writer.write("train", Drawn("train"))
    with pytest.raises(InputError, match=r"no split 'test' \(available: train\)"):
        module(FitHeight(32), tmp_path / "p.htr").lines("test")


def with_index(path: Path, index: Any, lines: Any = None, header: Any = None) -> Path:
    """Write a packed file of one chunk with correct checksums, whatever it contains."""

    def block(content: Any) -> bytes:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        return pack.BLOCK.pack(len(data), crc32(data)) + data

    start = pack.MAGIC + block(header or {"height": 32, "source": ""})
    lines = [["x/1", "a", "g", 2, 3, crc32(bytes(6))]] if lines is None else lines
    body = start + block({"split": "train", "lines": lines}) + bytes(6)
    path.write_bytes(body + block(index(len(start))) + pack.TAIL.pack(len(body), pack.END))
    return path


def chunk_at(offset: int) -> dict[str, Any]:
    return {"train": {"chunks": [offset], "skipped": []}}


HOSTILE: dict[str, dict[str, Any]] = {
    "a chunk many times": {"index": lambda at: {"train": {"chunks": [at] * 1000, "skipped": []}}},
    "nesting": {"index": lambda at: b"[" * 100_000 + b"]" * 100_000},
    "large sides": {"lines": [["x", "a", "g", 2**40, 2**40, 0]]},
    "negative sides": {"lines": [["x", "a", "g", -2, -3, 0]]},
    "id that is a list": {"lines": [[["x"], "a", "g", 2, 3, crc32(bytes(6))]]},
    "lone surrogate": {"lines": [["x", "\ud800", "g", 2, 3, crc32(bytes(6))]]},
    "two lines in a text": {"lines": [["x", "a\rb", "g", 2, 3, crc32(bytes(6))]]},
    "the same id twice": {"lines": [["x", "a", "g", 1, 3, crc32(bytes(3))]] * 2},
    "sides that are no integers": {"lines": [["x", "a", "g", 2.0, 3, crc32(bytes(6))]]},
    "sides that are texts": {"lines": [["x", "a", "g", "2", "3", crc32(bytes(6))]]},
    "missing fields": {"lines": [["x", "a", "g"]]},
    "no lines": {"lines": []},
    "unknown split": {"index": lambda at: chunk_at(at) | {"x\nerror": {"chunks": [], "skipped": []}}},
    "offset": {"index": lambda at: chunk_at(2**70)},
    "negative offset": {"index": lambda at: chunk_at(-1)},
    "skipped lines": {"index": lambda at: {"train": {"chunks": [at], "skipped": [[1, [2], {}]]}}},
    "height": {"header": {"height": "tall", "source": ""}},
    "negative height": {"header": {"height": -1, "source": ""}},
    "truth for a height": {"header": {"height": True, "source": ""}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_rejected_in_one_line(tmp_path: Path, name: str) -> None:
    assert len(Pack(with_index(tmp_path / "good.htr", chunk_at), "train")) == 1
    with pytest.raises(InputError, match=r"p\.htr: corrupted.*pack the data again") as refused:
        Pack(with_index(tmp_path / "p.htr", **{"index": chunk_at} | HOSTILE[name]), "train")
    assert "\n" not in str(refused.value)


def test_control_characters_in_ids_are_escaped(tmp_path: Path) -> None:
    lines = [["../\x1b[2J\n", "a", "g", 2, 3, crc32(bytes(6))]]
    assert Pack(with_index(tmp_path / "p.htr", chunk_at, lines), "train").ids == [r"../\u001b[2J\n"]


def test_an_unfinished_file_with_an_impossible_line_is_cut_there(tmp_path: Path) -> None:
    whole = packed(tmp_path / "whole.htr").read_bytes()
    start = len(pack.MAGIC) + pack.BLOCK.size + pack.BLOCK.unpack_from(whole, len(pack.MAGIC))[0]
    line = json.dumps({"split": "train", "lines": [["x", "a", "g", 2**31, 2**31, 0]]}).encode()
    evil = pack.BLOCK.pack(len(line), crc32(line)) + line
    (tmp_path / "p.htr.part").write_bytes(whole[:start] + evil)
    assert packed(tmp_path / "p.htr").read_bytes() == whole


MILLION = """
import resource, sys
import numpy as np
from htr_lightning.data.pack import PackWriter
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.data.sample import Sample

class Cheap(Synthetic):
    "Synthetic lines in earnest but for the drawing, which would take an hour."
    few = [np.random.default_rng(n).integers(0, 255, (24, 60 + n), dtype=np.uint8) for n in range(64)]
    def __getitem__(self, index):
        return Sample(self.ids[index], self.few[index % 64], self.texts[index], self.groups[index])

lines = int(sys.argv[2])
with PackWriter(sys.argv[1], 32) as writer:
    writer.write("train", Cheap("train", {"train": lines}, {"train": 1000}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_million_lines_are_packed_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MILLION, str(tmp_path / "p.htr"), "1000000"]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert peak < 1e9
    lines = Pack(tmp_path / "p.htr", "train")
    assert len(lines) == 1_000_000
    assert lines[999_999].id == "synthetic/train/999999"
