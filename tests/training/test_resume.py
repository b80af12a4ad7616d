"""The state of a run in a checkpoint is restored, or refused in one line that names the checkpoint."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RUN, run_train

from htr_lightning.errors import InputError
from htr_lightning.training.resume import Position, position


def optimizer(content: dict[str, Any]) -> dict[str, Any]:
    return content["optimizer_states"][0]


def weight(content: dict[str, Any]) -> dict[str, Any]:
    """The state of the first weight in the optimizer."""
    return optimizer(content)["state"][0]


def group(content: dict[str, Any]) -> dict[str, Any]:
    return optimizer(content)["param_groups"][0]


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "weights only": (lambda content: content.pop("optimizer_states"), "no optimizer_states.*start="),
    "no optimizer": (lambda content: content.update(optimizer_states=[]), "no optimizer_states"),
    "no loops": (lambda content: content.pop("loops"), "no loops"),
    "no callbacks": (lambda content: content.update(callbacks=None), "no callbacks"),
    "no scheduler": (lambda content: content.update(lr_schedulers=None), "no lr_schedulers"),
    "optimizer that is a number": (lambda content: content.update(optimizer_states=[7]), "cannot be restored"),
    "other groups": (lambda content: group(content).update(params=[0]), "cannot be restored.*group"),
    "moments of another shape": (lambda content: weight(content).update(exp_avg=torch.zeros(3)), r"got \(3,\)"),
    "moments that are not finite": (lambda content: weight(content)["exp_avg"].fill_(math.nan), "not finite"),
    "moments of another optimizer": (lambda content: weight(content).pop("exp_avg"), "cannot be restored.*exp_avg"),
    "learning rate": (lambda content: group(content).update(lr="x"), "cannot be restored"),
    "betas": (lambda content: group(content).update(betas=None), "cannot be restored"),
    "schedule": (lambda content: content["lr_schedulers"][0].update(base_lrs="x"), "cannot be restored"),
    "progress": (lambda content: content["loops"]["fit_loop"].update(epoch_progress="x"), "cannot be restored"),
    "callback": (lambda content: content.update(callbacks=dict.fromkeys(content["callbacks"], "x")), "be restored"),
    "version": (lambda content: content.update({"pytorch-lightning_version": "x.y"}), "cannot be restored.*x.y"),
}


def loops(epochs: tuple[int, int], batches: tuple[int, int], is_last: bool) -> dict[str, Any]:
    """The state of a loop, with the numbers of epochs started and processed, and of batches ready and processed."""
    return {
        "epoch_progress": {"current": {"started": epochs[0], "processed": epochs[1]}},
        "epoch_loop.batch_progress": {
            "current": {"ready": batches[0], "processed": batches[1]}, "is_last_batch": is_last
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (loops((3, 2), (1, 0), False), Position(2, 0)),  # before the first batch of an epoch
        (loops((3, 2), (5, 4), False), Position(2, 4)),  # before another one
        (loops((3, 2), (9, 8), True), Position(2, 8)),  # before the last one
        (loops((3, 2), (4, 4), False), Position(2, 4)),  # after a validation within an epoch
        (loops((3, 2), (9, 9), True), Position(3, 0)),  # after a validation at the end of an epoch
        (loops((3, 3), (9, 9), True), Position(3, 0)),  # after the epoch
        (loops((3, 3), (4, 4), False), Position(2, 4)),  # at the end of a run that ends within an epoch
    ],
)
def test_the_position_in_a_run_is_found_whenever_the_checkpoint_was_saved(
    state: dict[str, Any], expected: Position
) -> None:
    assert position(state) == expected


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_cannot_be_restored_is_refused_by_name(run_folder: Path, tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    content = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match=message) as refused:
        run_train(tmp_path / "on", *RUN, "trainer.max_epochs=3", "data.measured_lines=0", f"resume={tmp_path}/x.ckpt")
    assert f"{tmp_path}/x.ckpt" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_with_other_parameter_groups_is_not_resumed(run_folder: Path, tmp_path: Path) -> None:
    last = f"resume={run_folder}/checkpoints/last.ckpt"
    with pytest.raises(InputError, match=r"last\.ckpt: the state .* repeat the overrides"):
        run_train(tmp_path / "on", *RUN, "trainer.max_epochs=3", last, "model.layer_decay=0.8")


def test_an_error_of_the_run_itself_is_not_blamed_on_its_checkpoint(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a mistake in the code")

    monkeypatch.setattr("htr_lightning.training.module.TrainingModule.training_step", fail)
    with pytest.raises(KeyError, match="a mistake"):
        run_train(tmp_path / "on", *RUN, "trainer.max_epochs=3", f"resume={run_folder}/checkpoints/last.ckpt")
