"""Trace the decoder of an autoregressive recognizer into ONNX models."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.export.graph import traced
from htr_lightning.export.steps import NEW
from htr_lightning.model.base import Exportable, ExportableSteps, Recognizer
from htr_lightning.net.backbone import unpadded


@torch.inference_mode()
def trace_steps(recognizer: Recognizer, exportable: Exportable) -> dict[str, onnx.ModelProto]:
    """Return the models that `export.steps.StepGraphs` runs, by name; none if the recognizer is not autoregressive.

    A state is passed as one tensor for each of its parts. The parts that a step returns as they are belong to the line,
    and the others to each row.

    Args:
        recognizer: recognizer in evaluation mode, on the CPU.
        exportable: what it computes.
    """
    steps = exportable.steps
    if steps is None:
        return {}
    memory, *_ = exportable.net.eval()(*recognizer.prepare_batch([np.full((64, 256), 255, np.uint8)]))
    with unpadded():
        state = steps.begin(memory)
        before = leaves(state)
        _, after = steps.step(*_rows(1), state)
        own = [name for name, part in leaves(after).items() if part is not before[name]]
        one, other = (_example(steps, own, memory[:, :size], size - 2) for size in (5, 6))
        free = [
            {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(part.shape) if size != other[name].shape[axis]}
            for name, part in one.items()
        ]
        inputs = {"memory": {1: torch.export.Dim.DYNAMIC}}
        begin = traced(_Begin(steps.begin), (memory,), ["encoded"], [*before], inputs)
        rows = _rows(3)
        row = {0: torch.export.Dim.DYNAMIC}
        shapes = {"tokens": row, "left": row, "parts": tuple(free)}
        names, outputs = ["tokens", "left", *one], ["log_probs", *(NEW + name for name in own)]
        step = traced(_Step(steps.step, state, own), (*rows, *one.values()), names, outputs, shapes)
    found = {"begin": begin, "step": step}
    for model in found.values():
        del model.graph.value_info[:]  # types and shapes between operators, which quantisation changes
    return found


def _rows(count: int) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """Return tokens, and the number of characters that may follow."""
    return torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.int64)


def _example(steps: ExportableSteps, own: list[str], memory: Float[Tensor, "1 S M"], count: int) -> dict[str, Tensor]:
    """Return the parts of a state after a number of steps, with as many rows."""
    state = steps.begin(memory)
    for _ in range(count):
        _, state = steps.step(*_rows(1), state)
    return {name: part.repeat_interleave(count, 0) if name in own else part for name, part in leaves(state).items()}


class _Begin(nn.Module):
    """The start of a decoder, which returns the parts of the state."""

    def __init__(self, begin: nn.Module) -> None:
        super().__init__()
        self.begin = begin

    def forward(self, memory: Float[Tensor, "1 S M"]) -> tuple[Tensor, ...]:
        return tuple(leaves(self.begin(memory)).values())


class _Step(nn.Module):
    """A step of a decoder, which takes the parts of a state and returns log-probabilities and the parts that change."""

    def __init__(self, step: nn.Module, state: Any, own: list[str]) -> None:
        super().__init__()
        self.step, self.own, self.like = step, own, [state]  # in a list, since tensors would become weights

    def forward(self, tokens: Int[Tensor, " N"], left: Int[Tensor, " N"], *parts: Tensor) -> tuple[Tensor, ...]:
        log_probs, state = self.step(tokens, left, _filled(self.like[0], iter(parts)))
        found = leaves(state)
        return log_probs, *(found[name] for name in self.own)


def leaves(state: Any, name: str = "") -> dict[str, Tensor]:
    """Return the tensors in nested named tuples and lists by name."""
    if isinstance(state, Tensor):
        return {name: state}
    if state is None:
        return {}
    parts = state._asdict() if hasattr(state, "_asdict") else dict(enumerate(state))
    return {
        key: leaf
        for part, value in parts.items()
        for key, leaf in leaves(value, f"{name}_{part}" if name else str(part)).items()
    }


def _filled(state: Any, parts: Iterator[Tensor]) -> Any:
    """Return a state with other tensors, in the order of `leaves`."""
    if isinstance(state, Tensor):
        return next(parts)
    if state is None:
        return None
    values = [_filled(value, parts) for value in state]
    return type(state)(*values) if hasattr(state, "_asdict") else values
