"""A small dataset yields the same batches in every file format that conf/data supports."""

import csv
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pytest
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image
from pyarrow import parquet

from htr_lightning.data.datamodule import LineDataModule
from htr_lightning.data.split import SPLITS
from htr_lightning.hydra_version import initialize_config_dir, instantiate

CONF = Path(__file__).parents[2] / "conf"
Line = tuple[Path, str]  # image and text


def data_of(*overrides: str) -> LineDataModule:
    """The data module that `python train.py` would build."""
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=x", "name=x", "data.workers=0", *overrides])
    return instantiate(OmegaConf.to_container(config.data, resolve=True), _convert_="all")


def draw(folder: Path) -> dict[str, list[Line]]:
    """Write line images and texts for three splits."""
    rng = np.random.default_rng(0)
    lines: dict[str, list[Line]] = {}
    for split, count in zip(SPLITS, (7, 3, 4), strict=True):
        for number in range(count):
            path = folder / "drawn" / f"{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 80 + 10 * number), dtype=np.uint8)).save(path)
            lines.setdefault(split, []).append((path, f"{split} {number}, «é»"))
    return lines


def as_pairs(root: Path, split: str, lines: list[Line]) -> None:
    (root / split).mkdir()
    for path, text in lines:
        (root / split / path.name).write_bytes(path.read_bytes())
        (root / split / f"{path.stem}.gt.txt").write_text(text, encoding="utf-8")


def as_table(root: Path, split: str, lines: list[Line]) -> None:
    with open(root / f"{split}.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "text"), *((f"drawn/{path.name}", text) for path, text in lines)])


def as_pylaia(root: Path, split: str, lines: list[Line]) -> None:
    rows = (f"drawn/{path.stem} " + " ".join(c if c != " " else "<space>" for c in text) for path, text in lines)
    (root / f"{split}.txt").write_text("\n".join(rows), encoding="utf-8")


def as_lmdb(root: Path, split: str, lines: list[Line]) -> None:
    with lmdb.open(str(root / split), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for number, (path, text) in enumerate(lines, start=1):
            transaction.put(b"image-%09d" % number, path.read_bytes())
            transaction.put(b"label-%09d" % number, text.encode())
        transaction.put(b"num-samples", b"%d" % len(lines))


def as_parquet(root: Path, split: str, lines: list[Line]) -> None:
    name = {"val": "validation"}.get(split, split)
    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in lines]
    parquet.write_table(pa.table({"image": images, "text": [text for _, text in lines]}), root / f"{name}.parquet")


FORMS = [
    ("folder", as_pairs),
    ("table", as_table),
    ("pylaia", as_pylaia),
    ("lmdb", as_lmdb),
    ("huggingface", as_parquet),
]


@pytest.mark.parametrize(("name", "write"), FORMS)
def test_every_form_gives_the_same_lines(
    tmp_path: Path, name: str, write: Callable[[Path, str, list[Line]], None]
) -> None:
    lines = draw(tmp_path)
    for split in SPLITS:
        write(tmp_path, split, lines[split])
    cache = [f"data.reader.cache_dir={tmp_path}/cache"] if name == "huggingface" else []
    data = data_of(f"data={name}", f"data.root={tmp_path}", *cache)
    for split in SPLITS:
        pixels = {text: np.asarray(Image.open(path)) for path, text in lines[split]}
        reader = data.lines(split).reader
        assert sorted(reader.texts) == sorted(pixels)
        for sample in reader:
            np.testing.assert_array_equal(sample.image, pixels[sample.text])
        seen = [text for batch in data.loader(split) for text in batch.texts]
        assert sorted(seen) == sorted(pixels)


def test_folders_of_characters_feed_a_classifier(tmp_path: Path) -> None:
    for split in SPLITS:
        for number, character in enumerate("漢字"):
            (tmp_path / split / character).mkdir(parents=True)
            rng = np.random.default_rng(number)
            Image.fromarray(rng.integers(0, 256, (40, 35), dtype=np.uint8)).save(tmp_path / split / character / "1.png")
    data = data_of("model=mlp", "data=characters", f"data.root={tmp_path}")
    assert data.alphabet == ["字", "漢"]
    assert [batch.images.shape for batch in data.loader("val")] == [(2, 1, 28, 28)]


def test_one_folder_or_one_table_is_split_as_the_comments_in_conf_say(tmp_path: Path) -> None:
    lines = draw(tmp_path)
    every = [line for split in SPLITS for line in lines[split]]
    for path, text in every:
        (path.parent / f"{path.stem}.gt.txt").write_text(text, encoding="utf-8")
    as_table(tmp_path, "labels", every)
    for name, part in (("folder", "."), ("table", "labels.csv")):
        shares = f"data.reader.splits={{train: {part}, val: 0.2, test: 0.3}}"
        data = data_of(f"data={name}", f"data.root={tmp_path}", shares)
        assert [len(data.lines(split)) for split in SPLITS] == [7, 3, 4]
        assert sorted(text for split in SPLITS for text in data.lines(split).texts) == sorted(t for _, t in every)
