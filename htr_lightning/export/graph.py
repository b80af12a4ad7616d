"""Trace a recognizer into an ONNX model."""

import copy
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float, Int
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from htr_lightning.model.base import Exportable, Recognizer
from htr_lightning.net.backbone import unpadded
from htr_lightning.net.crnn import BiLSTM
from htr_lightning.net.gated import GatedRecurrence

OPSET = 21
BODY = ("before", "decay", "input", "state", "output")  # inputs and outputs of its body
NOISE = ("The .grad attribute of a Tensor that is not a leaf", "The tensor attributes .*_flat_weights",
         "_check_is_size will be removed")  # fmt: skip


def trace(recognizer: Recognizer, exportable: Exportable, padded: bool = True) -> onnx.ModelProto:
    """Return an ONNX model that maps images and widths of any batch size to the arguments of a decoder.

    Lines may have any width; where the preprocessing gives all images the same width, it is fixed.

    Args:
        recognizer: recognizer in evaluation mode, on the CPU.
        exportable: what it computes (see `Recognizer.exportable`).
        padded: whether a batch may contain padded lines; if not, the model takes no widths, has no masks and is faster.
    """
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 256, (64, width), np.uint8) for width in (411, 397)]
    images, widths = recognizer.prepare_batch(lines)
    free = torch.export.Dim.DYNAMIC
    shapes = {"images": {0: free} if recognizer.preprocess.framed else {0: free, 3: free}, "widths": {0: free}}
    net = _with_operators(exportable.net).eval()
    inputs: tuple[Tensor, ...] = (images, widths)
    if not padded:
        net, inputs = _Unpadded(net).eval(), (images,)
        del shapes["widths"]
    with nullcontext() if padded else unpadded():
        return traced(net, inputs, list(shapes), list(exportable.outputs), shapes)


def traced(
    net: nn.Module, inputs: tuple[Tensor, ...], input_names: list[str], output_names: list[str], shapes: Any
) -> onnx.ModelProto:
    """Return a network as an ONNX model; `shapes` are its dynamic dimensions (see `torch.export.export`)."""
    with warnings.catch_warnings(), torch.inference_mode():
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        program = torch.onnx.export(
            net.eval(),
            inputs,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # the place in the source code of each operator
        if node.op_type == "Scan":
            _complete_scan(node)
    return model


def _with_operators(net: nn.Module) -> nn.Module:
    """Return a copy of a network in which each recurrence is a single operator instead of many small ones."""
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if type(child) in OPERATORS:
                setattr(parent, name, OPERATORS[type(child)](child))
    return net


class _Unpadded(nn.Module):
    """A network for lines without padding."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Float[Tensor, "B 1 H W"]) -> Any:
        widths = images.new_full((images.shape[0],), images.shape[3], dtype=torch.int64)
        return self.net(images, widths)


class _Scan(nn.Module):
    """A `GatedRecurrence` with one Scan operator, and a layer of its own for each part of its inputs.

    The backward direction runs as further lines of the batch, whose frames are reversed, because the operator takes as
    long for two directions as for one.
    """

    def __init__(self, layer: GatedRecurrence) -> None:
        super().__init__()
        self.norm, self.neighbors = layer.norm, layer.neighbors
        self.inputs = nn.ModuleList(_rows(layer.inputs, part, 6) for part in range(6))
        self.outputs = nn.ModuleList(_columns(layer.output, part, 2) for part in range(2))

    def forward(self, x: Float[Tensor, "T B D"], inside: Float[Tensor, "#T #B 1"]) -> Float[Tensor, "T B D"]:
        frames, lines, _ = x.shape
        x = functional.pad(self.norm(x) * inside, (0, 0, 0, 0, 1, 1))
        x = x[1:-1] + self.neighbors[0] * x[:-2] + self.neighbors[1] * x[2:]
        of_values, of_decays, of_gates = self.inputs[:2], self.inputs[2:4], self.inputs[4:]
        both = [way.flatten(0, 1) for way in (x, x.flip(0))]  # matrices, whose products include the bias
        masks, decays, inputs = (inside, inside.flip(0)), [], []
        for way, mask, value, decay in zip(both, masks, of_values, of_decays, strict=True):
            values, kept = value(way), decay(way).sigmoid()
            decays.append(kept.unflatten(0, (frames, lines)))
            inputs.append((values - kept * values).unflatten(0, (frames, lines)) * mask)
        ahead, back = _scan(torch.cat(decays, 1), torch.cat(inputs, 1)).split([lines, lines], 1)
        opened = [functional.silu(gate(both[0])) for gate in of_gates]
        parts = [gate * way.flatten(0, 1) for gate, way in zip(opened, (ahead, back.flip(0)), strict=True)]
        result = self.outputs[0](parts[0]) + self.outputs[1](parts[1])
        return result.unflatten(0, (frames, lines))


def _rows(linear: nn.Linear, part: int, parts: int) -> nn.Linear:
    """Return a layer with one of several equal parts of the outputs of another."""
    made = nn.Linear(linear.in_features, linear.out_features // parts)
    made.weight.data, made.bias.data = linear.weight.data.chunk(parts)[part], linear.bias.data.chunk(parts)[part]
    return made


def _columns(linear: nn.Linear, part: int, parts: int) -> nn.Linear:
    """Return a layer for one of several equal parts of the inputs of another; their outputs add up to its output."""
    made = nn.Linear(linear.in_features // parts, linear.out_features)
    made.weight.data, made.bias.data = linear.weight.data.chunk(parts, 1)[part], linear.bias.data / parts
    return made


def _scan(decays: Float[Tensor, "T B H"], inputs: Float[Tensor, "T B H"]) -> Float[Tensor, "T B H"]:
    """Return the states of gated linear recurrence; `_complete_scan` completes the operator that computes them."""
    start = torch.zeros_like(inputs[0])
    _, states = torch.onnx.ops.symbolic_multi_out(
        "Scan",
        [start, decays, inputs],
        {"num_scan_inputs": 2},
        dtypes=(inputs.dtype,) * 2,
        shapes=(start.shape, inputs.shape),
    )
    return states


def _complete_scan(node: onnx.NodeProto) -> None:
    """Add the body of a Scan operator: state = decay * state + input."""
    frame = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in BODY]
    steps = [
        helper.make_node("Mul", ["decay", "before"], ["decayed"]),
        helper.make_node("Add", ["decayed", "input"], ["state"]),
        helper.make_node("Identity", ["state"], ["output"]),
    ]
    node.attribute.append(helper.make_attribute("body", helper.make_graph(steps, "body", frame[:3], frame[3:])))


class _FusedLSTM(nn.Module):
    """A `BiLSTM` as the LSTM operator of ONNX, whose backward direction starts at the end of each line too."""

    def __init__(self, lstm: BiLSTM) -> None:
        super().__init__()
        both: tuple[Any, ...] = (lstm.ahead, lstm.back)
        self.hidden = lstm.ahead.hidden_size
        self.register_buffer("inputs", torch.stack([_gates(one.weight_ih_l0) for one in both]))
        self.register_buffer("states", torch.stack([_gates(one.weight_hh_l0) for one in both]))
        biases = [torch.cat([_gates(one.bias_ih_l0), _gates(one.bias_hh_l0)]) for one in both]
        self.register_buffer("biases", torch.stack(biases))

    def forward(self, x: Float[Tensor, "B T D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B T D2"]:
        lines, frames, _ = x.shape
        arguments: list[Any] = [x.transpose(0, 1), self.inputs, self.states, self.biases, lengths.to(torch.int32)]
        (states,) = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            arguments,
            {"hidden_size": self.hidden, "direction": "bidirectional"},
            dtypes=(x.dtype,),
            shapes=((frames, 2, lines, self.hidden),),
        )
        return states.permute(2, 0, 1, 3).flatten(2)


def _gates(weight: Tensor) -> Tensor:
    """Return the rows of a weight in the order of ONNX (i, o, f, c) instead of PyTorch's (i, f, c, o)."""
    return torch.cat([weight.detach().chunk(4)[gate] for gate in (0, 3, 1, 2)])


OPERATORS: dict[type, Callable[[Any], nn.Module]] = {BiLSTM: _FusedLSTM, GatedRecurrence: _Scan}
