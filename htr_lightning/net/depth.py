"""The layers of a network, ordered from the image to the classes."""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn

HEADS = {"head", "shortcut", "output_projection"}  # names of layers that output logits
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


class Layer(NamedTuple):
    """The modules at one depth of a network, and the name of the first."""

    name: str
    modules: list[nn.Module]

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters of the layer, each listed once even if weights are tied."""
        return list(dict.fromkeys(parameter for module in self.modules for parameter in module.parameters()))


def layers(net: nn.Module, classes: int) -> list[Layer]:
    """Return the layers of a network in order of definition, with the layer that scores the classes last.

    A layer is a child of the network, of its backbone, encoder or decoder, or of a list of modules; a norm belongs to
    the preceding layer. All modules with one row of weights per class, such as CTC heads and the label embedding of a
    decoder, together form the last layer.

    Args:
        net: network of a recognizer.
        classes: number of outputs of the network.
    """
    found: list[Layer] = []
    for name, module in _parts(net):
        if not any(True for _ in module.parameters()):
            continue
        if isinstance(module, NORMS) and found:
            found[-1].modules.append(module)
        else:
            found.append(Layer(name, [module]))
    heads = [layer for layer in found if _by_class(layer, classes, layer is found[-1])]
    others = [layer for layer in found if layer not in heads]
    return [*others, Layer("head", [module for layer in heads for module in layer.modules])]


def _parts(net: nn.Module, outermost: bool = True) -> Iterator[tuple[str, nn.Module]]:
    for name, child in net.named_children():
        chain = outermost and type(child) is nn.Sequential
        if chain or name in ("backbone", "encoder", "decoder", "model") or isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{inner}", part) for inner, part in _parts(child, outermost=False))
        else:
            yield name, child


def _by_class(layer: Layer, classes: int, last: bool) -> bool:
    """Return whether a layer has one row of weights per class.

    Position, name and type are checked as well, since other layers may happen to have the same number of rows.
    """
    is_head = last or not HEADS.isdisjoint(layer.name.split("."))
    kinds = (nn.Linear, nn.Conv1d, nn.Embedding) if is_head else (nn.Embedding,)
    return all(isinstance(m, kinds) and m.weight.shape[0] == classes for m in layer.modules)
