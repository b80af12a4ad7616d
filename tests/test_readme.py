"""Every command of the README and the documentation runs, and the Chinese pages have the same ones."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import cv2
import jaxtyping
import numpy as np
import pyarrow
import pytest
from casia_files import write_characters, write_lines
from conftest import RUN, SMALL, Outcome, run_train
from data.iam_tree import made_up_forms, write_tree
from font_files import write_chinese
from mnist_files import write as write_mnist
from PIL import Image
from pyarrow import parquet
from serve.conftest import running

import htr_lightning
from htr_lightning import checkpoint
from htr_lightning.adapt import feedback
from htr_lightning.data.corrected import Correction
from htr_lightning.data.corrections import CorrectionStore, Event
from htr_lightning.data.files import file_hash
from htr_lightning.data.reader.iam_splits import AACHEN_LINES
from htr_lightning.export.build import export
from htr_lightning.pretrained import locate

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(DOCS.glob("*.md")))}
CHINESE = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.zh-CN.md", *(DOCS / "zh").glob("*.md"))}
COMPONENTS = [
    DOCS / f"new-{kind}.md" for kind in ("model", "reader", "decoder")
]  # whose files are there only in a test


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


COMMANDS = list(dict.fromkeys(c for path, text in PAGES.items() if path not in COMPONENTS for c in commands(text)))
SEVERAL = [c for c in COMMANDS if " -m " in c or "devices=2" in c]
TRAIN = [c for c in COMMANDS if c.startswith("python train.py") and c not in SEVERAL]
SERVE = [c for c in COMMANDS if c.startswith("htr serve")]
HTR = [c for c in COMMANDS if c.startswith("htr ") and c not in SERVE]
MAKE = [c for c in COMMANDS if c.startswith("make ")]


LONG = (  # a minute each, or a network for a GPU
    "--lexicon", "synthetic_pretrain", "vit_ctc_small", "label-errors", "feedback train", "copiste_crnn", "iam_crnn",
    "autoregressive_beam",
)  # fmt: skip


def marked(several: list[str]) -> list[Any]:
    return [pytest.param(c, marks=pytest.mark.slow) if any(w in c for w in LONG) else c for c in several]


def test_every_command_is_of_a_kind_that_is_run_below() -> None:
    assert sorted(SEVERAL + TRAIN + HTR + SERVE + MAKE) == sorted(COMMANDS)
    assert len(COMMANDS) > 10


def test_both_languages_have_the_same_commands_and_code() -> None:
    for path, text in CHINESE.items():
        english = PAGES[ROOT / "README.md" if path.parent == ROOT else DOCS / path.name]
        for language in ("sh", "python"):
            assert blocks(text, language) == blocks(english, language), path


def test_no_placeholder_is_left() -> None:
    for path, text in (PAGES | CHINESE).items():
        assert not re.search(r"@[A-Z_]+@", text), path


def test_every_file_and_heading_that_a_page_names_exists() -> None:
    for path, text in (PAGES | CHINESE).items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            if name.startswith(("http", "reference/")):
                continue  # the second are made by `make docs`, which checks them
            linked = (path.parent / name).resolve() if name else path
            assert linked.exists(), f"{path}: {target}"
            for included in re.findall(r"{include} (\S+)", linked.read_text(encoding="utf-8")) if anchor else ():
                linked = linked.parent / included
            if anchor:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
                assert anchor in [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings], target


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_the_target(command: str) -> None:
    subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, check=True, capture_output=True)


FEW_DRAWN = ["data.reader.lines={train: 16, val: 4, test: 4}", *SMALL[1:4]]
FEW = {"wikitexte_0007": "train", "wikitexte_0092": "val", "wikitexte_0210": "test"}  # pages of Copiste


@pytest.fixture
def few_lines(htr_data: Path, tmp_path: Path) -> Path:
    """A folder with `copiste`: a page of real handwriting for each split, with its first five lines."""
    real, few = htr_data / "copiste", tmp_path / "copiste"
    (few / "alto").mkdir(parents=True)
    (few / "jpg").symlink_to(real / "jpg")
    for stem in FEW:
        parts = re.split("(?s)(<TextLine.*?</TextLine>)", (real / "alto" / f"{stem}.xml").read_text(encoding="utf-8"))
        page = "".join(part for number, part in enumerate(parts) if number % 2 == 0 or number < 10)
        (few / "alto" / f"{stem}.xml").write_text(page, encoding="utf-8")
    return tmp_path


@pytest.fixture
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], tuple[list[str], list[str]]]:
    """A command's words with DATA and RUN filled in, and the overrides that make it short."""

    def fill(command: str) -> tuple[list[str], list[str]]:
        short = [
            "trainer.max_steps=2",
            "trainer.max_time=null",
            "trainer.devices=1",
            "trainer.strategy=auto",
            "logger=csv",
            "data.max_lines=2",
        ]
        if "trainer=gpu" in command:
            short += ["trainer.accelerator=cpu"]
        if "copiste" in command:
            folder = request.getfixturevalue("few_lines")
            (tmp_path / "few.tsv").write_text("\n".join(["page\tsplit", *map("\t".join, FEW.items())]))
            splits = f"data.reader.splits={tmp_path}/few.tsv"
            short += [splits, "data.workers=0", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
            if "data.pack=" in command:
                packed = f"pack data=copiste data.root={folder}/copiste {splits} --out {tmp_path}/copiste.htr"
                assert request.getfixturevalue("htr")(*packed.split()).code == 0
                command = command.replace("copiste.htr", f"{tmp_path}/copiste.htr")
        elif "data=htr_united" in command:
            folder = request.getfixturevalue("htr_data")
            short += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
            short += ["data.subset=[0,16]", "data.measured_lines=8"]
        elif made := next(
            (name for name in MAKERS if f"data={name}" in command or f"experiment={name}" in command), None
        ):
            folder = tmp_path
            MAKERS[made](tmp_path)
            short += ["data.workers=0", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
            short += {
                "iam_crnn": ["data.subset=[0, 32]", "data.cache_mb=0"], "synthetic_chinese": FEW_DRAWN[:1],
                "mnist": ["data.reader.val_size=5"], "seed_mlp": ["data.reader.val_size=5"],
            }.get(made, [])  # fmt: skip
        else:
            folder = tmp_path
            if "data=page_xml" in command:
                (tmp_path / "pages").mkdir()
                for name in ("a", "b", "c"):
                    _page(tmp_path / "pages", name)
                (tmp_path / "pages" / "splits.tsv").write_text("page\tsplit\na\ttrain\nb\tval\nc\ttest\n")
                short += ["data.workers=0"]
            else:
                short += FEW_DRAWN
        command = command.replace("DATA", str(folder))
        if "corrected.tsv" in command:
            (tmp_path / "corrected.tsv").write_text("id\ttext\nnone\tof the lines\n")
            command = command.replace("errors/corrected.tsv", f"{tmp_path}/corrected.tsv")
        if "fine-tune" in command:
            short += [f"hydra.run.dir={tmp_path}/tuned"]
        if "RUN" in command:
            command = command.replace("RUN/", f"{request.getfixturevalue('run_folder')}/")
            if "fine-tune" in command:
                return shlex.split(command), short
            net = [override for override in SMALL if override.startswith("model.")]
            if "copiste" in command:
                short += net
            else:
                short = [*RUN, "trainer.max_epochs=3"] if command.startswith("python") else []
        return shlex.split(command), short

    return fill


def _folder(root: Path, name: str = "lines") -> None:
    (root / name).mkdir(parents=True)
    for number in range(6):
        _page(root / name, f"line{number}").unlink()
        (root / name / f"line{number}.gt.txt").write_text("mimi")


def _hub(root: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 200), dtype=np.uint8)).save(root / "image.png")
    image = {"bytes": (root / "image.png").read_bytes(), "path": None}
    (root / "hub").mkdir()
    for split in ("train", "validation", "test"):
        parquet.write_table(
            pyarrow.table({"image": [image] * 3, "text": ["mimi"] * 3}), root / "hub" / f"{split}.parquet"
        )


MAKERS: dict[str, Callable[[Path], object]] = {
    "mnist": lambda root: write_mnist(root / "mnist"),
    "seed_mlp": lambda root: write_mnist(root / "mnist"),
    "iam_crnn": lambda root: write_tree(root / "iam", made_up_forms(), AACHEN_LINES),
    "casia_characters": lambda root: write_characters(root / "hwdb1", "啊阿埃", writers=8),
    "casia_lines": lambda root: write_lines(root / "hwdb2", "啊阿埃", writers=8),
    "huggingface": _hub,
    "folder": _folder,
    "synthetic_chinese": write_chinese,
}


def _corrections(root: Path, versions: object) -> None:
    store = CorrectionStore(root / "corrections.db", create=True)
    rng = np.random.default_rng(0)
    store.add(
        [Correction(rng.integers(0, 256, (40, 200), dtype=np.uint8), "mimi", source=f"{n % 9}") for n in range(30)]
    )
    for event in (Event(0, "", "", "start", 0, None, file_hash(locate("digits")), 0, "", {}),) if versions else ():
        feedback._make_version(store, event, locate("digits"), 0)
        promoted = event._replace(kind="promoted", version=1, parent=0)
        feedback._make_version(store, promoted, locate("digits"), 1)


def _page(folder: Path, name: str) -> Path:
    pixels = np.full((60, 300), 235 - ord(name[0]) % 16, np.uint8)  # a different image for each page
    pixels[20:40, 20:280:9] = 30
    Image.fromarray(pixels).save(folder / f"{name}.png")
    path = folder / f"{name}.xml"
    path.write_text(
        '<PcGts><Page imageWidth="300" imageHeight="60"><TextRegion id="r"><TextLine id="l"><Coords points="5,5 295,5 '
        '295,55 5,55"/><TextEquiv><Unicode>mimi</Unicode></TextEquiv></TextLine></TextRegion></Page></PcGts>'
    )
    return path


@pytest.mark.filterwarnings("ignore:.*use a network with a smaller stride")  # crowded lines
@pytest.mark.parametrize("command", marked(TRAIN))
def test_train(command: str, data: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, short = data(command)
    if "--cfg" in words:
        sys.argv = words[1:]
        import train

        train.train()
        assert "max_time" in capsys.readouterr().out
        return
    run = run_train(tmp_path / "run", *words[2:], *short)
    assert (run / "summary.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", SEVERAL)
def test_train_on_several(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)[2:]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, *SMALL, "trainer.max_epochs=1",
         *["hydra.sweeper.n_trials=2"] * ("optuna" in command)],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").rglob("summary.json"))) == (2 if " -m " in command else 1)


@pytest.fixture(scope="module")
def exported(fast_exports: None, best: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        path.write_bytes(export(best, checkpoint.load(best), "onnx"))
    return path


@pytest.mark.parametrize("command", marked(HTR))
def test_htr(
    command: str, data: Callable, htr: Callable[..., Outcome], line_image: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    words, short = data(command)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more").mkdir()
    (tmp_path / "pages").mkdir(exist_ok=True)
    for name in ("other", "third"):
        Image.open(line_image).save(tmp_path / "more" / f"{name}.jpg")
    shutil.copy(line_image, tmp_path / "pages" / "line.png")
    seven = cv2.putText(np.full((60, 60), 230, np.uint8), "7", (15, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 30, 4)
    Image.fromarray(seven).save(tmp_path / "digit.png")
    _page(tmp_path, "page")
    _page(tmp_path / "pages", "page")
    if "replay.root=pseudo/" in words:
        _folder(tmp_path / "pseudo", "train")
    if "a.ckpt" in words:
        best = request.getfixturevalue("best")
        for name in ("a.ckpt", "b.ckpt"):
            shutil.copy(best, tmp_path / name)
    if "benchmark" in words:
        shutil.copytree(ROOT / "experiments", tmp_path / "experiments")  # with its results: nothing is measured
    if "compare" in words:
        (tmp_path / "OTHER").mkdir()
        for name in ("predictions.jsonl", "summary.json"):
            shutil.copy(request.getfixturevalue("run_folder") / name, tmp_path / "OTHER")
    if "export" in words:
        request.getfixturevalue("fast_exports")
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # sizes are symbols while a network is traced
    elif "model.onnx" in words:
        shutil.copy(request.getfixturevalue("exported"), tmp_path / "model.onnx")
    given = (
        short
        if {"fine-tune", "label-errors"} & {*words}
        else [one for one in short if one.startswith("data.reader.splits")]
    )
    if "--exported" in words:
        for name, text in (("pages", "mini"), ("corrected", "mimi")):
            page = _page(tmp_path / "pages", "page")
            page.write_text(page.read_text().replace("mimi", text))
            shutil.make_archive(str(tmp_path / name), "zip", tmp_path / "pages")
    if "feedback" in words:
        _corrections(tmp_path, versions={"versions", "rollback"} & {*words})
        if "train" in words:
            _folder(tmp_path / "old", "train")
            _folder(tmp_path / "old", "val")
            given += ["trainer.max_steps=2", "logger=csv", "--recognizer", str(request.getfixturevalue("best"))]
    if "int8" in words:
        given += ["--budget", "100"]  # the interval of a few lines is wide
    outcome = htr(*words[1:], *given)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout.strip()


@pytest.mark.parametrize("command", SERVE)
def test_serve(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with running(*shlex.split(command)[2:]) as (process, port):
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            assert json.load(answer)["status"] == "ok"
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.filterwarnings("ignore:.*use a network with a smaller stride")  # crowded lines
@pytest.mark.parametrize("page", COMPONENTS, ids=lambda page: page.stem)
def test_component(page: Path, line_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files on a page make a component that is trained, and whose checkpoint is read."""
    files = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for name, code in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
        if name.startswith("htr_lightning/"):
            package = import_module(str(Path(name).parent).replace("/", "."))
            monkeypatch.setattr(package, "__path__", [*package.__path__, str((tmp_path / name).parent)])
    for name, code in files:
        scope: dict[str, Any] = {}
        exec(code if name.startswith("tests/") else "", scope)
        for test in [one for key, one in scope.items() if key.startswith("test_")]:
            (tmp_path / test.__name__).mkdir()
            test(*[tmp_path / test.__name__] * test.__code__.co_argcount)
    (command,) = commands(PAGES[page])
    short = [*SMALL[3:10], "trainer.max_steps=2", "logger=csv", "model.net.width=24"]
    short += SMALL[:3] if "data=synthetic" in command else []
    if page.stem == "new-reader":
        for number, split in enumerate(("train", "val", "test")):
            (tmp_path / "boxes" / split).mkdir(parents=True)
            _page(tmp_path / "boxes" / split, "abc"[number])
            lines = [{"box": [5, 5, 295, 55], "text": "mimi"}]
            described = {"image": f"{'abc'[number]}.png", "writer": split, "lines": lines}
            (tmp_path / "boxes" / split / "a.json").write_text(json.dumps(described))
    words = shlex.split(command.replace("DATA", str(tmp_path)))[2:]
    run = run_train(tmp_path / "run", f"--config-dir={tmp_path / 'conf'}", *words, *short)
    reader = htr_lightning.load(run / "checkpoints" / "best.ckpt")
    assert reader.read(line_image).confidence >= 0
    card = json.dumps(reader.transcriber.card)
    assert any(f"{Path(name).stem}." in card for name, _ in files if name.startswith("htr_lightning/"))


CODE = list(dict.fromkeys(c for path, text in PAGES.items() if path not in COMPONENTS for c in blocks(text, "python")))


@pytest.mark.parametrize("code", CODE)
def test_python(
    code: str, run_folder: Path, line_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert line_image.parent == tmp_path
    _page(tmp_path, "page")
    scope: dict = {}
    exec(code.replace("RUN", str(run_folder)), scope)
    assert isinstance(scope["reader"], htr_lightning.Reader)
    if "line" in scope:
        assert scope["line"].error is None
        assert 0 <= scope["line"].transcription.confidence <= 1
    assert capsys.readouterr().out


def test_python_is_in_the_readme() -> None:
    assert len(blocks(PAGES[ROOT / "README.md"], "python")) == 1
    assert len(CODE) == 2
