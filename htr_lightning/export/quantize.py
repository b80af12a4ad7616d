"""Shrink and quantise ONNX models."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float, Int64
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Inputs = tuple[Float[ndarray, "B 1 H W"], Int64[ndarray, " B"]]

QUANTIZED = ("Conv", "MatMul", "Gemm")  # operators that multiply by weights, and so take most of the time
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


def quantized(
    model: onnx.ModelProto, lines: Sequence[Inputs], activations: QuantType, keep: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return a model with 8-bit weights, and with activations quantised to ranges measured on lines.

    Ranges are fixed, so that the text of a line does not depend on the other lines in its batch.

    Args:
        model: model in float32.
        lines: inputs whose activations are measured, single lines or batches.
        activations: type of the activations.
        keep: names of nodes that stay in float32.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, result = (str(Path(folder, f"{name}.onnx")) for name in ("given", "prepared", "result"))
        onnx.save(model, given)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)  # otherwise, some weights stay in float32
        quantize_static(
            prepared,
            result,
            _Lines(lines, [one.name for one in model.graph.input]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep),
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(result)


class _Lines(CalibrationDataReader):
    def __init__(self, lines: Sequence[Inputs], names: Sequence[str]) -> None:
        self._given = self._inputs(lines, names)

    @staticmethod
    def _inputs(lines: Sequence[Inputs], names: Sequence[str]) -> Iterator[dict[str, ndarray]]:
        for images, widths in lines:
            yield {name: array for name, array in (("images", images), ("widths", widths)) if name in names}

    def get_next(self) -> dict[str, ndarray] | None:
        return next(self._given, None)
