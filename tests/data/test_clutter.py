"""Hidden files are no data and symbolic links are followed, in every reader that searches folders."""

import shutil
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import lmdb
import pyarrow as pa
import pytest
from casia_files import write_characters, write_lines
from font_files import write_font
from PIL import Image
from pyarrow import parquet

from htr_lightning.data.reader.casia import CasiaCharacters, CasiaLines
from htr_lightning.data.reader.folder import Folder
from htr_lightning.data.reader.huggingface import HuggingFace
from htr_lightning.data.reader.iam import Iam
from htr_lightning.data.reader.listing import Classes, Images, Pairs
from htr_lightning.data.reader.lmdb import Lmdb
from htr_lightning.data.reader.mnist import Mnist
from htr_lightning.data.reader.synthetic import find_fonts
from htr_lightning.errors import InputError

from .iam_tree import write_tree

Make = Callable[[Path], None]
Read = Callable[[Path], list[str]]


def png() -> bytes:
    content = BytesIO()
    Image.new("L", (60, 20), 200).save(content, "PNG")
    return content.getvalue()


def make_images(folder: Path) -> None:
    for name in ("a/1", "a/2", "b/1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(png())
        (folder / f"{name}.gt.txt").write_text("x")


def make_lmdb(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        with lmdb.open(str(folder / name), map_size=1 << 20) as environment, environment.begin(write=True) as batch:
            for key, value in {"image-000000001": png(), "label-000000001": b"x", "num-samples": b"1"}.items():
                batch.put(key.encode(), value)


def make_parquet(folder: Path) -> None:
    folder.mkdir(parents=True)
    parquet.write_table(pa.table({"image": [{"bytes": png(), "path": "x"}], "text": ["x"]}), folder / "train.parquet")


def make_mnist(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, head, size in (("images-idx3", (3, 4, 28, 28), 4 * 784), ("labels-idx1", (1, 4), 4)):
        content = bytes((0, 0, 8, head[0])) + b"".join(number.to_bytes(4) for number in head[1:]) + bytes(size)
        (folder / f"t10k-{name}-ubyte").write_bytes(content)


def make_iam(folder: Path) -> None:
    forms = {split: [f"a0{number}-000"] for number, split in enumerate(("train", "val", "test"))}
    write_tree(folder, forms, dict.fromkeys(forms, 2), "{}.txt")


def read_folder(listing: Any, root: Path) -> list[str]:
    return Folder(root, listing=listing, splits={"train": "."}, name="x", empty="keep").ids


def read_parquet(root: Path) -> list[str]:
    return HuggingFace(root, splits={"train": "train"}, name="x", cache_dir=str(root.parent / "cache")).ids


READERS: dict[str, tuple[Make, Read]] = {
    "pairs": (make_images, partial(read_folder, Pairs())),
    "images": (make_images, partial(read_folder, Images())),
    "lmdb": (make_lmdb, lambda root: Lmdb(root, splits={"train": "."}, name="x").ids),
    "huggingface": (make_parquet, read_parquet),
    "mnist": (make_mnist, lambda root: Mnist(root, "test").ids),
    "casia characters": (partial(write_characters, alphabet="啊阿", writers=4), lambda r: CasiaCharacters(r).ids),
    "casia lines": (partial(write_lines, alphabet="啊阿", writers=4), lambda root: CasiaLines(root).ids),
    "fonts": (lambda folder: write_font(folder / "a.ttf", "ab"), lambda root: [p.name for p in find_fonts(root)]),
}


def clutter(folder: Path) -> None:
    """Add what macOS and Jupyter leave in folders."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    shutil.copytree(folder, folder / ".ipynb_checkpoints")
    for path in files:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        shutil.copy(path, path.with_name(f".{path.name}"))


@pytest.mark.parametrize("name", READERS)
def test_clutter_is_ignored_and_links_are_followed(tmp_path: Path, name: str) -> None:
    make, read = READERS[name]
    make(tmp_path / "plain" / "data")
    expected = read(tmp_path / "plain")
    assert expected
    make(tmp_path / "elsewhere")
    clutter(tmp_path / "elsewhere")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "data").symlink_to(tmp_path / "elsewhere")
    clutter(tmp_path / "linked")
    assert read(tmp_path / "linked") == expected


def test_folders_of_characters_ignore_clutter(tmp_path: Path) -> None:
    make_images(tmp_path)
    clutter(tmp_path)
    assert read_folder(Classes(), tmp_path) == ["x/a/1", "x/a/2", "x/b/1"]


@pytest.mark.parametrize("link", [False, True])
def test_iam_ignores_clutter(tmp_path: Path, link: bool) -> None:
    make_iam(tmp_path / "real")
    clutter(tmp_path / "real")
    (tmp_path / "root").mkdir()
    for path in (tmp_path / "real").iterdir():
        if link:
            (tmp_path / "root" / path.name).symlink_to(path)
        else:
            path.rename(tmp_path / "root" / path.name)
    for name in ("train.txt", "val.txt", "validation.txt", "test.txt"):
        (tmp_path / "root/.hidden").mkdir(exist_ok=True)
        (tmp_path / "root/.hidden" / name).write_text("no-form")
    reader = Iam(tmp_path / "root", "train", splits=".")
    assert len(reader) == 2
    for path in (tmp_path / "root/lines").iterdir():
        if not path.name.startswith("."):
            shutil.rmtree(path)
    with pytest.raises(InputError, match="missing lines/"):
        Iam(tmp_path / "root", "train", splits=".")


def test_a_file_that_is_linked_twice_is_refused(tmp_path: Path) -> None:
    make_lmdb(tmp_path / "l")
    make_parquet(tmp_path / "p")
    (tmp_path / "l/three").mkdir()
    (tmp_path / "l/three/data.mdb").symlink_to(tmp_path / "l/two/data.mdb")
    (tmp_path / "p/train-1.parquet").symlink_to(tmp_path / "p/train.parquet")
    with pytest.raises(InputError, match=r"two/data\.mdb: the same database as .*three/data\.mdb; remove the link"):
        READERS["lmdb"][1](tmp_path / "l")
    with pytest.raises(InputError, match=r"parquet: the same file as .*parquet; remove the link"):
        read_parquet(tmp_path / "p")
