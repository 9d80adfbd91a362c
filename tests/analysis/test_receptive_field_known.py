"""receptive_field on networks whose number is published."""

import pytest
import torch
import torchvision
from conftest import long_tests
from networks import last
from torch import nn

KNOWN = {  # Araujo et al., 2019; ResNet-50 with its stride in the 3x3 convolution, as torchvision has it.
    "alexnet": 195,
    "vgg16": 212,
    "resnet18": 435,
    "resnet50": 427,
    "densenet121": 2071,
    "mobilenet_v2": 491,
    "inception_v3": 1311,
}


def torchvision_network(name):
    """Its weights are left unset where it lets them: to draw them takes longer than the test."""
    options = {"init_weights": False} if name in ("inception_v3", "googlenet", "vgg16", "vgg11") else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = getattr(torchvision.models, name)(weights=None, **options)
    return network.to_empty(device="cpu")


QUICK = ("resnet18", "mobilenet_v2", "resnet50", "alexnet")


@pytest.mark.parametrize("name", KNOWN if long_tests() else QUICK)
def test_a_known_network(name):
    assert last(torchvision_network(name), (3, 96, 96)).r_out == KNOWN[name]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf"])
def test_gates_do_not_count(name):
    """Every squeeze-and-excitation taken out leaves the same number."""
    network = torchvision_network(name)
    with_gates = last(network, (3, 64, 64)).r_out
    for block in list(network.modules()):
        for child, module in list(block.named_children()):
            if isinstance(module, torchvision.ops.SqueezeExcitation):
                setattr(block, child, nn.Identity())
    assert last(network, (3, 64, 64)).r_out == with_gates


@pytest.mark.parametrize("side", [32, 97, 224])
def test_the_number_does_not_depend_on_the_image(side):
    assert last(torchvision_network("resnet18"), (3, side, side + 16)).r_out == 435
