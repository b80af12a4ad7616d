"""An exported autoregressive recognizer reads and scores as its checkpoint does, without torch."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import CONF, Outcome
from onnx import numpy_helper

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.errors import InputError
from htr_lightning.evidence import parity
from htr_lightning.evidence.parity import _largest_of_steps
from htr_lightning.export import file, runtime
from htr_lightning.export.build import export
from htr_lightning.model.base import Recognizer
from htr_lightning.model.seq2seq import BLANK, END, START

from .autoregressive import ALPHABET, BEAM, GREEDY, STEP, inside, with_metadata, written
from .test_runtime import same

FEW = [
    "data=synthetic",
    "data.reader.lines={train: 8, val: 8, test: 8}",
    "data.reader.writers={train: 2, val: 2, test: 2}",
]


@pytest.mark.parametrize("decoder", [GREEDY, BEAM, BEAM | {"length_norm": 0.7}], ids=["greedy", "beam", "norm"])
def test_texts_and_scores_are_those_of_the_checkpoint(
    model: str, decoder: dict[str, Any], lines: list[np.ndarray], tmp_path: Path
) -> None:
    path = written(model, decoder, tmp_path / "plain.ckpt")
    recognizer, out = checkpoint.load(path), tmp_path / "plain.onnx"
    out.write_bytes(export(path, recognizer, "onnx"))
    ours = runtime.load(out)
    expected = recognizer.read(lines)
    assert len({round(one.confidence, 3) for one in expected}) > 3  # they depend on the image
    assert len({one.text for one in expected}) > 1
    same(ours.read(lines), expected)
    same([ours.read([line])[0] for line in lines], expected)  # a line has the text that it has in a batch
    ours.alone = False
    same(ours.read(lines), expected)
    batch = ours.prepare_batch(lines[:6])
    with recognizer.exact():
        theirs = recognizer.scores(recognizer.net(*recognizer.prepare_batch(lines[:6])))[0]
        for alone in (True, False):
            assert _largest_of_steps(theirs, ours.scores(*batch, alone=alone)[0]) < 1e-3
    if decoder is not GREEDY:
        same(ours.read(lines, 3), recognizer.read(lines, 3))
    with pytest.raises(InputError, match="n_best=3"):
        runtime.load(out, greedy=True).read(lines[:1], 3)


def test_a_language_model_is_inside(pair: tuple[Path, Path], lines: list[np.ndarray]) -> None:
    before, after = pair
    recognizer, ours = checkpoint.load(before), runtime.load(after)
    expected = recognizer.read(lines, 4)
    same(ours.read(lines, 4), expected)
    greedy = runtime.load(after, greedy=True).read(lines)
    same(greedy, recognizer.greedy().read(lines))
    assert [one.text for one in greedy] != [one.text for one in expected]
    original, card = checkpoint.read(before)["htr"], ours.card
    assert {key: value for key, value in card.items() if key not in ("export", "calibration")} == original


def test_labels_are_no_more_than_frames_or_the_maximum(model: str, tmp_path: Path) -> None:
    path = written(model, GREEDY | {"max_length": 7}, tmp_path / "long.ckpt")
    recognizer, out = checkpoint.load(path), tmp_path / "long.onnx"
    out.write_bytes(export(path, recognizer, "onnx"))
    ours = runtime.load(with_metadata(out, lambda metadata: inside(metadata, STEP, never_ends), out))
    with torch.no_grad():
        recognizer.net.decoder.head.bias[2] = -1e6
    narrow, wide = np.full((40, 8), 255, np.uint8), np.full((40, 900), 255, np.uint8)
    for image in (narrow, wide):
        image[10:30, 2:-2] = 0
    for reader in (recognizer, ours):
        short, long = (len(hypothesis.ids) for hypothesis in hypotheses(reader, [narrow, wide]))
        assert long == 7
        assert short == -(-reader.prepare_batch([narrow])[0].shape[-1] // 4) < 7  # frames


def never_ends(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    (bias,) = (one for one in model.graph.initializer if one.name.endswith("head.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[2] = -1e6
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))


def hypotheses(reader: Any, images: list[np.ndarray]) -> list[Hypothesis]:
    batch = reader.prepare_batch(images)
    if not isinstance(reader, Recognizer):
        return reader.decoder(*reader.scores(*batch))
    with reader.exact():
        return reader.decoder(*reader.scores(reader.net(*batch)))


@pytest.mark.parametrize("target", ["fp16", "int8-exact", "int8"])
def test_smaller_files_have_small_decoders_and_nearly_the_same_scores(
    target: str, pair: tuple[Path, Path], lines: list[np.ndarray], tmp_path: Path
) -> None:
    before, plain = pair
    recognizer, out = checkpoint.load(before), tmp_path / f"{target}.onnx"
    out.write_bytes(export(before, recognizer, target, lines))
    ours = runtime.load(out)
    sizes = {path: sum(map(len, file.read(path).steps.values())) for path in (plain, out)}
    assert sizes[out] < sizes[plain]
    exact = runtime.load(plain)
    for line in lines[:4]:
        batch = ours.prepare_batch([line])
        changes = _largest_of_steps(exact.scores(*batch)[0], ours.scores(*batch)[0])
        assert 0 < changes < 5.0
    assert [one.text for one in ours.read(lines)] == [ours.read([line])[0].text for line in lines]


def test_the_gate_compares_texts_and_the_scores_of_the_decoder(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_speeds", lambda *_: {})
    recognizer = checkpoint.load(pair[0])
    data = data_for(recognizer, FEW)
    same = parity.measure(recognizer, str(pair[0]), pair[1], data, "test", 6)
    assert (same.lines, same.other_texts, same.in_batches, same.before) == (6, 0, 0, same.after)
    assert 0 < same.largest_difference < 1e-3
    assert same.fault(0.1) is None
    other = with_metadata(pair[1], lambda metadata: inside(metadata, STEP, other_bias), tmp_path / "other.onnx")
    found = parity.measure(recognizer, str(pair[0]), other, data, "test", 6)
    assert found.largest_difference > 1
    assert found.fault(0.1) is not None


def test_of_a_hybrid_only_the_ctc_half_is_exported_and_timed(
    tmp_path: Path, lines: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("hybrid", GREEDY, tmp_path / "hybrid.ckpt")
    recognizer, out = checkpoint.load(path), tmp_path / "hybrid.onnx"
    out.write_bytes(export(path, recognizer, "onnx"))
    ours = runtime.load(out)
    expected = []
    for line in lines:
        with recognizer.exact():
            (logits,) = recognizer.net(*recognizer.prepare_batch([line])).heads[0]
            logits[:, [START, END]] = -torch.inf  # labels of the decoder only
        best = [label for label, _ in groupby(logits.argmax(1).tolist()) if label != BLANK]
        expected.append("".join(recognizer.codec.alphabet[label - len(recognizer.specials)] for label in best).strip())
    assert [one.text for one in ours.read(lines)] == expected
    assert len(set(expected)) > 5
    timed: list[Any] = []
    monkeypatch.setattr(parity, "_speeds", lambda eager, *_: timed.append(eager) or {})
    data = data_for(recognizer, FEW)
    recognizer.net.decoder = None  # is not needed for the half
    found = parity.measure(recognizer, str(path), out, data, "test", 6)
    assert (found.other_texts, found.before) == (0, found.after)
    assert [one.text for one in timed[0].read(lines)] == expected


def other_bias(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    (bias,) = (one for one in model.graph.initializer if one.name.endswith("head.bias"))
    values = numpy_helper.to_array(bias) + 9 * np.eye(len(ALPHABET) + 3, dtype=np.float32)[4]
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))


WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "hydra", "omegaconf", "onnx"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, NotInstalled())
from htr_lightning.cli import app
app()
"""


def test_reading_needs_no_torch(
    pair: tuple[Path, Path], line_image: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    expected = htr("transcribe", pair[0], line_image, "--format", "jsonl")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "transcribe", str(pair[1]), str(line_image), "--format", "jsonl"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(CONF.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected.stdout != ""
