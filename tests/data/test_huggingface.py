"""Parquet and arrow tables with images, written with pyarrow and read back through `datasets`, without a network."""

import pickle
import random
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from conftest import run_train
from PIL import Image
from pyarrow import parquet

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.data.reader.huggingface import HuggingFace, check_count
from htr_lightning.errors import InputError

SPLITS = {"train": "train", "val": "validation", "test": "test"}


@pytest.fixture
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., HuggingFace]:
    """A reader whose arrow files stay in the test's own folder."""
    cache = tmp_path_factory.mktemp("cache")

    def call(root: Path | None, split: str = "train", **options: Any) -> HuggingFace:
        return HuggingFace(root, split, **({"splits": SPLITS, "cache_dir": str(cache)} | options))

    return call


def drawn(count: int, colour: bool = False, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (30 + n, 60 + 5 * n, 3)[: 2 + colour], dtype=np.uint8) for n in range(count)]


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    packed = BytesIO()
    Image.fromarray(pixels).save(packed, form)
    return packed.getvalue()


def table(images: list[np.ndarray], texts: list[Any], kind: str = "struct", **columns: list[Any]) -> pa.Table:
    """Images as the hub's parquet files hold them: a struct of bytes and path; or as plain bytes."""
    contents = [encoded(image) for image in images]
    cells = pa.array(contents, pa.binary())
    if kind == "struct":
        cells = pa.array([{"bytes": c, "path": None} for c in contents],
                         pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    return pa.table({"image": cells, "text": texts, **columns})


def write(folder: Path, name: str, *arguments: Any, row_group: int | None = None, **columns: Any) -> None:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    parquet.write_table(table(*arguments, **columns), folder / "data" / f"{name}.parquet", row_group_size=row_group)


@pytest.mark.parametrize("kind", ["struct", "binary"])
@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_is_read_back_to_the_pixel_and_the_text(
    tmp_path: Path, read: Callable[..., HuggingFace], kind: str, streaming: bool
) -> None:
    texts = [f"ligne {n} é漢" for n in range(7)]
    images = drawn(7)
    write(tmp_path / "set", "validation", images, texts, kind, row_group=2)
    reader = read(tmp_path / "set", "val", streaming=streaming)
    assert reader.texts == texts
    assert reader.ids == [f"set/validation/{n:06d}" for n in range(7)] == reader.groups
    assert reader.sizes == [image.shape for image in images]
    for _ in range(2):  # a stream begins again at its first line
        for sample, pixels, text in zip(reader, images, texts, strict=True):
            np.testing.assert_array_equal(sample.image, pixels)
            assert sample.text == text
    assert reader.skipped == []


def test_colours_become_grey_and_no_height_is_assumed(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    images = drawn(3, colour=True)
    write(tmp_path, "train", images, list("abc"))
    for sample, pixels in zip(read(tmp_path), images, strict=True):
        np.testing.assert_array_equal(sample.image, np.array(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize(
    "names",
    [["data/train-00000-of-00002", "data/train-00001-of-00002"], ["default/train/0000", "default/train/0001"],
     ["train_0", "train_1"]],
)  # fmt: skip
def test_several_files_are_one_part(tmp_path: Path, read: Callable[..., HuggingFace], names: list[str]) -> None:
    for seed, name in enumerate([*names, "data/training_notes", "test"]):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(drawn(2, seed=seed), [f"{seed}a", f"{seed}b"]), path)
    reader = read(tmp_path)
    assert reader.texts == ["0a", "0b", "1a", "1b"]
    np.testing.assert_array_equal(reader[3].image, drawn(2, seed=1)[1])


def saved(folder: Path, count: int, **columns: Any) -> datasets.Dataset:
    pictures = [Image.fromarray(image) for image in drawn(count)]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": pictures, "text": [f"t{n}" for n in range(count)]}, features)


def test_what_datasets_saved_is_mapped_where_it_lies(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    parts = datasets.DatasetDict({"train": saved(tmp_path, 5), "validation": saved(tmp_path, 3)})
    parts.save_to_disk(str(tmp_path / "dict"))
    saved(tmp_path, 10).save_to_disk(str(tmp_path / "single"), num_shards=2)
    assert read(tmp_path / "dict", "val").texts == ["t0", "t1", "t2"]
    shares = {"train": ".", "val": 0.2, "test": 0.1}
    readers = [read(tmp_path / "single", split, splits=shares) for split in shares]
    assert [len(reader) for reader in readers] == [7, 2, 1]
    for reader in readers:
        for sample in reader:
            np.testing.assert_array_equal(sample.image, drawn(10)[int(sample.text[1:])])
    copied = pickle.loads(pickle.dumps(readers[0]))
    np.testing.assert_array_equal(copied[2].image, readers[0][2].image)


def test_columns_have_the_names_that_are_given(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    columns = {"sentence": ["x", "y", "z"], "writer": [3, 3, None], "picture": None}
    content = table(drawn(3), ["a", "b", "c"]).rename_columns(["scan", "text"])
    for name in ("sentence", "writer"):
        content = content.append_column(name, pa.array(columns[name]))
    parquet.write_table(content, tmp_path / "train.parquet")
    reader = read(tmp_path, image="scan", text="sentence", group="writer")
    assert reader.texts == ["x", "y", "z"]
    assert reader.groups == ["3", "3", reader.ids[2]]
    with pytest.raises(
        InputError, match=r"no column 'image' \(available: scan, text, sentence, writer\); .*data\.reader\.image"
    ):
        read(tmp_path)


def test_class_labels_are_read_by_their_names(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["あ", "い"])})
    data = datasets.Dataset.from_dict({"image": [Image.fromarray(i) for i in drawn(3)], "label": [1, 0, 1]}, features)
    datasets.DatasetDict({"train": data}).save_to_disk(str(tmp_path))
    assert read(tmp_path, text="label").texts == ["い", "あ", "い"]


def test_fractions_keep_writers_together(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    writers = [f"w{n // 3}" for n in range(30)]
    write(tmp_path, "train", drawn(30), [str(n) for n in range(30)], writer=writers)
    shares = {"train": "train", "val": 0.2, "test": 0.1}
    readers = [read(tmp_path, split, splits=shares, group="writer") for split in shares]
    assert [len(reader) for reader in readers] == [21, 6, 3]
    assert sum(len(set(reader.groups)) for reader in readers) == 10
    assert sorted(int(text) for reader in readers for text in reader.texts) == list(range(30))


def test_a_set_without_a_test_part_says_what_to_do(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    write(tmp_path, "train", drawn(2), ["a", "b"])
    with pytest.raises(
        InputError, match=r"no split 'test' \(available: data/train\.parquet\); .*data\.reader\.splits\.test=0\.1"
    ):
        read(tmp_path, "test")


def test_known_counts_are_checked(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    for part, count in (("train", 6482), ("validation", 976), ("test", 2915)):
        check_count("Teklia/IAM-line", part, count)
        with pytest.raises(InputError, match=rf"Teklia/IAM-line: expected {count} rows in '{part}', got 7"):
            check_count("Teklia/IAM-line", part, 7)
    check_count("Teklia/Himanis-line", "train", 7)  # not known to the line
    check_count("somebody/else", "train", 7)
    write(tmp_path, "train", drawn(2), ["a", "b"])
    with pytest.raises(InputError, match=r"expected 10188 rows in 'train', got 2.*data\.reader\.check_counts=false"):
        read(tmp_path, repo="Teklia/RIMES-2011-line")
    assert len(read(tmp_path, repo="Teklia/RIMES-2011-line", check_counts=False)) == 2


def test_a_stream_is_read_in_order_only(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    write(tmp_path, "train", drawn(5), list("abcde"))
    reader = read(tmp_path, streaming=True)
    assert [reader[index].text for index in (1, 3)] == ["b", "d"]
    with pytest.raises(
        InputError, match=r"only be read in order.*pack the data set first, or set data\.reader\.streaming=false"
    ):
        reader[2]
    assert reader[0].text == "a"


def test_rows_that_cannot_be_used_are_named_or_counted(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    content = table(drawn(5), ["a", None, " ", "d", "e"]).to_pydict()
    content["image"][0] = {"bytes": None, "path": "gone.png"}
    content["image"][3] = None
    Image.fromarray(drawn(1)[0]).save(tmp_path / "there.png")
    content["image"][4] = {"bytes": None, "path": "there.png"}
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    parquet.write_table(pa.table({"image": pa.array(content["image"], struct), "text": content["text"]}),
                        tmp_path / "train.parquet")  # fmt: skip
    with pytest.raises(InputError, match=r"/train/000001: line without text, the first of 2 such faults; .*empty=skip"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"/train/000000: row without an image \(.*not embedded.*faulty=skip"):
        read(tmp_path, empty="skip")
    reader = read(tmp_path, empty="skip", faulty="skip")
    assert reader.texts == ["e"]
    assert [skipped.id[-1] for skipped in reader.skipped] == ["1", "2", "0", "3"]
    np.testing.assert_array_equal(reader[0].image, drawn(1)[0])
    assert reader.sizes == [drawn(1)[0].shape]


def test_a_bad_image_is_named_by_its_row(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    parquet.write_table(
        pa.table({"image": [encoded(drawn(1)[0]), b"no"], "text": ["a", "b"]}), tmp_path / "train.parquet"
    )
    reader = read(tmp_path)
    with pytest.raises(InputError, match=r"/train/000001: not an image"):
        reader[1]
    with pytest.raises(InputError, match=r"/train/000001: not an image"):
        _ = reader.sizes


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pa.table({"image": [1.5], "text": ["a"]}), "cannot be read"),
        (pa.table({"image": [b"x"], "text": [1.5]}), "column 'text' contains float values, not text"),
        (pa.table({"image": [b"x"], "text": [["a"]]}), "column 'text' contains list values, not text"),
    ],
)
def test_columns_of_another_kind_are_refused(
    tmp_path: Path, read: Callable[..., HuggingFace], content: pa.Table, words: str
) -> None:
    parquet.write_table(content, tmp_path / "train.parquet")
    with pytest.raises(InputError, match=words):
        read(tmp_path)


def test_a_damaged_parquet_file_is_read_or_refused_but_nothing_else(
    tmp_path: Path, read: Callable[..., HuggingFace]
) -> None:
    write(tmp_path, "train", drawn(3), list("abc"))
    path = tmp_path / "data/train.parquet"
    whole, dice, refused = path.read_bytes(), random.Random(0), []
    for attempt in range(24):
        damaged = bytearray(whole[: dice.randrange(len(whole))] if attempt < 6 else whole)
        for _ in range(0 if attempt < 6 else 5):
            place = dice.randrange(len(damaged) - 900, len(damaged)) if attempt % 2 else dice.randrange(len(damaged))
            damaged[place] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            assert all(sample.image.ndim == 2 for sample in read(tmp_path))
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 6
    assert all(str(tmp_path) in message or tmp_path.name in message for message in refused)
    assert all(len(message.splitlines()) == 1 for message in refused)


def test_nothing_given_and_nothing_there_are_refused(tmp_path: Path, read: Callable[..., HuggingFace]) -> None:
    with pytest.raises(InputError, match=r"data\.repo is not set; .*data\.repo=Teklia/IAM-line.*data\.root"):
        read(None)
    with pytest.raises(InputError, match="no Parquet or Arrow files"):
        read(tmp_path)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach the hub\n and more"), OSError("name resolution")])
def test_without_a_network_one_line_says_what_to_do_and_at_once(
    read: Callable[..., HuggingFace], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    for _ in range(2):
        with pytest.raises(
            InputError, match=r"Teklia/IAM-line: cannot be read from the Hub .*set data\.root=FOLDER"
        ) as told:
            read(None, repo="Teklia/IAM-line")
        assert len(str(told.value).splitlines()) == 1
        assert not datasets.config.HF_HUB_OFFLINE  # asked again the next time
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
        monkeypatch.setattr(datasets, "load_dataset", fail)  # it breaks off later


@pytest.mark.parametrize("streaming", [False, True])
def test_the_parts_of_the_hub_are_read_as_those_of_a_folder(
    tmp_path: Path, read: Callable[..., HuggingFace], monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    write(tmp_path, "train", drawn(4), list("abcd"))
    asked = _hub(monkeypatch, tmp_path)
    reader = read(None, repo="who/Lines", revision="abc", streaming=streaming)
    assert asked == [("who/Lines", "abc")]
    assert reader.ids[0] == "Lines/train/000000"
    np.testing.assert_array_equal(reader[2].image, drawn(4)[2])
    with pytest.raises(InputError, match=r"who/Lines: no split 'test' \(available: train\); .*splits\.test=0\.1"):
        read(None, "test", repo="who/Lines")


def _hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[tuple[str, str | None]]:
    """A hub that holds one set, whatever it is called: the parquet files of a folder."""
    real, asked = datasets.load_dataset, []

    def load(
        path: str, name: str | None = None, *, revision: str | None, streaming: bool, cache_dir: str | None
    ) -> Any:
        asked.append((path, revision))
        files = {file.stem: str(file) for file in sorted((folder / "data").iterdir())}
        return real("parquet", data_files=files, streaming=streaming, cache_dir=cache_dir or str(folder / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    return asked


def test_the_command_trains_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, count in (("train", 6), ("validation", 3), ("test", 3)):
        write(tmp_path, part, drawn(count, colour=True), [f"ab{n}" for n in range(count)])
    asked = _hub(monkeypatch, tmp_path)
    short = [
        "trainer=default",
        "trainer.max_steps=2",
        "logger=csv",
        "data.workers=0",
        "model.net.hidden=8",
        "data.alphabet=ab0123456789",
    ]
    run = run_train(tmp_path / "run", "data=huggingface", "data.repo=Teklia/Some-line", *short)
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert {name for name, _ in asked} == {"Teklia/Some-line"}
    recognizer = checkpoint.load(run / "checkpoints" / "best.ckpt")
    with pytest.raises(InputError, match=r"data\.repo is not set"):
        data_for(recognizer).lines("test")  # what a checkpoint names is not downloaded
    assert len(data_for(recognizer, ["data.repo=Teklia/Some-line"]).lines("test")) == 3


def test_a_set_that_the_hub_does_not_have_is_refused(
    read: Callable[..., HuggingFace], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'who/what' doesn't exist")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match=r"who/what: not found on the Hub, or private; .*hf auth login"):
        read(None, repo="who/what")


def test_a_text_with_several_lines_is_refused_and_breaks_at_its_ends_are_removed(
    tmp_path: Path, read: Callable[..., HuggingFace]
) -> None:
    write(tmp_path, "train-0", drawn(4), ["a\n", "b\rc", "d\u2029e", "\x0cf"])
    with pytest.raises(InputError, match=r"000001: text with several lines \(2 lines\), the first of 2 such"):
        read(tmp_path)
    assert read(tmp_path, faulty="skip").texts == ["a", "f"]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_cannot_refer_to_files_outside_the_folder_unless_this_is_allowed(
    tmp_path: Path, read: Callable[..., HuggingFace], streaming: bool
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    Image.fromarray(drawn(1)[0]).save(tmp_path / "x.png")
    Image.fromarray(drawn(1)[0]).save(root / "y.png")
    for name in ("../x.png", str(tmp_path / "x.png"), str(root / "../x.png")):
        cells = [{"bytes": None, "path": name}, {"bytes": None, "path": "y.png"}]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        parquet.write_table(pa.table({"image": pa.array(cells, struct), "text": ["a", "b"]}), root / "train.parquet")
        with pytest.raises(InputError, match=r"image outside data\.root.*data\.reader\.outside=true"):
            read(root, streaming=streaming)[0]
        assert read(root, streaming=streaming, outside=True)[0].image.shape == (30, 60)
        if not streaming:
            assert read(root, faulty="skip").texts == ["b"]
