"""Zip archives as the root of a data set."""

import io
import zipfile
from pathlib import Path

import pooch
import pytest

from htr_lightning.data import archive
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache"


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


@pytest.mark.parametrize("inside", ["", "export_job_17/", "a/b/"])
def test_lines_come_out_of_an_archive_as_out_of_its_folder(tmp_path: Path, write_page, inside: str) -> None:
    for stem in "ab":
        write_page(tmp_path / "pages", ["un", stem], stem)
    files = {f"{inside}{path.name}": path.read_bytes() for path in sorted((tmp_path / "pages").iterdir())}
    files |= {f"__MACOSX/{inside}._a.xml": b"\0\5\x16\7", f"{inside}.DS_Store": b"\0"}
    root = pack(tmp_path / "pages.zip", files)
    packed, plain = PageXml(root), PageXml(tmp_path / "pages")
    assert packed.ids == plain.ids
    for ours, theirs in zip(packed, plain, strict=True):
        assert ours.text == theirs.text
        assert (ours.image == theirs.image).all()


def test_an_archive_is_unpacked_once_and_again_when_it_changes(tmp_path: Path, cache: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a.xml": b"1", "b.xml": b"2"})
    first = archive.unpack(path)
    (first / "mark").touch()
    assert (archive.unpack(path) / "mark").exists()
    other = archive.unpack(pack(tmp_path / "x.zip", {"a.xml": b"1", "b.xml": b"3"}))
    assert other != first
    assert (other / "b.xml").read_bytes() == b"3"
    assert len(list((cache / "htr_lightning" / "archives").iterdir())) == 2  # and nothing half done beside them


@pytest.mark.parametrize("name", ["../out.xml", "a/../../out.xml", "/etc/out.xml", "..\\out.xml", "C:/out.xml"])
def test_a_file_outside_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "x.zip", {"good.xml": b"1", name: b"2"})
    with pytest.raises(InputError, match="a path leads outside the archive"):
        archive.unpack(path)
    assert not list(tmp_path.rglob("out.xml"))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(archive, "ALWAYS", 1_000_000)
    path = pack(tmp_path / "x.zip", {f"{n}.xml": bytes(1_000_000) for n in range(3)})
    with pytest.raises(InputError, match="would unpack to 3 files and 3000000 bytes"):
        archive.unpack(path)
    assert not cache.exists()


def test_a_size_that_the_archive_understates_is_not_exceeded(tmp_path: Path) -> None:
    content = pack(tmp_path / "x.zip", {"a.xml": bytes(10_000_000)}).read_bytes()
    lie = content.replace((10_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    assert lie != content
    (tmp_path / "lie.zip").write_bytes(lie)
    with pytest.raises(InputError, match=r"lie\.zip"):
        archive.unpack(tmp_path / "lie.zip")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    content = pack(tmp_path / "x.zip", {"a.xml": bytes(range(256)) * 40}).read_bytes()
    start = content.index(b"a.xml") + 40
    (tmp_path / "x.zip").write_bytes(content[:start] + b"\xff\xff" + content[start + 2 :])
    with pytest.raises(InputError, match="corrupted"):
        archive.unpack(tmp_path / "x.zip")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(pack(tmp_path / "x.zip", {"a.xml": b"1"}).read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + flags] |= 1
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(InputError, match="encrypted"):
        archive.unpack(tmp_path / "x.zip")


def test_a_file_that_is_no_archive_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="neither a folder nor a zip archive"):
        PageXml(tmp_path / "x.zip")
    with pytest.raises(InputError, match=r"y\.zip: no such folder"):
        PageXml(tmp_path / "y.zip")


def test_an_archive_within_an_archive_stays_packed(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as made:
        made.writestr("b.xml", "2")
    folder = archive.unpack(pack(tmp_path / "x.zip", {"a.xml": b"1", "inner.zip": inner.getvalue()}))
    assert sorted(path.name for path in folder.iterdir()) == ["a.xml", "inner.zip"]


def test_links_and_repeated_names_are_refused_and_nothing_is_unpacked(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("page.xml")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as made:
        made.writestr("page.xml", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("page.xml", "2")
    for name, message in (("link", "contains a symbolic link"), ("twice", "contains 'page.xml' twice")):
        with pytest.raises(InputError, match=message):
            archive.extract(tmp_path / f"{name}.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()
