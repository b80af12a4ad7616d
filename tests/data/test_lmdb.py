"""LMDB databases with the keys of parseq and docTR, written here and read back."""

import multiprocessing
import pickle
from io import BytesIO
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from htr_lightning.data.reader.lmdb import Lmdb
from htr_lightning.errors import InputError

SPLITS = {"train": "train", "val": "val", "test": "test"}


def write(folder: Path, texts: list[str], lacking: tuple[bytes, ...] = (), **extra: bytes) -> list[np.ndarray]:
    """A database of noise images, as parseq's `create_lmdb_dataset` writes it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(texts))
    pixels = [rng.integers(0, 256, (32, 40 + 3 * n), dtype=np.uint8) for n in range(len(texts))]
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number, (image, text) in enumerate(zip(pixels, texts, strict=True), start=1):
            packed = BytesIO()
            Image.fromarray(image).save(packed, "PNG")
            for key, value in ((b"image-%09d" % number, packed.getvalue()), (b"label-%09d" % number, text.encode())):
                if key not in lacking:
                    transaction.put(key, value)
        transaction.put(b"num-samples", str(len(texts)).encode())
        for key, value in extra.items():
            transaction.put(key.replace("_", "-").encode(), value)
    return pixels


def test_databases_are_read_back_to_the_pixel_and_the_text(tmp_path: Path) -> None:
    expected = []
    for name, texts in (("one", ["Haus", "漢字", "a b"]), ("two/deep", ["x"])):
        expected += zip(write(tmp_path / "train" / name, texts), texts, strict=True)
    reader = Lmdb(tmp_path, "train", splits=SPLITS, name="set")
    assert reader.ids == [f"set/train/{id}" for id in
                          ("one/000000001", "one/000000002", "one/000000003", "two/deep/000000001")]  # fmt: skip
    for sample, size, (pixels, text) in zip(reader, reader.sizes, expected, strict=True):
        np.testing.assert_array_equal(sample.image, pixels)
        assert sample.text == text
        assert size == pixels.shape
    assert [sample.id for sample in reader] == reader.ids
    assert [sample.group for sample in reader] == reader.groups


def test_one_database_may_be_divided_into_splits(tmp_path: Path) -> None:
    pixels = write(tmp_path / "all", [f"t{number}" for number in range(50)])
    splits = {"train": ".", "val": 0.1, "test": 0.2}
    readers = [Lmdb(tmp_path, split, splits=splits) for split in splits]
    assert [len(reader) for reader in readers] == [35, 5, 10]
    for reader in readers:
        for sample in reader:
            np.testing.assert_array_equal(sample.image, pixels[int(sample.text[1:])])


def _in_another_process(reader: Lmdb, answers: multiprocessing.Queue) -> None:
    answers.put([sample.image.sum() for sample in reader])


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_loading_processes_read_a_database_that_this_one_has_open(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a", "b", "c"])
    reader = Lmdb(tmp_path, splits=SPLITS)
    here = [sample.image.sum() for sample in reader]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_in_another_process, args=(reader, answers))
    process.start()
    assert answers.get(timeout=60) == here
    process.join()
    assert [sample.image.sum() for sample in reader] == here
    assert [sample.image.sum() for sample in pickle.loads(pickle.dumps(reader))] == here  # as spawned ones get it


def test_lines_that_cannot_be_used_are_named_or_counted(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a", "b", " ", "d", "e"], (b"image-000000001", b"label-000000002"),
          label_000000004=b"\xff")  # fmt: skip
    with pytest.raises(InputError, match=r"train/000000001: label without an image; .*faulty=skip"):
        Lmdb(tmp_path, splits=SPLITS, empty="skip")
    with pytest.raises(InputError, match=r"train/000000003: line without text; .*empty=skip"):
        Lmdb(tmp_path, splits=SPLITS, faulty="skip")
    reader = Lmdb(tmp_path, splits=SPLITS, faulty="skip", empty="skip")
    assert reader.texts == ["e"]
    assert [(skipped.id[-1], skipped.kind) for skipped in reader.skipped] == [
        ("1", "label without an image"), ("2", "image without a label"), ("3", "line without text"),
        ("4", "label is not valid UTF-8")]  # fmt: skip
    assert len(Lmdb(tmp_path, splits=SPLITS, faulty="skip", empty="keep")) == 2


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a"], image_000000001=b"no image")
    with pytest.raises(InputError, match=r"train/000000001: not an image"):
        Lmdb(tmp_path, splits=SPLITS)[0]


@pytest.mark.parametrize("stated", [b"", b"-1", b"two", b"3000000000", b"9" * 5000])
def test_a_wrong_count_is_refused(tmp_path: Path, stated: bytes) -> None:
    write(tmp_path / "train", ["a"], num_samples=stated)
    with pytest.raises(InputError, match=r"data\.mdb: invalid num-samples '.*' in a database of 3 entries"):
        Lmdb(tmp_path, splits=SPLITS)


def test_a_truncated_database_or_another_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a long text"] * 200)
    file = tmp_path / "train/data.mdb"
    whole = file.read_bytes()
    for size in (0, 10, 4096, 8192, 20_000):
        file.unlink()
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"data\.mdb"):
            Lmdb(tmp_path, splits=SPLITS)
    file.unlink()
    file.write_bytes(b"not a readable database" * 1000)
    with pytest.raises(InputError, match=r"data\.mdb: not a readable database"):
        Lmdb(tmp_path, splits=SPLITS)
    file.unlink()
    with pytest.raises(InputError, match=r"no data\.mdb found in 'train'; .*train/data\.mdb"):
        Lmdb(tmp_path, splits=SPLITS)


def test_options_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root is not set"):
        Lmdb(None, splits=SPLITS)
    with pytest.raises(InputError, match="'dev' is not a split"):
        Lmdb(tmp_path, "dev", splits=SPLITS)


@pytest.mark.parametrize("stated", [b"2", b"0"])
def test_lines_that_num_samples_does_not_count_are_refused_or_counted(tmp_path: Path, stated: bytes) -> None:
    write(tmp_path / "train", list("abcde"), (b"label-000000005",), num_samples=stated, meta_data=b"x")
    words = (
        rf"line outside the numbers 1 to num-samples \(num-samples={stated.decode()}\), the first of {5 - int(stated)}"
    )
    with pytest.raises(InputError, match=words):
        Lmdb(tmp_path, splits=SPLITS)
    if stated != b"0":
        reader = Lmdb(tmp_path, splits=SPLITS, faulty="skip")
        assert reader.texts == ["a", "b"]
        assert [left.id[-1] for left in reader.skipped] == ["3", "4", "5"]


def test_numbers_from_zero_and_gaps_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train", list("abc"), (b"image-000000002", b"label-000000002"),
          image_000000000=b"x", label_000000000=b"zero")  # fmt: skip
    reader = Lmdb(tmp_path, splits=SPLITS, faulty="skip")
    assert reader.texts == ["a", "c"]
    assert [(left.id[-1], left.kind) for left in reader.skipped] == [
        ("2", "no image and no label"), ("0", "line outside the numbers 1 to num-samples")]  # fmt: skip


def test_a_label_with_several_lines_is_refused_and_breaks_at_its_ends_are_removed(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a\n", "b\r\n", "c\u2028d", "\x85e"])
    with pytest.raises(InputError, match=r"000000003: text with several lines \(2 lines\)"):
        Lmdb(tmp_path, splits=SPLITS)
    assert Lmdb(tmp_path, splits=SPLITS, faulty="skip").texts == ["a", "b", "e"]
