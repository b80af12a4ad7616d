"""An exported autoregressive recognizer reads and scores as its checkpoint does, without torch."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import CONF, Outcome, shaken
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from onnx import helper, numpy_helper

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.decoder.hypothesis import Hypothesis
from htr_lightning.decoder.language import Language
from htr_lightning.decoder.lexicon import Lexicon
from htr_lightning.decoder.ngram import NGram
from htr_lightning.errors import InputError
from htr_lightning.evidence import parity
from htr_lightning.evidence.parity import _largest_of_steps
from htr_lightning.export import build, file, graph, runtime
from htr_lightning.export.build import export
from htr_lightning.export.file import STEPS
from htr_lightning.model.base import Exportable, Recognizer

from .test_file import (
    HOSTILE,
    Change,
    custom_operator,
    endless,
    external,
    external_attribute,
    huge_weight,
    large_result,
    nested,
    own_operator,
)
from .test_runtime import same

MODELS = {
    "trocr": [
        "model.net.encoder.width=24", "model.net.encoder.depth=1", "model.net.decoder.width=24",
        "model.net.decoder.depth=2",
    ],
    "crnn_attention": [
        "model.net.encoder.hidden=12", "model.net.encoder.layers=1", "model.net.decoder.width=20",
        "model.net.decoder.attention=12",
    ],
}  # fmt: skip
BACKBONE = {"stem": 8, "channels": "[8]", "blocks": "[1]", "strides": "[[2, 2]]"}
SMALL = [f"model.net.encoder.backbone.{key}={value}" for key, value in BACKBONE.items()]
ALPHABET = "abcdefghi "
BEAM: dict[str, Any] = {"_target_": "htr_lightning.decoder.autoregressive.Beam", "width": 4, "max_length": 30}
GREEDY: dict[str, Any] = {"_target_": "htr_lightning.decoder.autoregressive.Greedy", "max_length": 30}


@pytest.fixture(scope="module", autouse=True)
def _each_traced_once(_traced_once: None) -> Any:
    """Trace each model once, with or without padding."""
    traced: dict[Any, Any] = {}

    def kept(name: str, trace: Callable[..., Any]) -> Callable[..., Any]:
        def call(recognizer: Recognizer, exportable: Exportable, *rest: bool) -> Any:
            key = name, type(recognizer.net.decoder), rest
            if key not in traced:
                traced[key] = trace(recognizer, exportable, *rest)
            found = traced[key]
            return {inner: copied(one) for inner, one in found.items()} if isinstance(found, dict) else copied(found)

        return call

    def copied(model: onnx.ModelProto) -> onnx.ModelProto:
        return onnx.ModelProto.FromString(model.SerializeToString())

    patch = pytest.MonkeyPatch()
    patch.setattr(build, "trace", lambda r, e, padded=True: kept("trace", graph.trace)(r, e, padded))
    patch.setattr(build, "trace_steps", kept("steps", build.trace_steps))
    yield
    patch.undo()


def written(model: str, decoder: dict[str, Any], path: Path, **more: Any) -> Path:
    """Write a checkpoint with random weights, whose texts depend on the image."""
    overrides = ["run_dir=runs/test", "name=test", f"model={model}", *SMALL, *MODELS[model]]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=overrides)
    settings: Any = OmegaConf.to_container(config.model, resolve=True)
    settings = {key: value for key, value in settings.items() if key not in ("optimizer", "scheduler", "layer_decay")}
    settings["decoder"] = decoder
    with torch.random.fork_rng():
        torch.manual_seed(1)
        recognizer = instantiate(settings, _convert_="all")(alphabet=ALPHABET)
        shaken(recognizer)
    with torch.no_grad():
        for name, parameter in recognizer.net.decoder.named_parameters():
            if name.startswith(("head", "energy", "location", "keys")):
                parameter.mul_(10)  # confident, so that the scores of different lines differ
    card = {"format": 2, "alphabet": list(ALPHABET), "model": settings, "metric": {}, "data": {}}
    checkpoint.write({"htr": card, "state_dict": recognizer.state_dict(), **more}, path)
    return path


@pytest.fixture(scope="module", params=["crnn_attention", pytest.param("trocr", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def pair(model: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with beam search, a language model and a lexicon, and its exported file."""
    folder = tmp_path_factory.mktemp(model)
    words = ["bad", "cab", "dig", "fig", "hid", "chief", "cafe", "a", "big"]
    language = Language(NGram.estimate([" ".join(words), *words], 3), Lexicon(words))
    plain = checkpoint.with_tensors(language.to_plain())
    path = written(model, BEAM | {"alpha": 0.7, "beta": 0.4}, folder / "lm.ckpt", language=plain)
    out = folder / "lm.onnx"
    out.write_bytes(export(path, checkpoint.load(path), "onnx"))
    return path, out


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
    content = checkpoint.read(path)
    content["state_dict"]["net.decoder.head.bias"][2] = -1e6  # the end token is never chosen
    checkpoint.write(content, path)
    recognizer, out = checkpoint.load(path), tmp_path / "long.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "trace_steps", _trace_steps)  # with these weights
        out.write_bytes(export(path, recognizer, "onnx"))
    ours = runtime.load(out)
    narrow, wide = np.full((40, 8), 255, np.uint8), np.full((40, 900), 255, np.uint8)
    for image in (narrow, wide):
        image[10:30, 2:-2] = 0
    for reader in (recognizer, ours):
        short, long = (len(hypothesis.ids) for hypothesis in hypotheses(reader, [narrow, wide]))
        assert long == 7
        assert short == -(-reader.prepare_batch([narrow])[0].shape[-1] // 4) < 7  # frames


_trace_steps = build.trace_steps


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
    sizes = ["data.reader.lines={train: 8, val: 8, test: 8}", "data.reader.writers={train: 2, val: 2, test: 2}"]
    data = data_for(recognizer, ["data=synthetic", *sizes])
    same = parity.measure(recognizer, str(pair[0]), pair[1], data, "test", 6)
    assert (same.lines, same.other_texts, same.in_batches, same.before) == (6, 0, 0, same.after)
    assert 0 < same.largest_difference < 1e-3
    assert same.fault(0.1) is None
    other = with_metadata(pair[1], lambda metadata: inside(metadata, STEP, other_bias), tmp_path / "other.onnx")
    found = parity.measure(recognizer, str(pair[0]), other, data, "test", 6)
    assert found.largest_difference > 1
    assert found.fault(0.1) is not None


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


def nothing_but_nan(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    (bias,) = (one for one in model.graph.initializer if one.name.endswith("head.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.full(tuple(bias.dims), np.nan, np.float32), bias.name))


def other_names(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    model.graph.output[0].name = model.graph.node[-1].output[0] = "probabilities"


def fewer_labels(model: onnx.ModelProto, card: dict[str, Any]) -> None:
    zero, two = (numpy_helper.from_array(np.array([number]), f"number {number}") for number in (0, 2))
    axis = numpy_helper.from_array(np.array([1]), "axis")
    model.graph.initializer.extend([zero, two, axis])
    for node in model.graph.node:
        for place, name in enumerate(node.output):
            if name == "log_probs":
                node.output[place] = "all"
    model.graph.node.append(helper.make_node("Slice", ["all", "number 0", "number 2", "axis"], ["log_probs"]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]


BEGIN, STEP = STEPS
INSIDE: list[tuple[str, Change, str]] = [
    *((name, change, HOSTILE[change]) for name in STEPS for change in (external, custom_operator, huge_weight)),
    *((STEP, change, HOSTILE[change]) for change in (external_attribute, own_operator, endless, nested)),
    (BEGIN, large_result, "ONNX Runtime"),
    (STEP, large_result, "not one that htr export writes"),
    (STEP, nothing_but_nan, "returns no log-probabilities"),
    (STEP, fewer_labels, "returns no log-probabilities"),
    (BEGIN, other_names, "cannot be loaded"),
]


def with_metadata(path: Path, change: Callable[[dict[str, str]], None], out: Path) -> Path:
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    change(metadata)
    helper.set_model_props(model, metadata)
    out.write_bytes(model.SerializeToString())
    return out


def inside(metadata: dict[str, str], name: str, change: Change) -> None:
    """Change a model of the decoder."""
    model = onnx.ModelProto.FromString(base64.b64decode(metadata[name]))
    change(model, {})
    metadata[name] = base64.b64encode(model.SerializeToString()).decode()


@pytest.mark.parametrize(("name", "change", "message"), INSIDE, ids=lambda given: getattr(given, "__name__", None))
def test_a_hostile_decoder_is_one_line(
    name: str, change: Change, message: str, pair: tuple[Path, Path], line_image: Path, tmp_path: Path,
    htr: Callable[..., Outcome],
) -> None:  # fmt: skip
    path = with_metadata(pair[1], lambda metadata: inside(metadata, name, change), tmp_path / "hostile.onnx")
    found = htr("transcribe", path, line_image)
    assert (found.code, found.stdout) == (1, "")
    assert found.stderr.startswith("error: ")
    assert message in found.stderr
    assert "hostile.onnx" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def removed(metadata: dict[str, str]) -> None:
    del metadata[STEP]


def not_base64(metadata: dict[str, str]) -> None:
    metadata[STEP] = "~" + metadata[STEP]


def no_model(metadata: dict[str, str]) -> None:
    metadata[BEGIN] = base64.b64encode(b"something else").decode()


def swapped(metadata: dict[str, str]) -> None:
    metadata[BEGIN], metadata[STEP] = metadata[STEP], metadata[BEGIN]


def other_decoder(metadata: dict[str, str]) -> None:
    card = json.loads(metadata["htr"])
    card["export"]["decoder"] = {"_target_": "htr_lightning.decoder.ctc.Greedy"}
    metadata["htr"] = json.dumps(card)


def no_start(metadata: dict[str, str]) -> None:
    metadata["htr"] = metadata["htr"].replace("<start>", "<begin>")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed, "contains no decoder, which its card says it has"),
        (not_base64, "is not an ONNX model or is damaged"),
        (no_model, "is not an ONNX model or is damaged"),
        (swapped, "not one that htr export writes"),
        (other_decoder, "its decoder decodes frames, not steps"),
        (no_start, "'<start>' is not in list"),
    ],
)
def test_a_file_without_its_decoder_is_told_by_name(
    change: Callable[[dict[str, str]], None], message: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    path = with_metadata(pair[1], change, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=f"other.onnx: .*{message}"):
        runtime.load(path)
