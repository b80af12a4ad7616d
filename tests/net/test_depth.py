"""The layers of every network are ordered from the image to the classes."""

import pytest
from conftest import MODELS, network
from torch import nn

from htr_lightning.net.depth import NORMS, layers

CLASSES = 41


BY_CHANCE = [("crnn_attention", 128), ("trocr", 192), ("hybrid", 192), ("vit_ctc", 192), ("crnn", 128)]


@pytest.mark.parametrize(("model", "classes"), [*((model, CLASSES) for model in MODELS), *BY_CHANCE])
def test_every_parameter_is_in_one_layer_and_the_last_depends_on_the_classes(model: str, classes: int) -> None:
    """The last layer is found even if other layers have the same number of rows."""
    net, wider = network(model, classes).net, network(model, classes + 1).net
    names = {parameter: name for name, parameter in net.named_parameters()}
    found = layers(net, classes)
    placed = [names[parameter] for layer in found for parameter in layer.parameters]
    assert sorted(placed) == sorted(names.values())
    sizes = {name: parameter.shape for name, parameter in wider.named_parameters()}
    grown = {name for parameter, name in names.items() if parameter.shape != sizes[name]}
    assert {names[parameter] for parameter in found[-1].parameters} == grown
    assert len({layer.name for layer in found}) == len(found) >= (2 if model == "mlp" else 4)
    assert not any(isinstance(layer.modules[0], NORMS) for layer in found)


def test_a_crnn_has_its_stages_and_its_recurrent_layers_in_order() -> None:
    net = network("crnn", CLASSES).net
    assert [layer.name for layer in layers(net, CLASSES)] == [
        "backbone.stem", "backbone.stages.0", "backbone.stages.1", "backbone.stages.2", "enter", "recurrent.0",
        "recurrent.1", "recurrent.2", "head",
    ]  # fmt: skip


def test_a_sequential_is_split_and_a_norm_belongs_to_the_layer_before_it() -> None:
    net = nn.Module()
    net.layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 6), nn.Linear(6, CLASSES))
    found = layers(net, CLASSES)
    assert [(layer.name, len(layer.modules)) for layer in found] == [("layers.0", 2), ("layers.3", 1), ("head", 1)]
