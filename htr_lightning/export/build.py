"""Build exported files from checkpoints."""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from jaxtyping import UInt8
from numpy import ndarray
from onnx import helper
from torch import Tensor

from htr_lightning import checkpoint
from htr_lightning.errors import InputError
from htr_lightning.export.equalize import equalized
from htr_lightning.export.file import FORMAT, metadata, read
from htr_lightning.export.graph import trace
from htr_lightning.export.quantize import (
    Inputs,
    folded,
    quantized,
    sensitive,
    small_convolutions,
    with_byte_products,
    with_byte_weights,
    with_half_weights,
)
from htr_lightning.export.trace_steps import trace_steps
from htr_lightning.model.base import Recognizer
from htr_lightning.pretrained import locate

CALIBRATION_LINES = 64  # lines whose activations are measured for INT8; more change nothing (experiments/README.md)
SEARCH_LINES = 16  # lines on which the sensitivity of each layer is measured
SENSITIVE = 4  # number of layers that are left in float32 at a time
MEASURED = ("int8", "tensorrt")  # targets that need training lines
SMALLER = {
    "fp16": (with_half_weights, "weights in float16, computed in float32"),
    "int8-exact": (with_byte_weights, "weights in int8, computed in float32"),
}


def export(
    path: str | Path,
    recognizer: Recognizer,
    target: str,
    images: Sequence[UInt8[ndarray, "_ _"]] = (),
    keep: Sequence[str] = (),
    tell: Callable[[str], None] = lambda message: None,
) -> bytes:
    """Return an exported file for a checkpoint.

    Args:
        path: path to the checkpoint.
        recognizer: the recognizer in it.
        target: "onnx", "fp16", "int8", "int8-exact", "openvino" or "tensorrt".
        images: training lines whose activations are measured (INT8), or whose widths set the shapes that are optimised
            for (TensorRT).
        keep: names of layers that INT8 leaves in float32 (see `quantize.sensitive`).
        tell: progress callback, called with the name of each step.

    Raises:
        InputError: if recognizers of this kind cannot be exported, or `target` needs images and there are none.
    """
    if target in MEASURED and not images:
        raise InputError(f"--to {target}: needs training lines to measure; add data=NAME")
    exportable = recognizer.exportable()
    lines = [recognizer.prepare_batch([image]) for image in images]
    tell("tracing the network")
    model = _quantizable(recognizer, lines) if target == "int8" else trace(recognizer, exportable)
    steps = trace_steps(recognizer, exportable)
    about: dict[str, Any] = {"precision": "float32"}
    if target in SMALLER:
        smaller, about["precision"] = SMALLER[target]
        model, steps = smaller(model), {name: smaller(one) for name, one in steps.items()}
    elif target == "int8":
        tell("quantising")
        model = quantized(model, _arrays_of(lines), [*small_convolutions(model), *keep])
        steps = {name: with_byte_products(one) for name, one in steps.items()}
        about |= {"precision": "int8", "calibration_lines": len(lines), "float32_layers": len(keep)}
    about |= {
        "format": FORMAT,
        "target": target,
        "runtime": target if target in ("openvino", "tensorrt") else "onnxruntime",
        "inputs": exportable.inputs,
        "decoder": exportable.decoder,
        "specials": list(exportable.specials),
        "direction": exportable.direction,
        "checkpoint": sha256(locate(path).read_bytes()).hexdigest(),
        "versions": {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    if target == "tensorrt":
        about["options"] = profiles([one.shape[3] for one, _ in lines], lines[0][0].shape[2])
    card = {**recognizer.card, "calibration": recognizer.calibration.numbers(), "export": about}
    del model.graph.value_info[:]  # types and shapes between operators, which are inferred anyway
    inner = {name: one.SerializeToString() for name, one in steps.items()}
    helper.set_model_props(model, metadata(card, _arrays(checkpoint.read(path).get("language")), inner))
    content: bytes = model.SerializeToString()
    return content


def sensitive_layers(
    recognizer: Recognizer, images: Sequence[UInt8[ndarray, "_ _"]], keep: Sequence[str] = ()
) -> list[str]:
    """Return the names of the layers that INT8 should leave in float32 first, in addition to `keep`."""
    lines = [recognizer.prepare_batch([image]) for image in images[:: len(images) // SEARCH_LINES or 1]]
    model = _quantizable(recognizer, lines)
    return sensitive(model, _arrays_of(lines), [*small_convolutions(model), *keep], SENSITIVE)


def _quantizable(recognizer: Recognizer, lines: Sequence[tuple[Tensor, Tensor]]) -> onnx.ModelProto:
    """Return the model of a recognizer in float32, prepared for quantisation."""
    exportable = recognizer.exportable()
    net = equalized(exportable.net, lines)
    return folded(trace(recognizer, exportable._replace(net=net), padded=False))


def _arrays_of(lines: Sequence[tuple[Tensor, Tensor]]) -> list[Inputs]:
    return [(images.numpy(), widths.numpy()) for images, widths in lines]


def profiles(widths: Sequence[int], height: int) -> dict[str, str]:
    """Return TensorRT's shape profiles for lines of the given widths: the smallest, the usual and the largest batch."""
    usual = sorted(widths)[len(widths) // 2]
    sizes = {"min": (1, min(32, *widths)), "opt": (16, usual), "max": (32, 2 * max(widths))}
    return {
        f"trt_profile_{name}_shapes": f"images:{count}x1x{height}x{width},widths:{count}"
        for name, (count, width) in sizes.items()
    }


def trtexec(path: Path, out: Path) -> str:
    """Return the command line that builds a TensorRT engine from an exported file.

    Args:
        path: path to the file, which may be temporary.
        out: path that the command names.
    """
    options = read(path).card["export"]["options"]
    shapes = " ".join(f"--{name}Shapes={options[f'trt_profile_{name}_shapes']}" for name in ("min", "opt", "max"))
    return f"trtexec --onnx={out} --saveEngine={out.with_suffix('.plan')} --fp16 {shapes}"


def _arrays(plain: Any) -> Any:
    """Replace the tensors in nested plain data by arrays."""
    if isinstance(plain, dict):
        return {key: _arrays(value) for key, value in plain.items()}
    return np.asarray(plain) if hasattr(plain, "numpy") else plain
