"""Small autoregressive recognizers with random weights, and changes to their exported files."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from conftest import CONF, shaken
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from onnx import helper

from htr_lightning import checkpoint
from htr_lightning.export.file import STEPS

BEGIN, STEP = STEPS
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
MODELS["hybrid"] = MODELS["trocr"]
BACKBONE = {"stem": 8, "channels": "[8]", "blocks": "[1]", "strides": "[[2, 2]]"}
SMALL = [f"model.net.encoder.backbone.{key}={value}" for key, value in BACKBONE.items()]
ALPHABET = "abcdefghi "
BEAM: dict[str, Any] = {"_target_": "htr_lightning.decoder.autoregressive.Beam", "width": 4, "max_length": 30}
GREEDY: dict[str, Any] = {"_target_": "htr_lightning.decoder.autoregressive.Greedy", "max_length": 30}


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
            if name.startswith("head"):
                parameter.mul_(5)  # confident, so that the scores of different lines differ
    card = {"format": 2, "alphabet": list(ALPHABET), "model": settings, "metric": {}, "data": {}}
    checkpoint.write({"htr": card, "state_dict": recognizer.state_dict(), **more}, path)
    return path


def with_metadata(path: Path, change: Callable[[dict[str, str]], None], out: Path) -> Path:
    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    change(metadata)
    helper.set_model_props(model, metadata)
    out.write_bytes(model.SerializeToString())
    return out


def inside(metadata: dict[str, str], name: str, change: Callable[[onnx.ModelProto, dict[str, Any]], None]) -> None:
    """Change a model of the decoder."""
    model = onnx.ModelProto.FromString(base64.b64decode(metadata[name]))
    change(model, {})
    metadata[name] = base64.b64encode(model.SerializeToString()).decode()
