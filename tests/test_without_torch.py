"""Transcription with an exported recognizer requires neither torch nor the training frameworks."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
CONTRACT = "What an exported recognizer needs knows no torch"

WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FRAMEWORKS:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, NotInstalled())
"""

IMPORTS = """
from importlib import import_module
from pkgutil import walk_packages

for name in MODULES:
    module = import_module(name)
    for part in walk_packages(getattr(module, "__path__", []), f"{name}."):
        import_module(part.name)
"""

READING = """
from contextlib import contextmanager

import numpy as np

from htr_lightning.data.preprocess import FitHeight
from htr_lightning.decoder.ctc import Greedy
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.ngram import NGram
from htr_lightning.decoder.prefix_beam import PrefixBeam
from htr_lightning.metrics.calibration import Calibration
from htr_lightning.reading.sources import find_sources
from htr_lightning.reading.transcribe import transcribe
from htr_lightning.text.codec import Codec
from htr_lightning.text.normalize import Normalizer
from htr_lightning.transcription import of_labels, transcriptions

beam = PrefixBeam(8, 4, 0.001, 10.0, alpha=0.5)
language = Language(NGram.estimate(["abba", "baba"], 2), None)


class Exported:
    \"\"\"Sees a where the ink of a column is in the upper half and b where it is in the lower one.\"\"\"

    card, preprocess, normalizer, calibration = {}, FitHeight(16, 4), Normalizer(), Calibration()
    codec, single_characters = Codec("ab", ["blank"]), False

    def __init__(self, decoder):
        self.decoder = decoder

    @property
    def members(self):
        return [self]

    def read(self, images, n_best=0):
        arrays = [self.preprocess(image) for image in images]
        found = []
        for array in arrays:
            ink = np.stack([np.full(array.shape[1], 0.3), array[:8].mean(0), array[8:].mean(0)], axis=1)
            log_probs = np.log(np.exp(60 * ink) / np.exp(60 * ink).sum(1, keepdims=True))[None].astype(np.float32)
            interpret = lambda one: of_labels(self.codec.decode(one.ids), one)
            inputs = (log_probs, np.array([array.shape[1]]))
            inked = [bool(array.any())]
            found += transcriptions(self.decoder, inputs, inked, n_best, interpret, self.normalizer, self.calibration)
        return found

    @contextmanager
    def workers(self):
        yield [self.read, self.read]


sources, faults, _ = find_sources([PAGE])
assert not faults, faults
for decoder in (Greedy(), beam, beam.with_automaton(language.automaton(["a", "b"]))):
    texts = [one.error or one.transcription.text for one in transcribe(Exported(decoder), sources)]
    assert texts == ["ab", "ba"], texts
assert not [name for name in sys.modules if name.partition(".")[0] in FRAMEWORKS]
print("read")
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two lines of two strokes each: one in the upper half and one in the lower half, or vice versa."""
    folder = tmp_path_factory.mktemp("page")
    pixels = np.full((80, 120), 255, np.uint8)
    for top, rows in ((4, (0, 16)), (44, (16, 0))):
        for column, row in zip((30, 70), rows, strict=True):
            pixels[top + row : top + row + 16, column : column + 16] = 0
    Image.fromarray(pixels).save(folder / "page.png")
    lines = "".join(
        f'<TextLine id="l{top}"><Coords points="10,{top} 110,{top} 110,{top + 32} 10,{top + 32}"/></TextLine>'
        for top in (4, 44)
    )
    text = f'<PcGts><Page imageFilename="page.png" imageWidth="120" imageHeight="80"><TextRegion id="r">{lines}'
    (folder / "page.xml").write_text(text + "</TextRegion></Page></PcGts>")
    return folder / "page.xml"


def contract() -> tuple[list[str], list[str]]:
    """Return the modules that import-linter checks, and the packages that they must not import."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (found,) = (one for one in settings["tool"]["importlinter"]["contracts"] if one["name"] == CONTRACT)
    return found["source_modules"], found["forbidden_modules"]


@pytest.mark.parametrize("program", [IMPORTS, READING], ids=["imports", "reading"])
def test_transcription_works_without_the_frameworks(program: str, page: Path, tmp_path: Path) -> None:
    modules, frameworks = contract()
    assert {"htr_lightning.reading.transcribe", "htr_lightning.data.preprocess"} <= set(modules)
    assert {"torch", "lightning", "hydra", "omegaconf", "wandb", "torchmetrics"} <= set(frameworks)
    names = f"MODULES, FRAMEWORKS, PAGE = {modules!r}, {frameworks!r}, {str(page)!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", names + WITHOUT + program],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (done.stdout == "read\n") == (program is READING)


CHECKPOINT = "RUN/checkpoints/best.ckpt"
EARLY = {
    "help of train.py": (["train", "-h"], 0, "experiment=NAME"),
    "help of htr": (["-h"], 0, "transcribe"),
    "help of a command": (["transcribe", "-h"], 0, "--format"),
    "config": (["train", "--cfg", "job"], 0, "max_time"),
    "mistyped key": (["train", "optimizer.lrr=1"], 1, "Did you mean optimizer.lr?"),
    "key without its group": (["train", "lr=1"], 1, "Did you mean optimizer.lr?"),
    "mistyped group": (["train", "modle=crnn"], 1, "Did you mean model?"),
    "mistyped option": (["train", "model=crn"], 1, "Did you mean model=crnn?"),
    "recipe with dashes": (["train", "--experiment=synthetic"], 1, "write experiment=synthetic"),
    "unknown option": (["train", "augment=hard"], 1, "augment=hard: no such option. Options: mild, none"),
    "mistyped recipe": (["train", "experiment=synthtic"], 1, "Did you mean experiment=synthetic?"),
    "missing checkpoint": (["evaluate", "none.ckpt"], 1, "none.ckpt: checkpoint not found"),
    "missing image": (["transcribe", CHECKPOINT, "none.png"], 1, "none.png: no such file"),
    "no data": (["audit"], 1, "data=NAME"),
    "mistyped data": (["pack", "data=copist", "--out", "x"], 1, "Did you mean data=copiste?"),
}


@pytest.mark.parametrize("name", EARLY)
def test_help_and_errors_appear_before_torch_is_imported(name: str, tmp_path: Path) -> None:
    """Importing torch and Lightning takes several seconds, for which a user would have to wait."""
    arguments, code, expected = EARLY[name]
    (tmp_path / "best.ckpt").touch()
    arguments = [str(tmp_path / "best.ckpt") if argument == CHECKPOINT else argument for argument in arguments]
    command = f"{WITHOUT.replace('FRAMEWORKS', repr(['torch', 'lightning', 'torchmetrics', 'wandb']))}\n" + (
        f"sys.argv = ['htr', *{arguments!r}]\nfrom htr_lightning.cli import app\napp()"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert expected in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr
