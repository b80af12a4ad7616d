"""`htr audit`: the page, the data, the exit code; and a corrupted copy of real pages in which every fault is found."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from corrupt import Spoiler

from htr_lightning.data import download
from htr_lightning.data.preprocess import FitHeight
from htr_lightning.data.reader.page_xml import PageXml
from htr_lightning.errors import InputError

SMALL = [
    "data.reader.lines={train: 150, val: 30, test: 30}",
    "data.reader.writers={train: 8, val: 2, test: 3}",
    "data.reader.length=[1, 2]",
]


@pytest.fixture
def pages(tmp_path: Path, write_page: Callable[..., Path]) -> Path:
    """A small set of pages without a fault."""
    texts = [" ".join(words) for words in permutations(("un", "mot", "rare"))]
    for stem, first in (("a", 0), ("b", 3)):
        write_page(tmp_path / "pages", texts[first : first + 3], stem)
    write_page(tmp_path / "pages", ["un mot", "rare mot"], "c")
    write_page(tmp_path / "pages", ["mot rare", "rare un"], "d")
    rows = "page\tsplit\na\ttrain\nb\ttrain\nc\tval\nd\ttest\n"
    (tmp_path / "pages" / "splits.tsv").write_text(rows, encoding="utf-8")
    return tmp_path / "pages"


def audit(htr: Callable[..., Outcome], folder: Path, *overrides: str) -> tuple[Outcome, dict, str]:
    outcome = htr("audit", *overrides, "--json", folder / "audit.json", "--html", folder / "audit.html")
    data = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return outcome, data, (folder / "audit.html").read_text(encoding="utf-8")


def kinds(data: dict) -> dict[str, str]:
    return {fault["id"]: fault["kind"] for fault in data["faults"]}


class Links(HTMLParser):
    """What a page would fetch, and whether its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_sound_set_gives_its_counts_a_page_and_exit_code_0(htr: Callable[..., Outcome], pages: Path) -> None:
    outcome, data, html = audit(htr, pages.parent, "data=page_xml", f"data.root={pages}")
    assert outcome.code == 0, outcome.stderr + outcome.stdout
    counts = {split: (its["lines"], its["characters"], its["groups"]) for split, its in data["splits"].items()}
    assert counts == {"train": (6, 6 * len("un mot rare"), 2), "val": (2, 14, 1), "test": (2, 15, 1)}
    assert data["alphabet"] == sorted(set("un mot rare"))
    assert not data["faults"]
    assert not data["skipped"]
    assert str(pages.parent / "audit.html") in outcome.stdout
    page = Links()
    page.feed(html)
    assert not page.open
    assert page.sources
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)


def test_what_training_refuses_is_named_to_the_last_and_gives_exit_code_1(
    htr: Callable[..., Outcome], pages: Path
) -> None:
    polygon = re.compile(r'<Coords points="[^"]*"')
    for stem, replace in (
        ("a", lambda text: polygon.sub('<Coords points="2,2 9,9"', re.sub("<Baseline[^>]*>", "", text), count=1)),
        ("b", lambda text: text.replace("mot rare un", " ")),
        ("c", lambda text: text[: len(text) // 2]),
    ):
        path = pages / f"{stem}.xml"
        path.write_text(replace(path.read_text(encoding="utf-8")), encoding="utf-8")
    (pages / "d.png").unlink()
    outcome, data, html = audit(htr, pages.parent, "data=page_xml", f"data.root={pages}")
    assert outcome.code == 1
    found = kinds(data)
    assert found["pages/a/l0"] == "polygon with 2 points"
    assert found["pages/b/l0"] == "line without text"
    assert {found[split] for split in ("val", "test")} == {"unreadable split"}
    assert {"polygon with 2 points", "line without text", "unreadable split"} <= set(data["critical"])
    assert {s["id"] for s in data["skipped"]} == {"pages/a/l0", "pages/b/l0"}
    assert "pages/a/l0" in html


def test_what_the_config_itself_skips_is_named_and_is_not_critical(htr: Callable[..., Outcome], pages: Path) -> None:
    path = pages / "b.xml"
    path.write_text(path.read_text(encoding="utf-8").replace("mot rare un", " "), encoding="utf-8")
    asked = ["data=page_xml", f"data.root={pages}", "data.reader.empty=skip"]
    outcome, data, _ = audit(htr, pages.parent, *asked)
    assert kinds(data) == {"pages/b/l0": "line without text"}
    assert outcome.code == 0


def test_frames_are_those_of_the_model_that_is_named(htr: Callable[..., Outcome], pages: Path) -> None:
    path = pages / "a.xml"
    text = "un mot rare"
    path.write_text(path.read_text(encoding="utf-8").replace(text, " ".join([text] * 12)), encoding="utf-8")
    asked = ["data=page_xml", f"data.root={pages}"]
    outcome, data, _ = audit(htr, pages.parent, *asked)
    assert kinds(data)["pages/a/l0"] == "too few frames for the text"
    assert outcome.code == 1
    finer = ["model.net.backbone.strides=[[1, 1], [2, 1], [2, 1]]", "model.net.backbone.stem_stride=[2, 1]"]
    assert "pages/a/l0" not in kinds(audit(htr, pages.parent, *asked, *finer)[1])
    _, data, _ = audit(htr, pages.parent, *asked, "model=mlp")
    assert kinds(data)["pages/a/l0"] == "too few frames for the text"  # a classifier reads one character


def test_text_in_the_page_is_text(htr: Callable[..., Outcome], pages: Path) -> None:
    path = pages / "a.xml"
    path.write_text(path.read_text(encoding="utf-8").replace("un mot rare", "&lt;script&gt;x &amp;"), encoding="utf-8")
    _, _, html = audit(htr, pages.parent, "data=page_xml", f"data.root={pages}")
    assert "<script>" not in html
    assert "&lt;script&gt;x &amp;" in html


def test_a_name_cannot_control_the_terminal(htr: Callable[..., Outcome], pages: Path) -> None:
    folder = pages.rename(pages.with_name("a\x1b[31m\u202eb[bold]"))
    outcome, _, html = audit(htr, folder.parent, "data=page_xml", f"data.root='{folder}'")
    assert outcome.code == 0, outcome.stderr
    assert "[31m" in outcome.stdout
    assert "b[bold]" in outcome.stdout
    for shown in (outcome.stdout, outcome.stderr, html):
        assert not {"\x1b", "\u202e"} & set(shown)


def test_the_page_shows_an_augmentation(htr: Callable[..., Outcome], tmp_path: Path) -> None:
    pages = []
    for augment in ((), ("--augment", "none"), ("--augment", "strong")):
        few = "data.reader.lines={train: 12, val: 4, test: 4}"
        outcome = htr("audit", "data=synthetic", *SMALL, few, *augment, "--html", tmp_path / "audit.html")
        assert outcome.code == 0, outcome.stderr + outcome.stdout
        pages.append((tmp_path / "audit.html").read_text(encoding="utf-8"))
    sheets = [re.findall(r"augment=.*?(<img[^>]*>)", page, flags=re.DOTALL)[:1] for page in pages]
    assert not sheets[0]
    assert sheets[1] != sheets[2]


def test_the_repository_and_the_pack_that_are_named_are_the_ones_audited(
    htr: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def repository(repo: str, *_: object) -> Path:
        asked.append(repo)
        raise InputError(f"{repo}: not downloaded")

    monkeypatch.setattr(download, "repository", repository)
    assert htr("audit", "data=htr_united", "data.repo=a/b", "data.reader.fetch.revision=abc").code == 1
    assert set(asked) == {"a/b"}
    few = ["data.reader.lines={train: 12, val: 4, test: 4}", *SMALL[1:]]
    assert htr("pack", "data=synthetic", *few, "--out", tmp_path / "lines.htr").code == 0
    more = ["data.reader.lines={train: 9, val: 9, test: 9}", *SMALL[1:], f"data.pack={tmp_path}/lines.htr"]
    data = audit(htr, tmp_path, "data=synthetic", *more)[1]
    assert data["splits"]["train"]["lines"] == 12


def test_recipes_are_audited_also_with_replayed_lines(htr: Callable[..., Outcome], tmp_path: Path) -> None:
    few = ["data.reader.lines={train: 9, val: 3, test: 3}", SMALL[1]]
    _, data, page = audit(htr, tmp_path, "experiment=seed_crnn", *few)
    assert data["splits"]["train"]["lines"] == 9
    assert "seed_crnn" in page
    _, data, _ = audit(htr, tmp_path, "experiment=synthetic_pretrain", "data=synthetic", *few)
    assert data["splits"]["train"]["lines"] == 9


def titles(page: str) -> list[str]:
    return re.findall(r"<(?:title|h1)>(.*?)</(?:title|h1)>", page)


def test_the_title_names_the_config_and_the_folder(
    htr: Callable[..., Outcome], pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pages.parent)
    outcome, _, page = audit(htr, pages.parent, "data=page_xml", "data.root=pages")
    assert titles(page) == [f"Audit of page_xml in {pages}"] * 2
    assert f"page_xml in {pages}" in outcome.stdout


def test_drawn_lines_are_called_so(htr: Callable[..., Outcome], tmp_path: Path) -> None:
    few = ["data.reader.lines={train: 9, val: 3, test: 3}", SMALL[1]]
    for overrides, name in ((["data=synthetic"], "synthetic"), (["experiment=seed_crnn"], "seed_crnn")):
        outcome, _, page = audit(htr, tmp_path, *overrides, *few)
        assert titles(page) == [f"Audit of {name}: synthetic lines, not scans"] * 2
        assert "synthetic lines" in outcome.stdout


def test_sizes_are_those_of_the_scans(htr: Callable[..., Outcome], pages: Path) -> None:
    for path in pages.glob("*.xml"):
        text = path.read_text(encoding="utf-8")
        width, height = (int(re.search(f'image{side}="([0-9]+)"', text)[1]) for side in ("Width", "Height"))
        box = f'<Coords points="0,0 {width},0 {width},{height} 0,{height}"'
        path.write_text(re.sub(r'<Coords points="[^"]*"', box, text), encoding="utf-8")
    _, data, _ = audit(htr, pages.parent, "data=page_xml", f"data.root={pages}")
    for split, its in data["splits"].items():
        heights = [sample.image.shape[0] for sample in PageXml(pages, splits="splits.tsv", split=split)]
        assert max(heights) > FitHeight(32).max_rows  # what a model reduces
        assert its["quantiles"]["height"] == np.quantile(heights, (0, 0.05, 0.5, 0.95, 1)).round(4).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no data set specified"),
        (["model=mlp", "data.root=."], "no data set specified"),
        (["data=nothing"], "nothing"),
        (["data=page_xml"], "data.root is not set"),
        (["data=synthetic", "--augment", "nothing"], "nothing"),
        (["data=synthetic", "--html", "/dev/null/audit.html"], "choose another"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(
    htr: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = htr("audit", *arguments)
    assert outcome.code == 1
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_fault_planted_in_copiste_is_named_and_hardly_a_line_besides(
    htr: Callable[..., Outcome], htr_data: Path, tmp_path: Path
) -> None:
    spoiler = Spoiler(htr_data / "copiste", tmp_path / "spoilt")
    planted = spoiler.spoil()
    assert len(planted) >= 30
    assert len({fault.what for fault in planted}) >= 12
    asked = ["data=copiste", f"data.root={tmp_path}/spoilt", "data.reader.splits=spoilt.tsv"]
    outcome, data, html = audit(htr, tmp_path, *asked)
    assert outcome.code == 1
    named: dict[str, set[str]] = {}
    for fault in data["faults"]:
        named.setdefault(fault["id"], set()).add(fault["kind"])
    for fault in planted:
        for id in fault.ids:
            assert any(kind in named.get(id, ()) for kind in fault.kinds), (fault.what, id, named.get(id))
    spoilt = {"/".join(id.split("/")[:2]) for fault in planted for id in fault.ids}
    besides = {id for id in named if "/" in id and "/".join(id.split("/")[:2]) not in spoilt}
    assert len(besides) <= 0.01 * sum(its["lines"] for its in data["splits"].values())
    assert len(html) < 20_000_000
