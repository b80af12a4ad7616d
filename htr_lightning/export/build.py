"""Build exported files from checkpoints."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import UInt8
from numpy import ndarray
from onnx import helper
from onnxruntime.quantization import QuantType

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.export.file import FORMAT, metadata
from htr_lightning.export.graph import trace
from htr_lightning.export.quantize import Inputs, quantized, with_half_weights
from htr_lightning.model.base import Recognizer
from htr_lightning.pretrained import locate

TARGETS = ("onnx", "fp16", "int8", "int8-exact", "openvino", "tensorrt")
CALIBRATION_LINES = 64  # lines whose activations are measured for INT8; more change nothing (experiments/README.md)
ACTIVATIONS = {"int8": QuantType.QUInt8, "int8-exact": QuantType.QUInt16}


def export(
    path: str | Path,
    recognizer: Recognizer,
    target: str,
    images: Sequence[UInt8[ndarray, "_ _"]] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> bytes:
    """Return an exported file for a checkpoint.

    Args:
        path: path to the checkpoint.
        recognizer: the recognizer in it.
        target: one of `TARGETS`.
        images: training lines whose activations are measured (INT8), or whose widths set the shapes that are optimised
            for (TensorRT).
        tell: progress callback, called with the name of each step.

    Raises:
        InputError: if recognizers of this kind cannot be exported, or `target` needs images and there are none.
    """
    if target in (*ACTIVATIONS, "tensorrt") and not images:
        raise InputError(f"--to {target}: needs training lines to measure; add data=NAME")
    exportable = recognizer.exportable()
    tell("tracing the network")
    model = trace(recognizer, exportable)
    lines = _inputs(recognizer, images)
    about: dict[str, Any] = {"precision": "float32"}
    if target == "fp16":
        tell("halving the weights")
        model, about["precision"] = with_half_weights(model), "float16 weights"
    elif target in ACTIVATIONS:
        tell("quantising")
        model = quantized(model, lines, ACTIVATIONS[target])
        about |= {"precision": target, "calibration_lines": len(lines)}
    about |= {
        "format": FORMAT,
        "target": target,
        "runtime": target if target in ("openvino", "tensorrt") else "onnxruntime",
        "inputs": exportable.inputs,
        "decoder": exportable.decoder,
        "specials": list(exportable.specials),
        "direction": exportable.direction,
        "checkpoint": sha256(locate(path).read_bytes()).hexdigest(),
        "versions": {"onnx": onnx.__version__, "onnxruntime": _version("onnxruntime")},
    }
    if target == "tensorrt":
        about["options"] = profiles(lines)
    card = {**recognizer.card, "calibration": list(recognizer.calibration), "export": about}
    helper.set_model_props(model, metadata(card, _arrays(checkpoint.read(path).get("language"))))
    content: bytes = model.SerializeToString()
    return content


def profiles(lines: Sequence[Inputs]) -> dict[str, str]:
    """Return TensorRT's shape profiles: the smallest, the median and the largest images of some lines."""
    height, widths = lines[0][0].shape[2], sorted(images.shape[3] for images, _ in lines)
    sizes = {"min": (1, min(32, widths[0])), "opt": (16, widths[len(widths) // 2]), "max": (32, 2 * widths[-1])}
    return {
        f"trt_profile_{name}_shapes": f"images:{count}x1x{height}x{width},widths:{count}"
        for name, (count, width) in sizes.items()
    }


def trtexec(out: Path, recognizer: Recognizer, images: Sequence[UInt8[ndarray, "_ _"]]) -> str:
    """Return the command line that builds a TensorRT engine from an exported file."""
    options = profiles(_inputs(recognizer, images))
    shapes = " ".join(f"--{name}Shapes={options[f'trt_profile_{name}_shapes']}" for name in ("min", "opt", "max"))
    return f"trtexec --onnx={out} --saveEngine={out.with_suffix('.plan')} --fp16 {shapes}"


def _inputs(recognizer: Recognizer, images: Sequence[UInt8[ndarray, "_ _"]]) -> list[Inputs]:
    batches = (recognizer.prepare_batch([image]) for image in images)
    return [(arrays.numpy(), widths.numpy()) for arrays, widths in batches]


def _version(package: str) -> str:
    from importlib import metadata as packages

    return packages.version(package)


def _arrays(plain: Any) -> Any:
    """Replace the tensors in nested plain data by arrays."""
    if isinstance(plain, dict):
        return {key: _arrays(value) for key, value in plain.items()}
    return np.asarray(plain) if hasattr(plain, "numpy") else plain
