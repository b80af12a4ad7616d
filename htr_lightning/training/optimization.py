"""Configure optimizers, schedulers and gradient clipping in Lightning."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from htr_lightning.errors import InputError
from htr_lightning.model.base import Recognizer
from htr_lightning.optim import rates_by_depth
from htr_lightning.schedule import progress


def configure_optimizers(recognizer: Recognizer, trainer: Trainer) -> Any:
    """Return the optimizer and scheduler of a recognizer in Lightning's format.

    Raises:
        InputError: if the recognizer has no optimizer, or the optimizer rejects its settings.
    """
    if recognizer.optimizer is None:
        raise InputError("the recognizer has no optimizer and cannot be trained; select one with optimizer=NAME")
    if any(p.dtype != torch.float32 for p in recognizer.parameters()):
        raise InputError(
            f"trainer.precision={trainer.precision}: weights must stay float32; use bf16-mixed or 16-mixed"
        )
    groups: Any = recognizer.parameters()
    if recognizer.layer_decay != 1:
        groups = rates_by_depth(recognizer.net, recognizer.num_classes, recognizer.layer_decay)
    try:
        optimizer = recognizer.optimizer(groups)
    except (TypeError, ValueError, RuntimeError) as error:  # not a number, or out of range
        raise InputError(f"optimizer: {error}; check the overrides of optimizer") from None
    if not isinstance(fused := optimizer.param_groups[0].get("fused"), bool | None):
        raise InputError(f"optimizer.fused={fused}: expected true or false")
    for group in optimizer.param_groups:
        group["lr"] *= group.get("lr_scale", 1.0)  # before a scheduler uses it as its peak rate
    if recognizer.scheduler is None:
        return optimizer
    scheduler = recognizer.scheduler(optimizer, progress=lambda: progress(trainer))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def gradient_norm(module: LightningModule, optimizer: torch.optim.Optimizer) -> Tensor | None:
    """Return the norm of the gradient on a CPU; None on a GPU, where reading it would take time.

    It is also None if gradients are scaled, because a step with an overflow is then left out.
    """
    if module.device.type != "cpu" or getattr(module.trainer.precision_plugin, "scaler", None):
        return None
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])


def clip_gradients(
    module: LightningModule,
    optimizer: torch.optim.Optimizer,
    value: float | None,
    algorithm: str | None,
    norm: Tensor | None = None,
) -> None:
    """Clip gradients, including those of fused optimizers in mixed precision, which Lightning does not support.

    In half precision, gradients are still multiplied by the loss scale at this point, so the threshold is
    scaled as well. If the norm of the gradient is already known, it is not computed again.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if value and norm is not None and algorithm in (None, "norm"):
        return nn.utils.clip_grads_with_norm_(weights, value, norm)
    plugin = module.trainer.precision_plugin
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if not (value and fused and isinstance(plugin, MixedPrecision)):
        return module.clip_gradients(optimizer, value, algorithm)
    if plugin.scaler and algorithm == "value":  # clipping by value would hide overflows from the scaler
        raise InputError(
            "trainer.gradient_clip_algorithm=value: not supported with 16-mixed and a fused optimizer; set "
            "optimizer.fused=false"
        )
    bound = value * (plugin.scaler.get_scale() if plugin.scaler else 1.0)
    clip = nn.utils.clip_grad_value_ if algorithm == "value" else nn.utils.clip_grad_norm_
    clip(weights, bound)


def check_fused(optimizer: Any) -> None:
    """Mark the optimizer of a resumed run as unfused if its restored parameter groups are not all fused.

    Otherwise, a gradient scaler would pass its scale to a step function that does not accept one.
    """
    if hasattr(optimizer, "_step_supports_amp_scaling"):
        optimizer._step_supports_amp_scaling = all(group.get("fused") for group in optimizer.param_groups)


def check_monitors(trainer: Trainer, figures: Sequence[str]) -> None:
    """Check, before training starts, that callbacks only monitor validation metrics that exist."""
    known = [f"val/{name}" for name in figures]
    for callback in trainer.callbacks:  # type: ignore[attr-defined] # Lightning sets it outside the class
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in known:
            raise InputError(
                f"callbacks: {type(callback).__name__} monitors {monitor}, which does not exist; use one of "
                + ", ".join(known)
            )
