"""An exported file reads the same text as the checkpoint that it was made from."""

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import Outcome

import htr_lightning
from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.export import build, file, quantize, runtime, session
from htr_lightning.export.equalize import equalized
from htr_lightning.transcription import Transcription


def same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    assert [one.text for one in found] == [one.text for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert [a.text for a in one.alternatives] == [a.text for a in other.alternatives]
    assert any(one.text for one in found)  # the comparison is of something


def test_the_text_is_that_of_the_checkpoint_alone_and_in_batches(
    best: Path, exported: Path, lines: list[np.ndarray]
) -> None:
    recognizer, ours = checkpoint.load(best), runtime.load(exported)
    expected = recognizer.read(lines)
    same(ours.read(lines), expected)
    same([ours.read([line])[0] for line in lines], expected)
    ours.alone = False
    same(ours.read(lines), expected)
    assert ours.read([]) == []


def test_a_language_model_a_lexicon_and_the_calibration_are_inside(
    with_language: tuple[Path, Path], exported: Path, lines: list[np.ndarray]
) -> None:
    before, after = with_language
    recognizer, ours = checkpoint.load(before), runtime.load(after)
    same(ours.read(lines, 3), recognizer.read(lines, 3))
    same(ours.read(lines), recognizer.read(lines))
    same(runtime.load(after, greedy=True).read(lines), recognizer.greedy().read(lines))
    plain = runtime.load(exported).read(lines)
    assert [one.text for one in ours.read(lines)] != [one.text for one in plain]
    assert ours.calibration.line == (1.5, -0.25)


def test_every_worker_reads_the_same(with_language: tuple[Path, Path], lines: list[np.ndarray]) -> None:
    ours = runtime.load(with_language[1])
    expected = [one.text for one in ours.read(lines)]
    with ours.workers() as workers, ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda number: workers[number % len(workers)](lines), range(8)):
            assert [one.text for one in found] == expected


def test_blank_paper_is_empty_and_images_that_are_no_lines_are_refused(exported: Path) -> None:
    ours = runtime.load(exported)
    assert ours.read([np.full((40, 200), 255, np.uint8)]) == [Transcription("", 1.0)]
    with pytest.raises(ValueError, match="wide"):
        ours.read([np.zeros((8, 80000), np.uint8)])


def test_the_python_interface_opens_exported_files(exported: Path, best: Path, line_image: Path) -> None:
    reader = htr_lightning.load(exported)
    assert reader.read(line_image).text == htr_lightning.load(best, device="cpu").read(line_image).text
    assert reader.card["alphabet"] == htr_lightning.load(best).card["alphabet"]
    assert repr(reader).startswith("Reader(ExportedRecognizer")


def test_commands_read_exported_files(
    exported: Path, best: Path, line_image: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    texts = [htr("transcribe", recognizer, line_image, "--format", "jsonl").stdout for recognizer in (best, exported)]
    assert texts[0] == texts[1] != ""
    for recognizer, folder in ((best, tmp_path / "a"), (exported, tmp_path / "b")):
        assert htr("evaluate", recognizer, "--out", folder).code == 0
    found = [
        [json.loads(line)["hypothesis"] for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        for name in "ab"
    ]
    assert found[0] == found[1]
    assert any(found[0])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("transcribe", "EXPORTED", "EXPORTED", "IMAGE"), "cannot be combined; use checkpoints"),
        (("transcribe", "EXPORTED", "IMAGE", "--tta", "2"), "cannot be combined; use checkpoints"),
        (("transcribe", "EXPORTED", "IMAGE", "--adapt"), "needs a single checkpoint"),
        (("transcribe", "EXPORTED", "IMAGE", "--device", "cuda"), "CUDAExecutionProvider is not available"),
        (("transcribe", "EXPORTED", "IMAGE", "--device", "abacus"), "device=abacus: not available"),
        (("compress", "EXPORTED", "--out", "x.ckpt"), "exported; use the checkpoint"),
        (("export", "EXPORTED", "--to", "int8", "--out", "x.onnx"), "exported; use the checkpoint"),
    ],
)
def test_what_an_exported_file_cannot_do_is_said(
    arguments: tuple[str, ...], expected: str, exported: Path, line_image: Path, htr: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    names = {"EXPORTED": exported, "IMAGE": line_image}
    found = htr(*(names.get(one, one) for one in arguments))
    assert found.code == 1
    assert expected in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_the_card_says_what_was_exported(best: Path, exported: Path) -> None:
    card, original = runtime.load(exported).card, checkpoint.read(best)["htr"]
    assert {key: value for key, value in card.items() if key not in ("export", "calibration")} == original
    assert card["export"]["target"] == "onnx"
    assert len(card["export"]["checkpoint"]) == 64


def test_half_weights_change_scores_by_their_rounding_only(
    best: Path, exported: Path, lines: list[np.ndarray], tmp_path: Path
) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(build.export(best, checkpoint.load(best), "fp16"))
    assert half.stat().st_size < exported.stat().st_size
    batch = runtime.load(exported).prepare_batch(lines[:4])
    expected, found = (runtime.load(path).scores(*batch)[0] for path in (exported, half))
    assert 0 < np.abs(expected - found).max() < 0.05


@pytest.fixture(scope="module")
def small(best: Path, lines: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with 8-bit weights; every layer is quantised, though the convolutions of the network are small."""
    folder = tmp_path_factory.mktemp("small")
    found = {target: folder / f"{target}.onnx" for target in ("int8", "int8-exact")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "MIN_CHANNELS", 0)
        for target, path in found.items():
            path.write_bytes(build.export(best, checkpoint.load(best), target, lines))
    return found


@pytest.mark.parametrize("target", ["int8", "int8-exact"])
def test_quantised_weights_read_nearly_the_same_and_independently_of_the_batch(
    target: str, small: dict[str, Path], exported: Path, lines: list[np.ndarray]
) -> None:
    ours, plain = runtime.load(small[target]), runtime.load(exported)
    kinds = {one.data_type for one in onnx.load(small[target]).graph.initializer if math.prod(one.dims) >= 1024}
    assert kinds == {onnx.TensorProto.INT8}  # every large weight is quantised
    batch = ours.prepare_batch(lines)
    expected, found = plain.scores(*batch), ours.scores(*batch)
    np.testing.assert_array_equal(found[1], expected[1])
    inside = [np.abs(np.exp(a[:n]) - np.exp(b[:n])) for a, b, n in zip(expected[0], found[0], found[1], strict=True)]
    assert 0 < np.concatenate(inside).mean() < 0.02
    together = [one.text for one in ours.read(lines)]
    assert [ours.read([line])[0].text for line in lines] == together


def test_exact_quantisation_is_closer(small: dict[str, Path], exported: Path, lines: list[np.ndarray]) -> None:
    batch = runtime.load(exported).prepare_batch(lines)
    expected, exact, fast = (runtime.load(path).scores(*batch)[0] for path in (exported, *reversed(small.values())))
    assert np.abs(exact - expected).mean() < np.abs(fast - expected).mean()


def test_layers_that_are_kept_stay_in_float32(best: Path, lines: list[np.ndarray], tmp_path: Path) -> None:
    recognizer, lines = checkpoint.load(best), lines[::8]
    model = build._quantizable(recognizer, [recognizer.prepare_batch([line]) for line in lines])
    small = quantize.small_convolutions(model)
    names = [one.name for one in model.graph.node if one.op_type in quantize.QUANTIZED and one.name not in small]
    some, others = names[: 2 * build.SENSITIVE], names[2 * build.SENSITIVE :]  # each takes a second
    layers = build.sensitive_layers(recognizer, lines, others)
    assert len(layers) == len(set(layers)) == build.SENSITIVE
    assert set(build.sensitive_layers(recognizer, lines, [*others, *layers])) == {*some} - {*layers}
    path = tmp_path / "kept.onnx"
    path.write_bytes(build.export(best, recognizer, "int8", lines, layers))
    nodes = {node.name: node.op_type for node in onnx.load(path).graph.node}
    sources = {output: node.op_type for node in onnx.load(path).graph.node for output in node.output}
    inputs = {node.name: [sources.get(name) for name in node.input] for node in onnx.load(path).graph.node}
    assert all(nodes[layer] in quantize.QUANTIZED for layer in layers)
    assert not any("DequantizeLinear" in inputs[layer][1:2] for layer in layers)  # their weights
    assert runtime.load(path).card["export"]["float32_layers"] == build.SENSITIVE


def test_equal_ranges_change_nothing_in_float32(best: Path, lines: list[np.ndarray]) -> None:
    recognizer = checkpoint.load(best)
    batch = recognizer.prepare_batch(lines)
    with recognizer.exact():
        expected, lengths = recognizer.net(*batch)
        net = equalized(recognizer.net, [batch])
        found, _ = net(*batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), recognizer.net.parameters(), strict=True))
    assert len(lengths) == len(lines)


def test_openvino_reads_the_same(best: Path, lines: list[np.ndarray], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = tmp_path / "openvino.onnx"
    recognizer = checkpoint.load(best)
    path.write_bytes(build.export(best, recognizer, "openvino"))
    same(runtime.load(path).read(lines), recognizer.read(lines))
    with pytest.raises(InputError, match="OpenVINO runs on the CPU"):
        runtime.load(path, device="cuda")


def test_tensorrt_never_falls_back_to_another_provider(best: Path, lines: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "tensorrt.onnx"
    path.write_bytes(build.export(best, checkpoint.load(best), "tensorrt", lines))
    options = file.read(path).card["export"]["options"]
    assert set(options) == {f"trt_profile_{name}_shapes" for name in ("min", "opt", "max")}
    if "TensorrtExecutionProvider" in session.available():
        pytest.skip("TensorRT is installed")
    with pytest.raises(InputError, match="TensorrtExecutionProvider is not available"):
        runtime.load(path)
