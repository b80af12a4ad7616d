"""Scale the channels of a network so that quantisation loses less, without changing what it computes."""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from htr_lightning.net.gated import GatedCRNN, GatedRecurrence

SMALLEST = 1e-6  # of the ranges of activations and weights


@torch.no_grad()
def equalized(net: nn.Module, batches: Iterable[tuple[Float[Tensor, "B 1 H W"], Int[Tensor, " B"]]]) -> nn.Module:
    """Return a copy of a network in which the inputs of a layer have similar ranges in all channels.

    A layer with one range for all its inputs is coarse for channels with small values. Each channel is divided by a
    factor where it is computed and multiplied by it where it is used, half-way between equal ranges of the inputs and
    equal ranges of the weights (Xiao et al., 2023, "SmoothQuant", arXiv:2211.10438). Only gated linear recurrence is
    changed; the outputs of convolutions were not improved by it.

    Args:
        net: network in evaluation mode.
        batches: images and widths of lines whose activations are measured.
    """
    net = copy.deepcopy(net)
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    largest: dict[nn.Module, Tensor] = {}

    def observe(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        values = arguments[0].detach().abs().flatten(0, -2).amax(0)
        largest[layer] = torch.maximum(largest[layer], values) if layer in largest else values

    hooks = [layer.register_forward_pre_hook(observe) for layer in layers]
    for images, widths in batches:
        net(images, widths)
    for hook in hooks:
        hook.remove()
    for module in net.modules():
        if isinstance(module, GatedRecurrence):
            _normalised(module.norm, module.inputs, largest[module.inputs])
            _scanned(module.inputs, module.output, largest[module.output])
        elif isinstance(module, GatedCRNN):
            _normalised(module.norm, module.head, largest[module.head])
    return net


def _normalised(norm: nn.LayerNorm, layer: nn.Linear, largest: Float[Tensor, " D"]) -> None:
    """Equalise the inputs of a layer that follows a layer norm, perhaps with a mixture of frames between them."""
    factors = _factors(largest, layer.weight)
    for parameter in (norm.weight, norm.bias):
        parameter.div_(factors)
    layer.weight.mul_(factors)


def _scanned(inputs: nn.Linear, output: nn.Linear, largest: Float[Tensor, " D"]) -> None:
    """Equalise the states of gated linear recurrence, which are linear in its values."""
    factors = _factors(largest, output.weight)
    values = slice(len(factors))
    inputs.weight[values].div_(factors[:, None])
    inputs.bias[values].div_(factors)
    output.weight.mul_(factors)


def _factors(largest: Float[Tensor, " D"], weight: Float[Tensor, "C D"]) -> Float[Tensor, " D"]:
    factors = (largest.clamp(min=SMALLEST) / weight.abs().amax(0).clamp(min=SMALLEST)).sqrt()
    return factors / factors.log().mean().exp()
