"""Repositories of HTR-United: where they come from, their terms, their splits."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from hydra import compose

from htr_lightning.data import download
from htr_lightning.data import htr_united as module
from htr_lightning.data.htr_united import KNOWN, fetch, terms
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError
from htr_lightning.hydra_version import initialize_config_dir, instantiate

CATALOGUE = """schema: https://htr-united.github.io/schema/2021-10-15/schema.json
title: CREMMA Manuscrits du 20e
url: https://github.com/HTR-United/CREMMA-MSS-20
authors:
- name: "Cl\\xE9rice"
  surname: Thibault
- name: "Chagu\\xE9"
  surname: Alix
license:
- name: CC-BY 4.0
  url: https://creativecommons.org/licenses/by/4.0/
"""
SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str | None]]:
    """What would be downloaded: url and digest; the folder is tmp_path/repo."""
    calls = []

    def archive(url: str, name: str, files: str, digest: str | None) -> Path:
        calls.append((url, digest))
        return tmp_path / "repo"

    monkeypatch.setattr(download, "archive", archive)
    module._print_terms.cache_clear()
    return calls


def test_a_known_repository_is_downloaded_at_its_commit_and_its_terms_are_printed(
    tmp_path: Path, write_page, fetched: list, capsys: pytest.CaptureFixture[str]
) -> None:
    for stem in "abcd":
        write_page(tmp_path / "repo" / "data", [stem], stem)
    (tmp_path / "repo" / "htr-united.yml").write_text(CATALOGUE)
    repo = "HTR-United/CREMMA-MSS-20"
    readers = [PageXml(fetch=fetch, repo=repo, split=split, splits=SHARES) for split in ("train", "val", "test")]
    revision, digest = KNOWN["HTR-United/CREMMA-MSS-20"]
    assert fetched == [(f"https://github.com/HTR-United/CREMMA-MSS-20/archive/{revision}.zip", digest)] * 3
    assert sorted(text for reader in readers for text in reader.texts) == list("abcd")
    assert [len(reader) for reader in readers] == [2, 1, 1]
    assert all(id.startswith("CREMMA-MSS-20/") for reader in readers for id in reader.ids)
    assert capsys.readouterr().err.splitlines() == [  # once, not once a split
        "HTR-United/CREMMA-MSS-20: licence CC-BY 4.0 (https://creativecommons.org/licenses/by/4.0/)",
        "HTR-United/CREMMA-MSS-20: cite Clérice Thibault, Chagué Alix: CREMMA Manuscrits du 20e. "
        "https://github.com/HTR-United/CREMMA-MSS-20",
    ]


def test_any_repository_is_downloaded_at_a_commit_that_is_named(tmp_path: Path, write_page, fetched: list) -> None:
    write_page(tmp_path / "repo")
    PageXml(fetch=partial(fetch, revision="0123abc"), repo="someone/letters")
    assert fetched == [("https://github.com/someone/letters/archive/0123abc.zip", None)]
    with pytest.raises(
        InputError,
        match=r"fetch\.revision is not set; set it to a commit of someone/letters.*github\.com/someone/letters",
    ):
        PageXml(fetch=fetch, repo="someone/letters")
    with pytest.raises(InputError, match=r"data\.repo is not set"):
        PageXml(fetch=fetch)


@pytest.mark.parametrize("revision", ["main", "v1.0", "", "0123ABC", "0123abc/../x"])
def test_a_revision_that_may_move_is_refused(fetched: list, revision: str) -> None:
    with pytest.raises(InputError, match=r"data\.reader\.fetch\.revision is not a commit"):
        download.repository("someone/letters", revision)
    assert not fetched


@pytest.mark.parametrize("repo", ["letters", "https://github.com/someone/letters", "a/b/c", "", "a/ b"])
def test_a_repository_of_another_form_is_refused(fetched: list, repo: str) -> None:
    with pytest.raises(InputError, match=r"data\.repo=.*OWNER/NAME"):
        download.repository(repo, "0123abc")
    assert not fetched


def test_a_digest_is_checked_only_for_the_commit_it_was_made_of(fetched: list, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(KNOWN, "a/b", ("0123abc", "digest"))
    (tmp_path / "repo").mkdir()
    for revision in (None, "0123abc", "4567def"):
        with pytest.raises(InputError, match="no file matches"):
            PageXml(fetch=partial(fetch, revision=revision), repo="a/b")
    assert [digest for _, digest in fetched] == ["digest", "digest", None]


def test_terms_come_from_whatever_file_states_them(tmp_path: Path) -> None:
    assert terms(tmp_path, "a") == "a: licence not stated; ask the authors\na: cite a."
    assert terms(tmp_path, "a", "https://a.org") == "a: licence not stated; ask the authors\na: cite a. https://a.org"
    (tmp_path / "LICENSE").write_text("\n# Attribution 4.0 International\n\n====")
    assert "licence Attribution 4.0 International\n" in terms(tmp_path, "a/b")
    (tmp_path / "CITATION.cff").write_text(
        "title: Letters\nlicense: CC-BY-4.0\ndoi: 10.5281/zenodo.1\nauthors:\n- family-names: Doe\n  given-names: Jo\n"
        "- name: An Archive\n"
    )
    assert terms(tmp_path, "a/b") == "a/b: licence CC-BY-4.0\na/b: cite Jo Doe, An Archive: Letters. 10.5281/zenodo.1"


@pytest.mark.parametrize("name", ["htr-united.yml", "HTR-United.yaml", "METADATA.yml"])
def test_a_folder_is_attributed_to_its_own_authors_only(
    tmp_path: Path, write_page, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    module._print_terms.cache_clear()
    folder = tmp_path / "letters"
    write_page(folder, ["un"], "a")
    repo = "HTR-United/CREMMA-MSS-20"  # the default of conf/data/htr_united.yaml
    assert PageXml(folder, fetch, repo).ids == ["letters/a/l0"]
    assert capsys.readouterr().err.splitlines() == [
        "letters: licence not stated; ask the authors",
        "letters: cite letters.",
    ]
    module._print_terms.cache_clear()
    (folder / name).write_text("title: Lettres\nauthors: {name: Jo, surname: Doe}\nlicense: {name: CC0, url: u}\n")
    PageXml(folder, fetch, repo)
    assert capsys.readouterr().err.splitlines() == [
        "letters: licence CC0 (u)",
        "letters: cite Jo Doe: Lettres.",
    ]


def test_the_current_folder_has_its_name(tmp_path: Path, write_page, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(tmp_path / "letters", ["un"], "a")
    monkeypatch.chdir(tmp_path / "letters")
    assert PageXml(".").ids == ["letters/a/l0"]


def test_a_zip_archive_is_attributed_to_what_it_contains(
    tmp_path: Path, write_page, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache")
    write_page(tmp_path / "repo-main" / "data", ["un"], "a")
    (tmp_path / "repo-main" / "htr-united.yml").write_text("license: CC0")
    archive = shutil.make_archive(str(tmp_path / "letters"), "zip", tmp_path, "repo-main")
    assert PageXml(archive, fetch, "HTR-United/CREMMA-MSS-20").ids == ["letters/a/l0"]
    assert capsys.readouterr().err.splitlines()[0] == "letters: licence CC0"


VALUES = [
    "5",
    "null",
    "true",
    "1.5",
    "2024-01-01",
    "[]",
    "{}",
    "[5, [a], {b: c}]",
    "{a: b}",
    "{name: [x], url: 3}",
    "''",
]


@pytest.mark.parametrize("content", ["- a list", "just text", "", *(
    f"{key}: {value}" for key in ("title", "license", "authors", "url", "doi") for value in VALUES
)])  # fmt: skip
@pytest.mark.parametrize("name", ["htr-united.yml", "CITATION.cff"])
def test_a_value_of_another_type_states_nothing(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    licence, citation = terms(tmp_path, "a/b").split("\n")
    assert licence in ("a/b: licence not stated; ask the authors", "a/b: licence 5", "a/b: licence 3")
    assert citation.startswith("a/b: cite ")
    assert not set("[]{}") & set(licence + citation)


def test_texts_are_printed_on_one_line_of_reasonable_length(tmp_path: Path) -> None:
    bad = "\\e[2J\\x07\\u202E\\nfake: licence CC0 " + "x y" * 5_000
    people = "".join(f'- name: "{bad}"\n  surname: "{bad}"\n' for _ in range(3)) + "- x\n" * 20
    (tmp_path / "htr-united.yml").write_text(f'title: "{bad}"\nlicense: "{bad}"\nauthors:\n{people}')
    found = terms(tmp_path, "a/b")
    assert found.count("\n") == 1
    assert len(found) < 4_000
    assert found.replace("\n", "").isprintable()
    assert "and 13 others" in found
    (tmp_path / "htr-united.yml").unlink()
    (tmp_path / "LICENSE").write_bytes(b"\x1b[2J\0" * 10_000_000)
    assert len(terms(tmp_path, "a/b")) < 4_000
    assert terms(tmp_path, "a/b").replace("\n", "").isprintable()


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\xff", b"[" * 5_000, b"a: &a [*a]", b"!!timestamp x"])
@pytest.mark.parametrize("name", ["htr-united.yml", "CITATION.cff"])
def test_a_catalogue_entry_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: invalid YAML"):
        terms(tmp_path, "a/b")


def test_cremma_is_read_from_its_folder_by_pages_or_documents(htr_data: Path, tmp_path: Path) -> None:
    root = htr_data / "samples" / "cremma_mss20"
    shares = {"train": 0.8, "val": 0.1, "test": 0.1}
    readers = [PageXml(root, fetch, split=split, splits=shares, preload=False) for split in shares]
    assert sum(map(len, readers)) == 224  # as the repository's catalogue entry says
    groups = [set(reader.groups) for reader in readers]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 13
    by_document = PageXml(root, fetch, group="(.+)/", preload=False)
    assert sorted(set(by_document.groups)) == [
        "data/Lettre_de_ETessier_a_G-VTessier",
        "data/brouillons-badinter-discours-peine-de-mort",
    ]
    with pytest.raises(InputError, match=r"at least 3 groups, .*, got 2"):
        PageXml(root, fetch, split="train", splits=shares, group="(.+)/")
    with pytest.raises(InputError, match="no such folder"):
        PageXml(tmp_path / "nowhere", fetch)


def test_the_config_passes_repository_and_revision_to_the_download(fetched: list, tmp_path: Path, write_page) -> None:
    for stem in "abc":
        write_page(tmp_path / "repo", [stem], stem)
    with initialize_config_dir(str(Path(__file__).parent.parent.parent / "conf")):
        overrides = ["data=htr_united", "data.repo=someone/letters", "data.reader.fetch.revision=0123abc"]
        config = compose("train", overrides=["run_dir=x", "name=x", *overrides])
    data = instantiate(config.data, _convert_="all")
    assert sorted(text for split in ("train", "val", "test") for text in data.lines(split).texts) == list("abc")
    assert {url for url, _ in fetched} == {"https://github.com/someone/letters/archive/0123abc.zip"}
