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
from conftest import Outcome

import htr_lightning
from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.export import build, file, runtime, session


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
    assert ours.calibration == (1.5, -0.25)


def test_every_worker_reads_the_same(with_language: tuple[Path, Path], lines: list[np.ndarray]) -> None:
    ours = runtime.load(with_language[1])
    expected = [one.text for one in ours.read(lines)]
    with ours.workers() as workers, ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda number: workers[number % len(workers)](lines), range(8)):
            assert [one.text for one in found] == expected


def test_blank_paper_is_empty_and_images_that_are_no_lines_are_refused(exported: Path) -> None:
    ours = runtime.load(exported)
    assert ours.read([np.full((40, 200), 255, np.uint8)]) == [("", 1.0, ())]
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


@pytest.mark.parametrize("target", ["int8", "int8-exact"])
def test_quantised_weights_read_nearly_the_same_and_independently_of_the_batch(
    target: str, best: Path, exported: Path, lines: list[np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(build.export(best, checkpoint.load(best), target, lines))
    ours, plain = runtime.load(path), runtime.load(exported)
    kinds = {one.data_type for one in onnx.load(path).graph.initializer if math.prod(one.dims) > 200}
    assert onnx.TensorProto.FLOAT not in kinds  # every large weight is quantised
    batch = ours.prepare_batch(lines)
    expected, found = plain.scores(*batch), ours.scores(*batch)
    np.testing.assert_array_equal(found[1], expected[1])
    assert 0 < np.abs(np.exp(expected[0]) - np.exp(found[0])).mean() < 0.02
    alone = [one.text for one in ours.read(lines)]
    ours.alone = False
    assert [one.text for one in ours.read(lines)] == alone


def test_exact_quantisation_is_closer(best: Path, exported: Path, lines: list[np.ndarray], tmp_path: Path) -> None:
    distances = {}
    for target in ("int8", "int8-exact"):
        path = tmp_path / f"{target}.onnx"
        path.write_bytes(build.export(best, checkpoint.load(best), target, lines))
        batch = runtime.load(exported).prepare_batch(lines)
        pair = [runtime.load(one).scores(*batch)[0] for one in (exported, path)]
        distances[target] = float(np.abs(pair[0] - pair[1]).mean())
    assert distances["int8-exact"] < distances["int8"]


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
