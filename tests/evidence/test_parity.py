"""The gate of `htr export`: what it measures is true, and an export that loses too much is not written."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
from conftest import Outcome

from htr_lightning import checkpoint
from htr_lightning.build import data_for
from htr_lightning.evidence import parity
from htr_lightning.evidence.evaluate import evaluate
from htr_lightning.evidence.parity import Parity, Speed
from htr_lightning.export import build, runtime
from htr_lightning.metrics.edits import EditTotals
from htr_lightning.metrics.significance import Difference


@pytest.fixture(autouse=True)
def _symbolic_sizes_are_no_int(fast_exports: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="module")
def files(fast_exports: None, best: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Exported files by target."""
    folder = tmp_path_factory.mktemp("files")
    patch = pytest.MonkeyPatch()
    patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    recognizer = checkpoint.load(best)
    images = parity.calibration_images(data_for(recognizer, []))
    found = {target: folder / f"{target}.onnx" for target in ("onnx", "int8")}
    for target, path in found.items():
        path.write_bytes(build.export(best, recognizer, target, images))
    yield found
    patch.undo()


@pytest.mark.parametrize("target", ["onnx", "int8"])
def test_both_sides_have_the_edits_that_evaluation_counts(target: str, best: Path, files: dict[str, Path]) -> None:
    recognizer = checkpoint.load(best)
    data = data_for(recognizer, [])
    found = parity.measure(recognizer, str(best), files[target], data, "test")
    assert found.before == evaluate(recognizer, data, "test").totals
    assert found.after == evaluate(runtime.load(files[target]), data, "test").totals
    assert (found.lines, found.target) == (24, target)
    assert (found.largest_difference < 1e-3) == (target == "onnx")
    assert found.other_texts == 0 or target == "int8"
    assert found.in_batches == 0
    assert found.difference.value == pytest.approx(found.after.cer - found.before.cer)
    for speed, file in zip(found.speed.values(), (best, files[target]), strict=True):
        assert set(speed.lines_per_second) == {"batch 1", "batch 16", "two threads"}
        assert all(rate > 0 for rate in speed.lines_per_second.values())
        assert 0 < speed.latency_ms["p50"] <= speed.latency_ms["p99"]
        assert speed.start_seconds > 0.1
        assert speed.file_mb == file.stat().st_size / 1e6
    assert found.speed["torch"].memory_mb > 1.5 * found.speed[target].memory_mb
    assert json.loads(json.dumps(found.to_plain()))["difference"]["value"] == found.difference.value


def some(target: str, other_texts: int, low: float, high: float) -> Parity:
    totals = EditTotals(1, 100, 1, 20, 9, 10, 0)
    difference = Difference((low + high) / 2, low, high, 0.5, 10, "lines")
    return Parity(target, 10, {}, 0.1, other_texts, 0, totals, totals, difference, {})


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (some("onnx", 0, 0.0, 0.0), None),
        (some("onnx", 1, 0.0, 0.0), "1 of 10 lines read differently"),
        (some("openvino", 2, 0.0, 0.0), "2 of 10 lines read differently"),
        (some("int8", 5, -0.002, 0.0009), None),
        (some("int8", 5, -0.002, 0.0012), r"by up to \+0.12 \(95%\), more than --budget 0.1"),
        (some("fp16", 5, -0.01, -0.002), None),
        (some("fp16", 5, 0, 0)._replace(difference=Difference(0.1, None, None, 1, 2, "lines")), "10 lines are too few"),
    ],
)
def test_an_export_fails_where_its_interval_exceeds_the_budget(found: Parity, fault: str | None) -> None:
    reason = found.fault(0.1)
    if fault is None:
        assert reason is None
    else:
        assert reason is not None
        assert re.search(fault, reason)


def test_the_command_writes_nothing_that_exceeds_the_budget(
    best: Path, files: dict[str, Path], tmp_path: Path, htr: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "int8.onnx"
    speed = Speed({"batch 1": 2.0}, {"p50": 1.0}, 1.0, 2.0, 3.0)
    measured = some("int8", 5, -0.002, 0.0012)._replace(speed={"torch": speed, "int8": speed})
    monkeypatch.setattr(parity, "measure", lambda *_: measured)
    monkeypatch.setattr(build, "sensitive_layers", lambda recognizer, images, keep: [f"layer {len(keep)}"] * 4)
    kept = []
    monkeypatch.setattr(build, "export", lambda *given: kept.append(len(given[4])) or files["int8"].read_bytes())
    found = htr("export", best, "--to", "int8", "--out", out)
    assert found.code == 1
    assert kept == [0, 4, 8]  # layers in float32
    *notes, error = found.stderr.splitlines()
    assert ["trying again with" in note for note in notes] == [True, True]
    assert error.startswith(f"error: {out}: not written, since the CER changes by ")
    assert "lines with another text" in found.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_json_and_writes_what_passes(
    best: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    out = tmp_path / "plain.onnx"
    found = htr("export", best, "--to", "onnx", "--out", out, "--lines", "5", "--json")
    assert found.code == 0
    assert json.loads(found.stdout)["other_texts"] == 0
    assert runtime.load(out).card["export"]["target"] == "onnx"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--to", "onnx", "--out", "model.bin"), "choose a name that ends in .onnx"),
        (("--to", "onnx", "--out", "x.onnx", "data.subset=3"), "applies only to training lines"),
    ],
)
def test_arguments_are_checked_before_the_work(
    arguments: tuple[str, ...], expected: str, best: Path, tmp_path: Path, htr: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found = htr("export", best, *arguments)
    assert found.code != 0
    assert expected in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_tensorrt_the_model_and_its_recipe_are_written(
    best: Path, tmp_path: Path, htr: Callable[..., Outcome]
) -> None:
    out = tmp_path / "engine.onnx"
    found = htr("export", best, "--to", "tensorrt", "--out", out)
    assert found.code == 0
    assert f"trtexec --onnx={out}" in found.stderr
    assert "not checked, since TensorrtExecutionProvider is not available" in found.stderr
    refused = htr("transcribe", out, tmp_path / "none.png")
    assert refused.code == 1
