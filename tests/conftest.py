"""Fixtures and helpers shared by the tests; importing this module enables type and shape checks at run time."""

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read once, when torch is imported
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # one worker per core
os.environ["WANDB_MODE"] = "offline"
os.environ["SOURCE_DATE_EPOCH"] = "1700000000"  # pages written in two seconds are compared
os.environ["HYDRA_FULL_ERROR"] = "1"  # set by the commands as well: otherwise, Hydra prints errors and exits

import fast

fast.check()

import gc  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402
from xml.sax.saxutils import quoteattr  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hydra import compose  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent))  # train.py is next to the package

import train  # noqa: E402
from htr_lightning import cli, config  # noqa: E402
from htr_lightning.data.preprocess import FitHeight, Preprocess  # noqa: E402
from htr_lightning.data.reader.synthetic import Synthetic  # noqa: E402
from htr_lightning.decoder.ctc import Greedy  # noqa: E402
from htr_lightning.hydra_version import initialize_config_dir, instantiate  # noqa: E402
from htr_lightning.model.ctc import CTCRecognizer  # noqa: E402
from htr_lightning.net.backbone import ResidualBackbone  # noqa: E402
from htr_lightning.net.crnn import CRNN  # noqa: E402
from htr_lightning.text.normalize import Normalizer  # noqa: E402

fast.compose_quickly()
config.offer_experiments()  # as train.py does
settings.register_profile("tests", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("tests")

CONF = Path(__file__).parent.parent / "conf"
ELSEWHERE = {"trocr_pretrained"}  # models whose network is downloaded
MODELS = sorted(
    path.stem
    for path in (CONF / "model").glob("*.yaml")
    if not path.stem.endswith(("_small", "_base"))  # larger models with the same code
    and path.stem not in ELSEWHERE
)
WIDTH, ROW = 240, 40  # width of a drawn page and height of its lines, in pixels


def pytest_collection_finish() -> None:
    fast.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # otherwise, compiled modules report what they leak


def pytest_configure(config: pytest.Config) -> None:
    """Ignore beartype's warnings about deprecated type hints in OmegaConf."""
    old = "beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", f"ignore::{old}")


@pytest.fixture
def htr_data() -> Path:
    """The folder of the real data sets; the test is skipped if HTR_DATA is not set."""
    if not os.environ.get("HTR_DATA"):
        pytest.skip("real data: set HTR_DATA to the folder containing copiste, mnist and samples")
    return Path(os.environ["HTR_DATA"])


@pytest.fixture(scope="module")  # two of them at once are not possible
def browser() -> Iterator[Any]:
    """A headless Chromium; the test is skipped if it or playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def write_page() -> Callable[..., Path]:
    """A function that draws a page with one line per text, and writes its image and its PAGE or ALTO file."""
    return _write_page


def _write_page(folder: Path, texts: Sequence[str] = ("un", "deux"), stem: str = "page", form: str = "PAGE") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    height = ROW * max(1, len(texts))
    image = np.full((height, WIDTH), 230, np.uint8)
    lines = []
    for number, text in enumerate(texts):
        top = number * ROW
        cv2.putText(image, text, (10, top + 28), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 20, 2, cv2.LINE_AA)
        box = f"2,{top + 2} {WIDTH - 2},{top + 2} {WIDTH - 2},{top + ROW - 2} 2,{top + ROW - 2}"
        base = f"2,{top + 30} {WIDTH - 2},{top + 30}"
        if form == "PAGE":
            lines.append(
                f'<TextLine id="l{number}"><Coords points="{box}"/><Baseline points="{base}"/>'
                f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine>"
            )
        else:
            lines.append(
                f'<TextLine ID="l{number}" BASELINE="{base}"><Shape><Polygon POINTS="{box}"/></Shape>'
                f"<String CONTENT={quoteattr(text)}/></TextLine>"
            )
    if form == "PAGE":
        xml = (
            '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">'
            f'<Page imageFilename="{stem}.png" imageWidth="{WIDTH}" imageHeight="{height}">'
            f'<TextRegion id="r1">{"".join(lines)}</TextRegion></Page></PcGts>'
        )
    else:
        xml = (
            '<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Description><MeasurementUnit>pixel</MeasurementUnit>'
            f"<sourceImageInformation><fileName>{stem}.png</fileName></sourceImageInformation></Description><Layout>"
            f'<Page WIDTH="{WIDTH}" HEIGHT="{height}"><PrintSpace><TextBlock ID="b1">{"".join(lines)}'
            "</TextBlock></PrintSpace></Page></Layout></alto>"
        )
    path = folder / f"{stem}.xml"
    path.write_text(xml, encoding="utf-8")
    assert cv2.imwrite(str(folder / f"{stem}.png"), image)
    return path


@pytest.fixture
def make_recognizer() -> Callable[..., CTCRecognizer]:
    """A function that builds a small CRNN recognizer in evaluation mode, with the same weights each time."""
    return _make_recognizer


def _make_recognizer(
    alphabet: str = " abcdeunx", unknown: str = "error", shortcut_weight: float = 0.2, gain: float = 10
) -> CTCRecognizer:
    def net(classes: int) -> CRNN:
        backbone = ResidualBackbone([8, 8, 16], [1, 1, 1], [[1, 1], [2, 2], [2, 1]], stem=8)
        return CRNN(classes, backbone, hidden=16, layers=1)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        recognizer = CTCRecognizer(
            alphabet,
            net,
            Greedy(),
            normalizer=Normalizer(),
            preprocess=FitHeight(32, margin=4),
        ).eval()
    with torch.no_grad():
        for weight in [*recognizer.net.recurrent.parameters(), *recognizer.net.head.parameters()]:
            weight.mul_(gain)  # confident like a trained model, so that transcriptions of different lines differ
    return recognizer


SMALL = [
    "data.reader.lines={train: 48, val: 16, test: 24}",
    "data.reader.writers={train: 8, val: 2, test: 3}",
    "data.reader.length=[1, 2]",
    "data.workers=0",
    "threads=1",
    "trainer=default",
    "trainer.max_time=null",
    "trainer.val_check_interval=1.0",
    "trainer.check_val_every_n_epoch=1",
    "trainer.log_every_n_steps=1",
    "logger=csv",
    "data.max_lines=4",
    "model.preprocess.height=32",
    "model.preprocess.x_height=9.6",
    "model.preprocess.width_scale=1.0",
    "model.net.width=24",
    "model.net.hidden=16",
    "model.net.backbone.stem=8",
    "model.net.backbone.channels=[8, 8, 16]",
]  # a run that takes seconds
RUN = [*SMALL, "data.reader.lines={train: 96, val: 16, test: 24}", "data.max_lines=8"]  # that of `run_folder`
MEASURED = [override for override in SMALL if "preprocess" not in override]  # the resolution is chosen from the lines


def drawn_lines(split: str, lines: int = 24) -> Synthetic:
    """Return synthetic lines of a split; `lines` is the number of training lines."""
    return Synthetic(split, {"train": lines, "val": 11, "test": 5}, {"train": 4, "val": 2, "test": 2})


class Network(NamedTuple):
    """The network of a model config, with random weights and in evaluation mode, and its preprocessing."""

    net: nn.Module
    preprocess: Preprocess
    lines: bool  # whether it reads lines rather than single characters

    def ink(self, widths: Sequence[int], columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch of random images with the given widths, padded to `columns`."""
        height = self.preprocess(np.full((64, 64), 255, np.uint8)).shape[0]
        images = torch.zeros(len(widths), 1, height, columns)
        for row, width in enumerate(widths):
            images[row, :, :, :width] = torch.rand(1, height, width)
        return images, torch.tensor(widths)


def shaken(net: nn.Module) -> nn.Module:
    """Set batch norms far from zero mean and unit variance, as after training, and return the network."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.5)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, 0, 0.5)
    return net


def network(model: str, classes: int = 7) -> Network:
    """Build the network of `conf/model/MODEL.yaml`, with batch norms far from zero mean and unit variance."""
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", f"model={model}"]).model
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = instantiate(config.net, _convert_="all")(classes).eval()
        shaken(net)
    return Network(net, instantiate(config.preprocess), not config._target_.endswith("Classifier"))


class Outcome(NamedTuple):
    """The exit code and output of a command."""

    code: int
    stdout: str
    stderr: str


def run_train(folder: Path, *overrides: str) -> Path:
    """Run `train.py` with overrides in this process, and return the run folder."""
    sys.argv = ["train.py", *overrides, f"hydra.run.dir={folder}"]
    train.train()
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A single thread, since processes that are forked lack the others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the default recipe with a small network and little data."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    argv = list(sys.argv)
    try:
        overrides = [override for override in RUN if "preprocess" not in override]
        more = ["logger=wandb", "trainer.max_epochs=2", "optimizer.lr=2e-3"]
        return run_train(folder, *overrides, *more)  # reads something, if badly
    finally:
        sys.argv = argv


@pytest.fixture(scope="session")
def best(run_folder: Path) -> Path:
    """The best checkpoint in `run_folder`."""
    return run_folder / "checkpoints" / "best.ckpt"


@pytest.fixture(scope="session")
def fast_exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports that take a second, once a network has been traced."""
    folder = tmp_path_factory.getbasetemp()
    with fast.exports(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder):
        yield


@pytest.fixture
def line_image(tmp_path: Path) -> Path:
    """The path to a PNG image of a synthetic line."""
    path = tmp_path / "line.png"
    Image.fromarray(Synthetic("test", {"test": 4}, {"test": 2})[1].image).save(path)
    return path


@pytest.fixture
def htr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """A function that runs `htr` in this process and returns its exit code, stdout and stderr."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["htr", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.app()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        return Outcome(code, *capsys.readouterr())

    return call
