"""Page images are found by the names in XML files, whatever system wrote them, but only in the data set."""

import os
from pathlib import Path
from unicodedata import normalize

import pytest

from htr_lightning.data.page.image_files import ImageFinder
from htr_lightning.errors import InputError


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def found(root: Path, xml: str, name: str, folder: str | None = None) -> str:
    image = ImageFinder(root, root / folder if folder else None).find(root / xml, name)
    return image.relative_to(root).as_posix()


@pytest.mark.parametrize(
    ("xml", "name", "image"),
    [
        ("p.xml", "scan.jpg", "scan.jpg"),
        ("seg/p.xml", "../img/scan.jpg", "img/scan.jpg"),  # from the XML file
        ("seg/p.xml", "img/scan.jpg", "img/scan.jpg"),  # from the folder of the workspace
        ("book/seg/p.xml", "img/scan.jpg", "book/img/scan.jpg"),
        ("a/b/c/p.xml", "../../../img/scan.jpg", "img/scan.jpg"),
        ("p.xml", "./img/./scan.jpg", "img/scan.jpg"),
        ("seg/p.xml", "..\\img\\scan.jpg", "img/scan.jpg"),
        ("p.xml", "img/my%20scan.jpg", "img/my scan.jpg"),
        ("p.xml", "100%25.jpg", "100%25.jpg"),  # a name as written comes before its decoded form
        ("p.xml", "file://img/scan.jpg", "img/scan.jpg"),
        ("p.xml", "file:///home/x/my%20scan.jpg", "my scan.jpg"),
        ("p.xml", "C:\\scans\\scan.jpg", "scan.jpg"),
        ("p.xml", "/home/x/scan.jpg", "scan.jpg"),
        ("p.xml", "https://example.org/iiif/scan.jpg", "scan.jpg"),
        ("p.xml", "SCAN.JPG", "scan.jpg"),
        ("p.xml", "gone/SCAN.JPG", "scan.jpg"),
        ("p.xml", "", "p.png"),
        ("p.xml", "gone.jpg", "p.png"),
    ],
)
def test_a_name_is_resolved_as_written_and_otherwise_by_its_last_component(
    tmp_path: Path, xml: str, name: str, image: str
) -> None:
    tree(tmp_path, xml, image)
    assert found(tmp_path, xml, name) == image


def test_the_nearest_file_as_written_comes_first(tmp_path: Path) -> None:
    names = ["a/b/img/x.jpg", "a/img/x.jpg", "img/x.jpg", "a/b/x.jpg", "a/b/p.jpg"]
    tree(tmp_path, "a/b/p.xml", *names)
    for name in names:
        assert found(tmp_path, "a/b/p.xml", "img/x.jpg") == name
        (tmp_path / name).unlink()


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_unicode_forms_of_files_and_folders_are_equal(tmp_path: Path, written: str, on_disk: str) -> None:
    tree(tmp_path, "p.xml", normalize(on_disk, "été/nuit é.png"))
    image = ImageFinder(tmp_path).find(tmp_path / "p.xml", normalize(written, "été/nuit é.png"))
    assert image.read_text() == normalize(on_disk, "été/nuit é.png")


def test_names_that_differ_in_case_only_are_different_files(tmp_path: Path) -> None:
    tree(tmp_path, "p.xml", "Scan.png", "scan.png")
    assert found(tmp_path, "p.xml", "scan.png") == "scan.png"
    with pytest.raises(InputError, match=r"no image 'SCAN\.png'"):
        found(tmp_path, "p.xml", "SCAN.png")


@pytest.mark.parametrize(
    "name", ["../secret.png", "seg/../../secret.png", "../../out/secret.png", "..\\secret.png", "%2e%2e/secret.png"]
)
def test_a_name_does_not_lead_outside_the_data_set(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "data/seg/x.png", "data/p.xml", "secret.png", "out/secret.png")
    with pytest.raises(InputError, match=r"no image 'secret\.png' or 'p\.\*' found in .*set data\.reader\.images"):
        found(tmp_path / "data", "p.xml", name)


def test_an_absolute_name_is_not_opened(tmp_path: Path) -> None:
    tree(tmp_path, "secret.png", "data/p.xml")
    with pytest.raises(InputError, match="no image"):
        found(tmp_path / "data", "p.xml", str(tmp_path / "secret.png"))


def test_links_that_people_made_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, "else/scan.png", "data/p.xml")
    (tmp_path / "data/img").symlink_to(tmp_path / "else", target_is_directory=True)
    assert found(tmp_path / "data", "p.xml", "img/scan.png") == "img/scan.png"


def test_without_a_data_set_a_name_may_lead_to_the_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "far.png", "a/scan.png", "a/img/scan.png", "a/page/p.xml")
    monkeypatch.chdir(tmp_path / "a/page")
    for xml in (tmp_path / "a/page/p.xml", Path("p.xml"), Path("../page/p.xml")):
        assert ImageFinder().find(xml, "../scan.png") == tmp_path / "a/scan.png"
        assert ImageFinder().find(xml, "../img/scan.png") == tmp_path / "a/img/scan.png"
        with pytest.raises(InputError, match="put the image there"):
            ImageFinder().find(xml, "../../far.png")


@pytest.mark.parametrize("folder", ["page", "alto", "PAGE", "xml"])
def test_the_image_is_found_above_the_folder_of_an_export(tmp_path: Path, folder: str) -> None:
    tree(tmp_path, f"{folder}/p1.xml", "scan.jpg")
    assert found(tmp_path, f"{folder}/p1.xml", "scan.jpg") == "scan.jpg"
    tree(tmp_path, f"{folder}/p1.png")
    assert found(tmp_path, f"{folder}/p1.xml", "scan.jpg") == f"{folder}/p1.png"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".tif", ".TIFF", ".jp2"])
def test_all_images_may_be_in_one_folder(tmp_path: Path, suffix: str) -> None:
    tree(tmp_path, "xml/p.1.xml", "p.1.png", f"jpg/p.1{suffix}", "jpg/deep/scan.png")
    assert found(tmp_path, "xml/p.1.xml", "gone.jpg", "jpg") == f"jpg/p.1{suffix}"
    assert found(tmp_path, "xml/p.1.xml", "../deep/scan.png", "jpg") == f"jpg/p.1{suffix}"
    assert found(tmp_path, "xml/p.1.xml", "deep/scan.png", "jpg") == "jpg/deep/scan.png"


@pytest.mark.parametrize("name", ["x" * 100_000, "a/" * 5_000, "\0", "..", ".", "/", "~", "file://", "%00", "a\ud800"])
def test_a_name_that_no_file_can_have_is_not_found(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "p1.xml")
    with pytest.raises(InputError, match="no image") as refused:
        found(tmp_path, "p1.xml", name)
    assert len(str(refused.value)) < 1000
    assert "\n" not in str(refused.value)


def test_a_missing_image_is_named_with_all_that_was_tried(tmp_path: Path) -> None:
    tree(tmp_path, "seg/p1.xml")
    with pytest.raises(InputError) as refused:
        found(tmp_path, "seg/p1.xml", "../img/scan.jpg")
    message = str(refused.value)
    assert "no image 'scan.jpg' or 'p1.*' found in" in message
    assert f"nor '../img/scan.jpg' from there up to {tmp_path}" in message
    assert message.endswith("set data.reader.images to the folder of the images")


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, *(f"img/{number}.png" for number in range(50)), *(f"xml/{number}.xml" for number in range(50)))
    finder, listdir = ImageFinder(tmp_path), os.listdir
    listed: list[Path] = []
    monkeypatch.setattr("os.listdir", lambda folder: (listed.append(folder), listdir(folder))[1])
    for number in range(50):
        assert finder.find(tmp_path / f"xml/{number}.xml", f"../img/{number}.png").name == f"{number}.png"
    assert listed == [tmp_path, tmp_path / "img"]
