"""Every network that can be exported computes in ONNX Runtime what it computes in PyTorch, at any size."""

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fast
import numpy as np
import onnx
import pytest
import torch
from conftest import CONF, MODELS, shaken
from hydra import compose
from omegaconf import OmegaConf

from htr_lightning.data.preprocess import FitHeight
from htr_lightning.export import build, graph, quantize
from htr_lightning.export.session import open_session
from htr_lightning.hydra_version import initialize_config_dir, instantiate
from htr_lightning.model.base import Recognizer

FAST = ("mlp", "crnn")  # tracing takes seconds


@cache
def recognizer_of(model: str) -> Recognizer:
    """The recognizer of `conf/model/MODEL.yaml`, with random weights far from zero."""
    with initialize_config_dir(str(CONF)):
        config = compose("train", overrides=["run_dir=runs/test", "name=test", f"model={model}"])
    settings: Any = OmegaConf.to_container(config.model, resolve=True)
    for key in ("optimizer", "scheduler"):
        settings.pop(key)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        recognizer: Recognizer = instantiate(settings, _convert_="all")(alphabet="abcdef").eval()
        shaken(recognizer)
    recognizer.card = {"model": {"decoder": settings.get("decoder")}}
    return recognizer


def images_of(recognizer: Recognizer, widths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(sum(widths))
    return recognizer.prepare_batch([rng.integers(0, 256, (40, width), np.uint8) for width in widths])


@pytest.mark.parametrize("model", [m if m in FAST else pytest.param(m, marks=pytest.mark.slow) for m in MODELS])
@pytest.mark.parametrize("padded", [True, False])
def test_the_exported_network_gives_the_same_at_other_batch_sizes_and_widths(model: str, padded: bool) -> None:
    recognizer = recognizer_of(model)
    exportable = recognizer.exportable()
    net = exportable.net.eval()
    traced = graph.trace(recognizer, exportable, padded)
    session = open_session(traced.SerializeToString(), "onnxruntime", "cpu", {})
    assert [output.name for output in traced.graph.output] == list(exportable.outputs)
    assert padded or session.inputs == {"images"}
    for widths in ([60], [900], [333, 333], [700, 90, 201, 5]) if padded else ([60], [900], [333]):
        images, columns = images_of(recognizer, widths)
        times = 3 if widths == [333] else 1  # lines of equal width
        batch = images.repeat(times, 1, 1, 1), columns.repeat(times)
        with recognizer.exact():
            expected = net(*batch)
        found = session.run(batch[0].numpy(), batch[1].numpy())
        scores, *lengths = expected if isinstance(expected, tuple) else (expected,)
        assert scores.std() > 1e-3  # the comparison is of something
        if not lengths:
            np.testing.assert_allclose(found[0], scores.numpy(), atol=1e-4)
            continue
        np.testing.assert_array_equal(found[1], lengths[0].numpy())
        for ours, theirs, frames in zip(found[0], scores.numpy(), found[1].tolist(), strict=True):
            np.testing.assert_allclose(ours[:frames], theirs[:frames], atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", [model for model in MODELS if model not in ("mlp", "cnn")])
def test_quantised_networks_run_line_by_line(model: str) -> None:
    recognizer = recognizer_of(model)
    exportable = recognizer.exportable()
    lines = [tuple(part.numpy() for part in images_of(recognizer, [width])) for width in (200, 450, 700)]
    quantised = quantize.quantized(quantize.folded(graph.trace(recognizer, exportable, False)), lines)  # type: ignore[arg-type]
    large = [one for one in quantised.graph.initializer if np.prod(one.dims) >= 4096]
    bytes_ = sum(np.prod(one.dims) for one in large if one.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8))
    assert bytes_ > 0.9 * sum(np.prod(one.dims) for one in large)
    session = open_session(quantised.SerializeToString(), "onnxruntime", "cpu", {})
    for images, widths in lines:
        with recognizer.exact():
            expected, *_ = exportable.net.eval()(torch.from_numpy(images), torch.from_numpy(widths))
        found, *_ = session.run(images, widths)
        assert np.abs(np.exp(found) - np.exp(expected.numpy())).mean() < 0.05


def test_stored_traces_belong_to_their_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests store what they trace; equal weights are not enough."""
    seen: list[tuple[int, int, str]] = []

    def trace(recognizer: Any, exportable: Any, padded: bool) -> onnx.ModelProto:
        seen.append((recognizer.net.stride[0], recognizer.preprocess.height, recognizer.card["model"]["name"]))
        return onnx.ModelProto(doc_string=str(len(seen)))

    monkeypatch.setattr(build, "trace", trace)
    found = []
    with fast.exports(tmp_path):
        for stride, height, name in [(1, 32, "a"), (2, 32, "a"), (1, 48, "a"), (1, 32, "b")] * 2:
            net = torch.nn.Conv2d(1, 1, 1, stride)
            net.load_state_dict({"weight": torch.ones(1, 1, 1, 1), "bias": torch.zeros(1)})
            card = {"model": {"name": name}}
            one = SimpleNamespace(net=net, preprocess=FitHeight(height), card=card)
            found.append(build.trace(one, SimpleNamespace(net=net, outputs=("y",)), True).doc_string)  # type: ignore[arg-type]
    assert found == ["1", "2", "3", "4"] * 2
