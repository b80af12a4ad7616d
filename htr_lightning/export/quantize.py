"""Shrink and quantise ONNX models."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float, Int64
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from htr_lightning.export.session import open_session

Inputs = tuple[Float[ndarray, "B 1 H W"], Int64[ndarray, " B"]]

QUANTIZED = ("Conv", "MatMul", "Gemm")  # operators that multiply by weights, and so take most of the time
MIN_CHANNELS = 32  # of a convolution that is faster in INT8
MIN_WEIGHTS = 1024  # smaller tensors are not worth storing in half precision


def with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose weights are stored as float16 and converted to float32 when it is loaded."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for weight in half.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and np.prod(weight.dims) >= MIN_WEIGHTS:
            name, values = weight.name, numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    return half


def with_byte_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose weight matrices are stored as 8-bit integers and converted to float32 when it is loaded.

    Each output channel or unit has a scale of its own, as in `checkpoint.compress`, whose weights do not change again.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    nodes = []
    users = {name: node for node in small.graph.node for name in node.input}
    for weight in [one for one in small.graph.initializer if one.data_type == TensorProto.FLOAT]:
        if len(weight.dims) < 2 or np.prod(weight.dims) < MIN_WEIGHTS or weight.name not in users:
            continue
        name, values = weight.name, numpy_helper.to_array(weight)
        rows = _output_axes(users[name])
        largest = np.abs(values).max(tuple(set(range(values.ndim)) - set(rows)), keepdims=True)
        scales = np.maximum(largest, np.finfo(np.float32).tiny) / 127
        weight.CopyFrom(numpy_helper.from_array((values / scales).round().astype(np.int8), f"{name}.byte"))
        small.graph.initializer.append(numpy_helper.from_array(scales, f"{name}.scales"))
        nodes.append(helper.make_node("Cast", [f"{name}.byte"], [f"{name}.float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.float", f"{name}.scales"], [name]))
    nodes += small.graph.node
    del small.graph.node[:]
    small.graph.node.extend(nodes)
    return small


def _output_axes(node: onnx.NodeProto) -> tuple[int, ...]:
    """Return the axes of the weights of an operator that stand for its outputs."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    if node.op_type == "LSTM":
        return (0, 1)  # directions and units
    return (1,) if node.op_type in ("MatMul", "Gemm") and not transposed else (0,)


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose weights are constants, where they were computed from several.

    Other weights would stay in float32 when the model is quantised.
    """
    with tempfile.TemporaryDirectory() as folder, _quietly():
        given, result = (str(Path(folder, f"{number}.onnx")) for number in range(2))
        onnx.save(model, given)
        quant_pre_process(given, result, skip_symbolic_shape=True)
        return onnx.load(result)


def quantized(model: onnx.ModelProto, lines: Sequence[Inputs], keep: Sequence[str] = ()) -> onnx.ModelProto:
    """Return a model that computes with 8-bit weights and activations.

    The ranges of activations are measured on lines; those of an LSTM, for each line that is read.

    Args:
        model: model in float32, after `folded`.
        lines: lines whose activations are measured, without padding.
        keep: names of nodes that stay in float32.
    """
    with tempfile.TemporaryDirectory() as folder, _quietly():
        given, result, final = (str(Path(folder, f"{number}.onnx")) for number in range(3))
        onnx.save(model, given)
        quantize_static(
            given,
            result,
            _Lines(lines, [one.name for one in model.graph.input]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},  # what follows needs floats
        )
        static = onnx.load(result)
        if all(node.op_type != "LSTM" for node in static.graph.node):
            return static
        del static.graph.value_info[:]  # of the model before it was quantised
        onnx.save(static, result)
        quantize_dynamic(result, final, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8, per_channel=True)
        return onnx.load(final)


def with_byte_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that multiplies by 8-bit weights, and measures the ranges of activations whenever it runs."""
    with tempfile.TemporaryDirectory() as folder, _quietly():
        given, result = (str(Path(folder, f"{number}.onnx")) for number in range(2))
        onnx.save(folded(model), given)
        kinds = ["MatMul", "Gemm"]
        quantize_dynamic(given, result, op_types_to_quantize=kinds, weight_type=QuantType.QInt8, per_channel=True)
        return onnx.load(result)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence ONNX Runtime's advice on quantisation."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def small_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the names of convolutions with so few channels that they are no slower in float32.

    Args:
        model: model after `folded`.
    """
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and max(shapes[node.input[1]][:2]) < MIN_CHANNELS
    ]


def sensitive(model: onnx.ModelProto, lines: Sequence[Inputs], keep: Sequence[str], count: int) -> list[str]:
    """Return the names of the layers whose quantisation changes the output most.

    Args:
        model: model in float32, after `folded`.
        lines: lines whose activations and outputs are compared.
        keep: names of layers that stay in float32 anyway.
        count: number of layers to return.
    """
    layers = [node.name for node in model.graph.node if node.op_type in QUANTIZED and node.name not in keep]
    expected = _outputs(model, lines)
    changes = {}
    for layer in layers:
        found = _outputs(quantized(model, lines, [*keep, *(other for other in layers if other != layer)]), lines)
        pairs = zip(found, expected, strict=True)
        changes[layer] = float(np.mean([np.abs(np.exp(a) - np.exp(b)).mean() for a, b in pairs]))
    return sorted(layers, key=lambda layer: -changes[layer])[:count]


def _outputs(model: onnx.ModelProto, lines: Sequence[Inputs]) -> list[ndarray]:
    run, *_ = open_session(model.SerializeToString(), "onnxruntime", "cpu", {})
    return [run(*line)[0] for line in lines]


class _Lines(CalibrationDataReader):
    def __init__(self, lines: Sequence[Inputs], names: Sequence[str]) -> None:
        self._given = self._inputs(lines, names)

    @staticmethod
    def _inputs(lines: Sequence[Inputs], names: Sequence[str]) -> Iterator[dict[str, ndarray]]:
        for images, widths in lines:
            yield {name: array for name, array in (("images", images), ("widths", widths)) if name in names}

    def get_next(self) -> dict[str, ndarray] | None:
        return next(self._given, None)
