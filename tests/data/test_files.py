"""Files below a folder are listed once each, whatever links and hidden files surround them."""

import os
from pathlib import Path
from unicodedata import normalize

import pytest

from htr_lightning.data.files import files_below, matches, read_utf8
from htr_lightning.errors import InputError


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def test_files_are_sorted_and_hidden_ones_are_excluded(tmp_path: Path) -> None:
    tree(tmp_path, "b/2.png", "a.png", "b/1.png", "._a.png", ".git/x.png", "b/.ipynb_checkpoints/1.png", "b/.DS_Store")
    assert names(tmp_path) == ["a.png", "b/1.png", "b/2.png"]


def test_a_hidden_root_is_searched(tmp_path: Path) -> None:
    tree(tmp_path, ".cache/a.png")
    assert names(tmp_path / ".cache") == ["a.png"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    tree(tmp_path, "else/where/1.png", "else/2.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "pages").symlink_to(tmp_path / "else/where", target_is_directory=True)
    (root / "2.png").symlink_to(tmp_path / "else/2.png")
    assert names(root) == ["2.png", "pages/1.png"]


def test_pipes_and_devices_are_excluded_and_broken_links_are_not(tmp_path: Path) -> None:
    tree(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, target in {"zero.png": "/dev/zero", "gone.png": "nowhere", "self.png": "self.png"}.items():
        (tmp_path / name).symlink_to(target)
    assert names(tmp_path) == ["a.png", "gone.png", "self.png"]


def test_a_text_is_read_from_a_regular_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    for name in ("pipe.txt", "zero.txt"):
        with pytest.raises(InputError, match=rf"{name}: not a regular file; replace it"):
            read_utf8(tmp_path / name)


def test_a_folder_with_several_paths_is_listed_once_without_its_links(tmp_path: Path) -> None:
    tree(tmp_path, "root/z/1.png", "root/z/deep/2.png", "else/in/3.png")
    root = tmp_path / "root"
    for link, target in {"a": "root/z", "b": "root/z/deep", "c": "else/in", "d": "else"}.items():
        (root / link).symlink_to(tmp_path / target, target_is_directory=True)
    assert names(root) == ["c/3.png", "z/1.png", "z/deep/2.png"]


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_to_a_folder_that_contains_it_is_refused(tmp_path: Path, target: str) -> None:
    tree(tmp_path, "root/in/1.png")
    (tmp_path / "root/in/link").symlink_to(target, target_is_directory=True)
    with pytest.raises(InputError, match="in/link: symbolic link to a folder that contains it"):
        files_below(tmp_path / "root")


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    tree(tmp_path, "root/1.png", "one/1.png", "two/2.png")
    (tmp_path / "root/x").symlink_to(tmp_path / "one", target_is_directory=True)
    (tmp_path / "one/y").symlink_to(tmp_path / "two", target_is_directory=True)
    (tmp_path / "two/z").symlink_to(tmp_path / "one", target_is_directory=True)
    assert names(tmp_path / "root") == ["1.png", "x/1.png", "x/y/2.png"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: cannot be read"):
        files_below(tmp_path / "missing")


@pytest.mark.parametrize(
    "pattern",
    ["*.xml", "**/*.xml", "b/*.xml", "b/**/*.xml", "**/c/*.xml", "**/c/**/*.xml", "*/*.xml", "**/*[!1].xml", "?/c/*",
     "**/1.*", "b/1.xml", "./b/*.xml", "**/b/**/1.xml", "**/**/*.xml", "**/*.b.xml"],
)  # fmt: skip
def test_a_pattern_matches_what_pathlib_finds(tmp_path: Path, pattern: str) -> None:
    tree(
        tmp_path,
        *(f"{folder}{name}" for folder in ("", "b/", "b/c/", "d/c/e/", "b.xml/") for name in ("1.xml", "2.b.xml")),
    )
    files = files_below(tmp_path)
    assert len(files) == 10
    expected = {path for path in tmp_path.glob(pattern) if path.is_file()}
    assert {path for path in files if matches(path.relative_to(tmp_path), pattern)} == expected


def test_a_pattern_matches_endings_in_upper_case_and_any_unicode_form() -> None:
    for name in ("P.XML", "a/b/P.Xml", "p.xml"):
        assert matches(Path(name), "**/*.xml")
    assert not matches(Path("p.xml"), "**/*.XML")
    assert not matches(Path("PAGE/p.xml"), "page/*.xml")  # two folders on most systems
    for form in ("NFC", "NFD"):
        assert matches(Path(normalize(form, "été/é.xml")), normalize("NFC", "été/*é.xml"))
        assert matches(Path(normalize(form, "été/é.xml")), normalize("NFD", "été/*é.xml"))
