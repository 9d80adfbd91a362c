import warnings

import pytest
import torch
import torch.nn.functional as F
from conftest import long_tests
from networks import Network, alias, assert_exact, convolution, last, random_network, split
from torch import nn

from model import S9Net
from s9.analysis.receptive_field import receptive_field
from s9.errors import UserError

# The table in the README of the notebook that this repo rebuilds; its slip corrected: conv_11 sees 43 pixels.
REFERENCE = """
C1.0.convolution   1 32 1 1  3 32 1
C1.1.convolution   3 32 1 1  5 32 1
C1.2.convolution   5 32 1 1  9 30 1
C2.0.convolution   9 30 1 1 11 30 1
C2.1.convolution  11 30 1 1 13 30 1
C2.2.convolution  13 30 1 2 15 15 2
C3.0.depthwise    15 15 2 1 19 15 2
C3.0.pointwise    19 15 2 1 19 15 2
C3.1.convolution  19 15 2 1 23 15 2
C3.2.convolution  23 15 2 2 27  8 4
C4.0.convolution  27  8 4 1 35  8 4
C4.1.convolution  35  8 4 1 43  8 4
C4.2.convolution  43  8 4 1 51  8 4
"""


def test_the_reference_network():
    table = [row.split() for row in REFERENCE.strip().splitlines()]
    assert [[str(cell) for cell in row] for row in receptive_field(S9Net())] == table


def test_random_networks_see_what_the_gradient_reaches(capsys):
    """Layers of every kind that is known, one after the other; S9_LONG=1 takes 3,000 networks."""
    networks, refused = 3000 if long_tests() else 12, 0
    for seed in range(networks):
        network, period = random_network(seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using padding='same'")
            try:
                assert_exact(network, period)
            except UserError:
                refused += 1
    with capsys.disabled():
        print(f" {networks - refused} exact, {refused} refused ", end="")
    assert refused <= networks / 20


SMALL, WIDE = convolution(3), convolution(9)
EXACT = {
    "an alias of what changes in place": Network(alias, a=convolution(3), b=convolution(9), c=convolution(3)),
    "channels apart": Network(split, a=SMALL, b=WIDE, c=WIDE, d=SMALL, start=1),
    "rolled, transposed": Network(
        lambda n, x: n.a(x.roll(1, 3).mT).mT, a=nn.Conv2d(3, 3, (3, 5), padding="same")
    ),
    "a root that is one convolution": nn.Conv2d(3, 3, (3, 5), (2, 1), (1, 0), (1, 2)),
    "a layer that is not used": Network(lambda n, x: (n.a(x), n.b(x))[0], a=convolution(3), b=convolution(7)),
    "an argument with a default": nn.Sequential(
        nn.Conv2d(3, 3, 3), type("Scaled", (nn.Module,), {"forward": lambda self, x, scale=2.0: x * scale})()
    ),
    "arguments by name": Network(
        lambda n, x: F.conv2d(weight=n.w, input=x, stride=2), w=nn.Parameter(torch.ones(3, 3, 3, 3))
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_network_of_an_unusual_form(name):
    assert_exact(EXACT[name])


# Properties


def test_the_network_is_left_as_it_was():
    network = S9Net(dropout=0.1).train()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    random_state = torch.get_rng_state()
    receptive_field(network)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    assert all(module.training and not module._forward_hooks for module in network.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_a_network_of_other_numbers(kind):
    network = S9Net().to(kind)
    assert last(network).r_out == 51
    assert {parameter.dtype for parameter in network.parameters()} == {kind}


HEAD = nn.Linear(3, 10)
GLOBAL_POOLINGS = {
    "AdaptiveAvgPool2d": lambda n, x: n.head(n.adaptive(x).flatten(1)),
    "adaptive_max_pool2d": lambda n, x: n.head(F.adaptive_max_pool2d(x, 1).flatten(1)),
    "AvgPool2d": lambda n, x: n.head(n.pool(x).flatten(1)),
    "avg_pool2d": lambda n, x: n.head(F.avg_pool2d(x, 32).flatten(1)),
    "avg_pool2d over x.shape": lambda n, x: n.head(F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1)),
    "mean": lambda n, x: n.head(x.mean((2, 3))),
    "mean, NumPy's way": lambda n, x: n.head(x.mean(axis=(2, 3))),
    "channels last": lambda n, x: n.head(x.permute(0, 2, 3, 1).mean((1, 2))),
    "flatten and Linear": lambda n, x: n.wide(x.flatten(1)),
    "mean in two steps": lambda n, x: n.head(x.mean(3).mean(2)),
    "a smaller grid": lambda n, x: n.small(F.adaptive_avg_pool2d(x, 2).flatten(1)),
    "a smaller grid, Dropout": lambda n, x: n.small(F.dropout(F.adaptive_avg_pool2d(x, 2) + 0).flatten(1)),
    "a smaller grid, no Linear": lambda n, x: F.adaptive_avg_pool2d(x, 2).flatten(1),
    "a fixed view": lambda n, x: n.wide(x.view(-1, 3 * 32 * 32)),
    "a fixed reshape": lambda n, x: n.wide(x.reshape(-1, 3 * 32 * 32)),
    "a gate of two means": lambda n, x: x * n.head(x.mean(3).mean(2))[:, :3, None, None].sigmoid(),
    "a gate of the whole map": lambda n, x: x * F.max_pool2d(x, (x.size(2), x.size(3))).sigmoid(),
    "uneven grid for a Linear": lambda n, x: n.grid_head(F.adaptive_avg_pool2d(x, 7).flatten(1)),
}


@pytest.mark.parametrize("name", GLOBAL_POOLINGS)
def test_global_pooling_ends_the_table(name):
    network = Network(
        lambda n, x: GLOBAL_POOLINGS[name](n, n.layer(x)),
        layer=convolution(3),
        head=HEAD,
        small=nn.Linear(3 * 2 * 2, 10),
        wide=nn.Linear(3 * 32 * 32, 10),
        grid_head=nn.Linear(3 * 7 * 7, 10),
        pool=nn.AvgPool2d(32),
        adaptive=nn.AdaptiveAvgPool2d(1),
    )
    assert [tuple(row) for row in receptive_field(network)] == [("layer", 1, 32, 1, 1, 3, 32, 1)]


def test_an_average_that_covers_a_small_image_is_a_layer_if_others_follow():
    network = nn.Sequential(convolution(3), nn.AvgPool2d(2), convolution(3), nn.AdaptiveAvgPool2d(1))
    assert [last(network, (3, side, side)).r_out for side in (2, 4, 32)] == [8, 8, 8]


def test_pooling_to_a_grid_is_a_layer_if_others_follow():
    network = nn.Sequential(convolution(3), nn.AdaptiveAvgPool2d((10, 12)), convolution(3))
    assert last(network, (3, 60, 60)).r_out == (20, 17)


def test_a_maximum_that_is_named_like_an_average_is_a_layer():
    network = Network(lambda n, x: n.avg_pool2d(x).flatten(1), avg_pool2d=nn.MaxPool2d(2))
    assert [last(network, (3, side, side)).r_out for side in (2, 4)] == [2, 2]


def test_a_gate_with_a_wider_layer_does_not_count():
    network = Network(
        lambda n, x: n.a(x) * n.b(x).mean((2, 3), keepdim=True).sigmoid(), a=convolution(3), b=convolution(7)
    )
    assert last(network).r_out == 3


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("end", ["pooled", "maps", "summed"])
def test_a_network_that_ends_in_branches_ends_in_the_widest(order, end):
    ends = {
        "pooled": lambda first, second: torch.cat([first.mean((2, 3)), second.mean((2, 3))], 1),
        "maps": lambda first, second: (first, second),
        "summed": lambda first, second: first + second,
    }
    network = Network(
        lambda n, x: ends[end](*(getattr(n, name)(x) for name in order)), a=convolution(7), b=convolution(3)
    )
    assert last(network).r_out == 7


def test_unequal_axes_are_pairs_of_height_and_width():
    network = Network(lambda n, x: (n.a(x), n.b(x)), a=nn.Conv2d(3, 3, (7, 1)), b=nn.Conv2d(3, 3, (3, 5)))
    assert last(network).r_out == (7, 5)
