"""receptive_field on networks whose number others have published, or the papers' tables give."""

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
BY_HAND = {  # The layers on the widest path, from the papers' tables: kernel/stride, times repeated.
    "vgg11": "3/1 2/2 3/1 2/2 3/1*2 2/2 3/1*2 2/2 3/1*2 2/2",
    "resnet34": "7/2 3/2 3/1*6 3/2 3/1*7 3/2 3/1*11 3/2 3/1*5",
    "squeezenet1_0": "7/2 3/2 3/1*3 3/2 3/1*4 3/2 3/1",
    "squeezenet1_1": "3/2 3/2 3/1*2 3/2 3/1*2 3/2 3/1*4",
    "googlenet": "7/2 3/2 3/1 3/2 3/1*2 3/2 3/1*5 2/2 3/1*2",
    "shufflenet_v2_x0_5": "3/2 3/2 3/2 3/1*3 3/2 3/1*7 3/2 3/1*3",
    "efficientnet_b0": "3/2 3/1 3/2 3/1 5/2 5/1 3/2 3/1*2 5/1*3 5/2 5/1*3 3/1",
    "mnasnet0_5": "3/2 3/1 3/2 3/1*2 5/2 5/1*2 5/2 5/1*2 3/1*2 5/2 5/1*3 3/1",
    "regnet_x_400mf": "3/2 3/2 3/2 3/1 3/2 3/1*6 3/2 3/1*11",
    "convnext_tiny": "4/4 7/1*3 2/2 7/1*3 2/2 7/1*9 2/2 7/1*3",
}


def by_hand(layers):
    size, jump = 1, 1
    for layer in layers.split():
        shape, _, times = layer.partition("*")
        kernel, stride = map(int, shape.split("/"))
        for _ in range(int(times or 1)):
            size, jump = size + (kernel - 1) * jump, jump * stride
    return size


def torchvision_network(name):
    """Its weights are left unset where it lets them: to draw them takes longer than the test."""
    options = {"init_weights": False} if name in ("inception_v3", "googlenet", "vgg16", "vgg11") else {}
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = getattr(torchvision.models, name)(weights=None, **options)
    return network.to_empty(device="cpu")


QUICK = ("resnet18", "squeezenet1_0", "mobilenet_v2", "shufflenet_v2_x0_5", "googlenet")


@pytest.mark.parametrize("name", [*KNOWN, *BY_HAND] if long_tests() else QUICK)
def test_a_known_network(name):
    expected = KNOWN[name] if name in KNOWN else by_hand(BY_HAND[name])
    assert last(torchvision_network(name), (3, 96, 96)).r_out == expected


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
