"""Exported files of a small recognizer."""

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from htr_lightning import checkpoint
from htr_lightning.data.reader.synthetic import Synthetic
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram
from htr_lightning.export.build import export

from .autoregressive import BEAM as STEP_BEAM
from .autoregressive import written

BEAM = {
    "_target_": "htr_lightning.decoder.prefix_beam.PrefixBeam",
    "width": 8,
    "top_labels": 6,
    "min_probability": 0.0001,
    "prune_margin": 20.0,
    "alpha": 0.6,
    "beta": 1.0,
}


@pytest.fixture(scope="session")
def lines() -> list[np.ndarray]:
    """Images of lines of different widths."""
    return [sample.image for sample in Synthetic("test", {"test": 24}, {"test": 6})]


@pytest.fixture(scope="session", autouse=True)
def _symbolic_sizes_are_no_int(fast_exports: None) -> Iterator[None]:
    """While a network is traced, sizes are symbols, which run-time checks of shapes do not accept."""
    patch = pytest.MonkeyPatch()
    patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def exported(best: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recognizer in `best`, exported in float32."""
    path = tmp_path_factory.mktemp("exported") / "plain.onnx"
    path.write_bytes(export(best, checkpoint.load(best), "onnx"))
    return path


@pytest.fixture(scope="session")
def with_language(best: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with a language model and a lexicon, and its exported file."""
    folder = tmp_path_factory.mktemp("language")
    content = checkpoint.read(best)
    content["htr"]["model"]["decoder"] = BEAM
    content["htr"]["calibration"] = [1.5, -0.25]
    words = ["the", "of", "and", "to", "in", "that", "was", "his", "he", "it"]
    language = Language(NGram.estimate([" ".join(words), *words], 3), Lexicon(words))
    content["language"] = checkpoint.with_tensors(language.to_plain())
    checkpoint.write(content, folder / "language.ckpt")
    path = folder / "language.onnx"
    path.write_bytes(export(folder / "language.ckpt", checkpoint.load(folder / "language.ckpt"), "onnx"))
    return folder / "language.ckpt", path


@pytest.fixture(scope="session", params=["crnn_attention", pytest.param("trocr", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def pair(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with beam search, a language model and a lexicon, and its exported file."""
    folder = tmp_path_factory.mktemp(model)
    words = ["bad", "cab", "dig", "fig", "hid", "chief", "cafe", "a", "big"]
    language = Language(NGram.estimate([" ".join(words), *words], 3), Lexicon(words))
    plain = checkpoint.with_tensors(language.to_plain())
    path = written(model, STEP_BEAM | {"alpha": 0.7, "beta": 0.4}, folder / "lm.ckpt", language=plain)
    out = folder / "lm.onnx"
    out.write_bytes(export(path, checkpoint.load(path), "onnx"))
    return path, out
