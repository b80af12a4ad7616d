"""Save the batches of a step whose loss or gradient is not finite, and reproduce the step:

python -m htr_lightning.training.divergence RUN/nonfinite.pt
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from htr_lightning import checkpoint
from htr_lightning.data.batch import Batch
from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer


class Pass(NamedTuple):
    """A batch of a training step, with the random seed of its forward pass and its loss."""

    seed: int
    batch: Batch
    loss: Tensor


class Step(NamedTuple):
    """A reproduced training step: the ids of its lines, the loss of each batch, and the norm of their gradient."""

    ids: list[str]
    losses: list[float]
    gradient: float


def save(path: Path, recognizer: Recognizer, passes: Sequence[Pass], precision: str) -> None:
    """Save a step, with the weights before it.

    Args:
        path: path to the file, which is a checkpoint with additional keys.
        recognizer: recognizer in training.
        passes: batches of the step.
        precision: `trainer.precision`.

    Raises:
        InputError: if the file cannot be written, or this process has only a part of the weights (`trainer=fsdp`).
    """
    if any(hasattr(weight, "full_tensor") for weight in recognizer.parameters()):  # others may not be asked now
        raise InputError("the step is not saved, because trainer=fsdp divides its weights among processes")
    buffers = dict(recognizer.named_buffers())
    steps = [{"seed": seed, "batch": batch._replace(images=batch.images.cpu())._asdict()} for seed, batch, _ in passes]
    # the step has already changed the running statistics of batch norms, which it does not use
    state = {name: value.nan_to_num() if value.is_floating_point() and name in buffers else value
             for name, value in recognizer.state_dict().items()}  # fmt: skip
    content = {"htr": recognizer.card, "state_dict": state, "passes": steps, "precision": precision}
    if recognizer.parts:
        content["parts"] = recognizer.parts
    checkpoint.write(content, path)


def reproduce(path: str | Path) -> Step:
    """Repeat the forward and backward passes of a saved step on the CPU; a teacher does not take part.

    Args:
        path: path to a file written by `save`.

    Raises:
        InputError: if the file is not such a file, or its weights are not finite.
    """
    content = checkpoint.read(path)
    if "passes" not in content:
        raise InputError(f"{path}: contains no training step; use the nonfinite.pt of a run folder")
    recognizer = checkpoint.load(path).train().requires_grad_(True)
    losses, ids = [], []
    for one in content["passes"]:
        torch.manual_seed(one["seed"])
        with torch.autocast("cpu", torch.bfloat16, enabled=content["precision"].startswith("bf16")):
            loss = recognizer.loss(Batch(**one["batch"]))
        loss.backward()
        losses.append(loss.item())
        ids += one["batch"]["ids"]
    norm = get_total_norm([weight.grad for weight in recognizer.parameters() if weight.grad is not None])
    return Step(ids, losses, norm.item())


def main() -> None:
    """Print the step saved in the file that the command line names."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m htr_lightning.training.divergence RUN/nonfinite.pt")
    try:
        step = reproduce(sys.argv[1])
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"loss {', '.join(map(str, step.losses))} · gradient norm {step.gradient} · lines: {', '.join(step.ids)}")


if __name__ == "__main__":
    main()
