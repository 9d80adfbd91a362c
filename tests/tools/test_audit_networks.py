"""The audit on networks that break a rule.

They are changed in place where that will do, so that their class stays the one of model.py.
"""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from made_runs import NETWORK_CHECKS, Rule
from torch import nn

from model import S9Net, conv_unit


def changed(change):
    network = S9Net()
    change(network)
    return network


def of_model(forward):
    """A class that counts as defined in model.py, with another forward pass."""
    return type("S9Net", (S9Net,), {"__module__": "model", "forward": forward})()


def no_c3():
    network = of_model(lambda self, images: self.O(self.C4(self.C2(self.C1(images)))).flatten(1))
    del network.C3
    network.C4[0].convolution = nn.Conv2d(32, 64, 3, padding=1)
    network.O.global_average = nn.AvgPool2d(15)
    return network


def two_units(network):
    network.C1 = nn.Sequential(network.C1[0], network.C1[2])


def early_stride(network):
    network.C2[1].convolution.stride = (2, 2)
    network.C2[2].convolution.stride = (1, 1)


def cut_short(network):
    network.C2[2].convolution.stride = (1, 1)
    network.C2[2].convolution.padding = (0, 0)
    network.O.global_average = nn.AvgPool2d(14)


def pooled(pooling):
    def change(network):
        network.C2[2].convolution.stride = (1, 1)
        network.C2[2].add_module("pooling", pooling)

    return change


def small_view(network):
    for unit in network.C4:
        unit.convolution.kernel_size, unit.convolution.padding = (1, 1), (0, 0)
        unit.convolution.weight = nn.Parameter(unit.convolution.weight[:, :, :1, :1].detach().clone())


def grouped(network):
    network.C3[0].depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=16, bias=False)


def no_pointwise(network):
    network.C3[0].depthwise = nn.Identity()
    network.C3[0].pointwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
    network.C3[0].norm = nn.BatchNorm2d(32)
    network.C3[1].convolution = nn.Conv2d(32, 48, 3, padding=1, bias=False)


def classifier_is_no_pointwise(network):
    network.C3[0] = conv_unit(32, 48, 0)
    network.C4[2].convolution = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
    for unit in network.C1:  # Makes up for the parameters.
        unit.convolution.requires_grad_(False)


def not_dilated(network):
    network.C1[2].convolution.dilation = (1, 1)
    network.C1[2].convolution.stride = (2, 2)
    network.O.global_average = nn.AvgPool2d(4)


def dilated_in_vain(network):
    not_dilated(network)
    network.C3[0].pointwise = nn.Conv2d(32, 48, 1, dilation=2, bias=False)


def partial_average(network):
    network.O = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64 * 2 * 2, 10))


def maximum(network):
    network.O.global_average = nn.AdaptiveMaxPool2d(1)


def functional_max_pooling(network, images):
    features = F.max_pool2d(network.C2(network.C1(images)), 3, 1, 1)
    return network.O(network.C4(network.C3(features))).flatten(1)


NETWORKS = {
    "no C3": (no_c3(), {Rule.STRUCTURE, Rule.SHRINKING, Rule.VIEW, Rule.SEPARABLE}),
    "two units": (changed(two_units), {Rule.STRUCTURE}),
    "stride in the second unit": (changed(early_stride), {Rule.SHRINKING}),
    "shrinks by padding": (changed(cut_short), {Rule.SHRINKING, Rule.VIEW}),
    "max-pooling for stride": (changed(pooled(nn.MaxPool2d(2))), {Rule.SHRINKING, Rule.MAX_POOLING}),
    "functional max-pooling": (of_model(functional_max_pooling), {Rule.MAX_POOLING}),
    "small view": (changed(small_view), {Rule.VIEW}),
    "grouped, not depthwise": (changed(grouped), {Rule.SEPARABLE}),
    "depthwise without pointwise": (changed(no_pointwise), {Rule.SEPARABLE}),
    "depthwise before the classifier": (changed(classifier_is_no_pointwise), {Rule.SEPARABLE}),
    "not dilated": (changed(not_dilated), {Rule.DILATED}),
    "dilated 1x1": (changed(dilated_in_vain), {Rule.DILATED}),
    "average over quarters": (changed(partial_average), {Rule.GLOBAL_AVERAGE}),
    "global maximum": (changed(maximum), {Rule.GLOBAL_AVERAGE, Rule.MAX_POOLING}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_breaks_a_rule(name, audited):
    network, unmet = NETWORKS[name]
    assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert set(audited(network)) == unmet


def test_the_limit_of_parameters_itself_is_too_many(audited):
    for more, unmet in ((200_000 - 174_352, {Rule.PARAMETERS}), (199_999 - 174_352, set())):
        network = S9Net()
        network.register_parameter("more", nn.Parameter(torch.zeros(more)))
        assert set(audited(network)) == unmet


class Idle(nn.Sequential):
    """A unit that leaves out its part `dilated`."""

    def forward(self, features):
        for name, part in self.named_children():
            features = features if name == "dilated" else part(features)
        return features


@pytest.mark.parametrize(("unit", "unmet"), [(nn.Sequential, set()), (Idle, {Rule.DILATED})])
def test_a_layer_counts_if_it_is_used(unit, unmet, audited):
    network = changed(not_dilated)
    dilated = nn.Conv2d(32, 32, 3, padding=2, dilation=2, groups=16)
    network.C2[0] = unit(OrderedDict([*network.C2[0].named_children(), ("dilated", dilated)]))
    assert set(audited(network)) == unmet


def branching(network, images):
    return S9Net.forward(network, images if images.sum() > 0 else -images)


def failing(network, images):
    raise KeyError("no such thing")


@pytest.mark.parametrize("forward", [branching, failing])
def test_a_network_that_cannot_be_measured(forward, audited, capsys):
    unmet = audited(of_model(forward))
    assert set(unmet) == NETWORK_CHECKS - {Rule.STRUCTURE, Rule.PARAMETERS}
    assert all(measured.startswith("cannot be measured: ") for measured in unmet.values())
    assert capsys.readouterr() == ("", "")


def test_a_network_of_another_kind(audited):
    unmet = set(audited(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))))
    assert NETWORK_CHECKS - {Rule.MAX_POOLING, Rule.PARAMETERS} <= unmet <= NETWORK_CHECKS | {Rule.MODULAR}
