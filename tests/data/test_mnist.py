"""The format of MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hydra import compose
from mnist_files import idx, write
from omegaconf import OmegaConf

from htr_lightning.data.character import FixedSize
from htr_lightning.data.reader.mnist import Mnist, read_idx
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir


@pytest.mark.parametrize("shape", [(3,), (2, 5), (2, 4, 3), (0, 28, 28)])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_gives_back_what_was_written(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / f"array{suffix}"
    path.write_bytes(gzip.compress(idx(array)) if suffix else idx(array))
    np.testing.assert_array_equal(read_idx(path), array)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_truncated_anywhere_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    content = idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    content = gzip.compress(content) if suffix else content
    path = tmp_path / f"short{suffix}"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="short"):
            read_idx(path)


def test_an_idx_file_with_more_than_it_promises_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(idx(np.zeros((3, 4), np.uint8)) + b"\0")
    with pytest.raises(InputError, match="expected 24 bytes according to the header, got 25"):
        read_idx(tmp_path / "long")


@pytest.mark.parametrize("start", [b"\0\0\x0d\x01", b"\x89PNG", b"\0\x01\x08\x01", b"GIF8"])
def test_another_magic_number_is_refused(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "other").write_bytes(start + bytes(20))
    with pytest.raises(InputError, match="other: not an IDX file"):
        read_idx(tmp_path / "other")


@pytest.mark.parametrize("pack", [True, False])
def test_the_splits_are_disjoint_and_together_all_digits(tmp_path: Path, pack: bool) -> None:
    images, labels = write(tmp_path / "MNIST" / "raw", pack=pack)
    train, val, test = (Mnist(tmp_path, split, val_size=6) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (14, 6, 7)
    assert train.texts + val.texts == [str(label) for label in labels]
    pixels = np.stack([sample.image for sample in [*train, *val]])
    np.testing.assert_array_equal(pixels, 255 - images)  # dark on light
    assert len({*train.ids, *val.ids, *test.ids}) == 27


def test_samples_say_what_the_lists_say(tmp_path: Path) -> None:
    write(tmp_path)
    reader = Mnist(tmp_path, "val", val_size=6)
    assert [sample.text for sample in reader] == reader.texts
    assert [sample.id for sample in reader] == reader.ids
    assert [sample.group for sample in reader] == reader.groups
    assert [sample.image.shape for sample in reader] == reader.sizes
    assert reader[-1].id == reader.ids[-1]


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        Mnist(tmp_path)
    with pytest.raises(InputError, match=r"data\.root"):
        Mnist(None)


def test_a_split_without_digits_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match="val_size=20"):
        Mnist(tmp_path, "train", val_size=20)
    with pytest.raises(InputError, match="val_size=0"):
        Mnist(tmp_path, "val", val_size=0)


def test_a_split_of_another_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match="validation"):
        Mnist(tmp_path, "validation", val_size=6)


@pytest.mark.parametrize("shape", [(19,), (21,), (20, 28, 28)])
def test_images_and_labels_that_are_no_pair_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(shape, np.uint8)))
    with pytest.raises(InputError, match="do not match"):
        Mnist(tmp_path, "train", val_size=6)


def test_the_real_splits_have_their_known_sizes_and_first_labels(htr_data: Path) -> None:
    train, val, test = (Mnist(htr_data / "mnist", split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (55_000, 5_000, 10_000)
    assert train.texts[:5] == ["5", "0", "4", "1", "9"]
    assert test.texts[:5] == ["7", "2", "1", "0", "4"]
    preprocess = FixedSize(28, 28, 20)
    for index in range(0, len(test), 5):  # ink stays ink: 1 - the grey of the sample, whatever the digit's thickness
        sample = test[index]
        assert np.abs(preprocess(sample.image) * 255 - (255.0 - sample.image)).max() < 0.01, sample.id


def integers(array: np.ndarray) -> bytes:
    """An IDX file of type 12: 32-bit integers, most significant byte first."""
    return struct.pack(f">HBB{array.ndim}I", 0, 12, array.ndim, *array.shape) + array.astype(">i4").tobytes()


def test_idx_files_of_integers_are_read_and_truncated_ones_refused(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(-(2**31), 2**31, (5, 8))
    (tmp_path / "labels").write_bytes(integers(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "labels"), array)
    for size in (0, 5, 12, 40, len(integers(array)) - 1):
        (tmp_path / "labels").write_bytes(integers(array)[:size])
        with pytest.raises(InputError, match="labels"):
            read_idx(tmp_path / "labels")


@pytest.mark.parametrize("shape", [(0, 2**32 - 1, 2**32 - 1, 2**32 - 1), (2**32 - 1,) * 4, (1,) * 5, ()])
def test_idx_headers_that_no_array_can_have_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "odd").write_bytes(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + b"\0")
    with pytest.raises(InputError, match="odd"):
        read_idx(tmp_path / "odd")
    (tmp_path / "odd").write_bytes(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape))
    with pytest.raises(InputError, match="odd"):
        read_idx(tmp_path / "odd")


def options(name: str, *overrides: str) -> dict:
    """The reader's parameters in conf/data."""
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf")):
        config = compose("train", overrides=["run_dir=x", "name=x", "model=mlp", f"data={name}", *overrides])
    reader = OmegaConf.to_container(config.data.reader, resolve=True)
    return {key: value for key, value in reader.items() if not key.startswith("_")}


def test_emnist_images_are_transposed_and_its_mapping_gives_the_letters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = rng.integers(1, 27, 30, dtype=np.uint8)
    name = "emnist-letters"
    (tmp_path / "gzip").mkdir()
    for part in ("train", "test"):
        (tmp_path / f"gzip/{name}-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"gzip/{name}-{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    mapping = tmp_path / f"gzip/{name}-mapping.txt"
    mapping.write_text("".join(f"{n} {64 + n} {96 + n}\n" for n in range(1, 27)))
    given = options("emnist", f"data.reader.name={name}", "data.reader.val_size=10")
    train, val, test = (Mnist(tmp_path, split, **given) for split in ("train", "val", "test"))
    assert [len(train), len(val), len(test)] == [20, 10, 30]
    assert test.texts == [chr(64 + label) for label in labels]
    assert train.ids[0] == "emnist-letters/train/0"
    for sample, image, size in zip(test, images, test.sizes, strict=True):
        np.testing.assert_array_equal(255 - sample.image, image.T)
        assert sample.image.shape == size
    mapping.write_text("1 65\n")
    with pytest.raises(InputError, match=r"label 2 of emnist-letters is not in emnist-letters-mapping\.txt"):
        Mnist(tmp_path, "test", **given)
    for content in ("1\n", "a 65\n", "1 9999999999\n", "\xff\xfe"):
        mapping.write_bytes(content.encode("latin-1"))
        with pytest.raises(InputError, match=r"mapping\.txt"):
            Mnist(tmp_path, "test", **given)


def test_emnist_balanced_is_held_out_as_its_makers_did(tmp_path: Path) -> None:
    given = options("emnist")
    assert given["name"] == "emnist-balanced"
    assert given["val_size"] == 18_800
    assert given["files"]["test"] == [
        "emnist-balanced-test-images-idx3-ubyte",
        "emnist-balanced-test-labels-idx1-ubyte",
    ]
    assert given["mapping"] == "emnist-balanced-mapping.txt"


def test_kmnist_reads_hiragana(tmp_path: Path) -> None:
    images, labels = write(tmp_path)
    reader = Mnist(tmp_path, "train", **(options("kmnist") | {"val_size": 6}))
    assert reader.texts == ["おきすつなはまやれを"[label] for label in labels[:14]]
    np.testing.assert_array_equal(255 - reader[3].image, images[3])
    assert reader.ids[0] == "kmnist/train/0"


def test_qmnist_names_the_writers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 4000, (12, 8))
    labels[:, 0] %= 10
    for part in ("train", "test"):
        (tmp_path / f"qmnist-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"qmnist-{part}-labels-idx2-int.gz").write_bytes(gzip.compress(integers(labels)))
    val = Mnist(tmp_path, "val", **(options("qmnist") | {"val_size": 5}))
    assert val.texts == [str(label) for label in labels[7:, 0]]
    assert val.groups == [f"qmnist/writer_{writer}" for writer in labels[7:, 2]]
    np.testing.assert_array_equal(255 - val[0].image, images[7])
    (tmp_path / "qmnist-test-labels-idx2-int.gz").write_bytes(gzip.compress(integers(labels[:, :2])))
    with pytest.raises(InputError, match="expected 1 or 8 numbers per label, got 2"):
        Mnist(tmp_path, "test", **options("qmnist"))


def test_two_sets_whose_files_have_the_same_names_are_not_confused(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw")
    write(tmp_path / "KMNIST" / "raw")
    with pytest.raises(InputError, match=r"KMNIST.* and .*MNIST.*: files from two data sets"):
        Mnist(tmp_path, "train", val_size=6)
    assert len(Mnist(tmp_path / "MNIST", "train", val_size=6)) == 14


def test_a_label_that_no_class_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(InputError, match=r"label \d of mnist is not in data\.reader\.classes"):
        Mnist(tmp_path, "train", val_size=6, classes="01")


def test_a_set_that_nobody_offers_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mine: cannot be downloaded automatically"):
        Mnist(tmp_path, "train", download=True, name="mine")
