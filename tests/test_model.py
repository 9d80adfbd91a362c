import random

import pytest
import torch
import torch.nn.functional as F
from networks import Network
from torch import nn

from model import NETWORKS, FastNet, ResidualUnit, S9Net, SeparableUnit, build, count_parameters
from s9.analysis.receptive_field import receptive_field
from s9.analysis.summary import count_multiply_adds, summary
from s9.errors import UserError


def cells(table):
    """The table's words, line by line: that README's rows are three blanks short."""
    return [line.split() for line in table.splitlines()]


def test_the_summary_is_the_one_of_the_assignment_in_whole(request):
    expected = (request.path.parent / "reference_summary.txt").read_text(encoding="utf-8")
    assert cells(summary(S9Net(dropout=0.05))) == cells(expected)


@pytest.mark.parametrize("classes", [10, 7])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_logits_of_its_classes_and_learns_with_every_weight(name, classes):
    network = build(name, classes)
    logits = network(torch.randn(3, 3, 32, 32))
    assert (logits.shape, logits.dtype) == ((3, classes), torch.float32)
    logits.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_global_average_is_the_mean_and_its_gradient_is_channels_last(name):
    average = build(name).O.global_average
    features = torch.randn(2, 5, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    result = average(features)
    torch.testing.assert_close(result, features.mean((2, 3), keepdim=True))
    (gradient,) = torch.autograd.grad(result.sum(), features)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", NETWORKS)
def test_too_few_classes(name):
    with pytest.raises(ValueError, match=r"^classes must be at least 1, got 0$"):
        build(name, classes=0)


@pytest.mark.parametrize("measure", [receptive_field, summary, count_multiply_adds])
def test_a_measure_leaves_all_as_it_was(measure):
    network = S9Net(dropout=0.05)
    network.C2.eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [layer.training for layer in network.modules()]
    random_states = torch.get_rng_state().tolist(), random.getstate()
    measure(network)
    assert (torch.get_rng_state().tolist(), random.getstate()) == random_states
    assert [layer.training for layer in network.modules()] == modes
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    assert not any(layer._forward_hooks for layer in network.modules())


@pytest.mark.parametrize("layer", [nn.LSTM(32, 4), Network(lambda n, x: {"a": x})], ids=["LSTM", "dict"])
def test_what_torchsummary_cannot_show_is_one_line(layer):
    network = Network(lambda n, x: (n.layer(x[:, 0]), x)[1], layer=layer)
    with pytest.raises(UserError, match=r"^torchsummary cannot show Network: its modules must t") as caught:
        summary(network)
    assert "\n" not in str(caught.value)


SHARED = nn.Conv2d(3, 3, 3)


@pytest.mark.parametrize(
    ("network", "total", "count"),
    [
        (nn.Sequential(SHARED, SHARED), 168, 84),
        (Network(lambda n, x: n.a(x) * n.scale, a=SHARED, scale=nn.Parameter(torch.ones(3, 1, 1))), 84, 87),
    ],
    ids=["shared", "bare"],
)
def test_the_number_of_parameters_is_beside_a_total_that_differs(network, total, count):
    lines = summary(network).splitlines()
    assert f"Total params: {total}" in lines
    assert lines[-1] == f"Parameters, each counted once, in all modules: {count}"
    assert count_parameters(network) == count


# The fast network


def images_of_patches(count=64, size=16):
    """Smooth random images: neighbouring pixels and colours agree, as in photographs."""
    torch.manual_seed(0)
    images = F.avg_pool2d(torch.randn(count, 3, size + 4, size + 4), 5, stride=1)
    return images + images.mean(1, keepdim=True)


def test_init_whitening_whitens_patches_and_freezes_the_first_convolution_alone():
    """What the convolution gives on the same images: uncorrelated, with both signs, of variance 1 but for the
    5e-4 that keep a weak component's kernel finite."""
    network, images = FastNet(), images_of_patches()
    network.init_whitening(images)
    convolution = network.C1[0].convolution
    count = convolution.out_channels // 2
    inside = convolution(images)[:, :, 1:-1, 1:-1].transpose(0, 1).flatten(1)
    covariance = inside[:count] @ inside[:count].T / inside.shape[1]
    patches = F.unfold(images, 3).transpose(1, 2).flatten(0, 1)
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)[:count]
    torch.testing.assert_close(covariance, (variances / (variances + 5e-4)).diag(), rtol=0, atol=1e-3)
    assert covariance.diag().min() > 0.9
    assert torch.equal(inside[:count], -inside[count:])

    frozen = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    assert frozen == ["C1.0.convolution.weight"]


@pytest.mark.parametrize("size", [8, 20, 28])
def test_the_fast_network_takes_small_images(size):
    assert FastNet().eval()(torch.zeros(2, 3, size, size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("channels", "convolution", "side", "added"),
    [
        (16, {}, 12, True),
        (16, {"dilation": 2, "padding": 2}, 12, True),
        (32, {}, 12, False),
        (16, {"stride": 2}, 6, False),
        (16, {"dilation": 2}, 10, False),
    ],
)
def test_a_residual_unit_adds_its_input_where_it_fits(channels, convolution, side, added):
    features = torch.randn(2, 16, 12, 12)
    unit = ResidualUnit(16, channels, nn.SiLU, **convolution).eval()
    result = F.silu(unit.norm(unit.convolution(features)))
    assert result.shape == (2, channels, side, side)
    assert torch.equal(unit(features), features + result if added else result)


@pytest.mark.parametrize(("channels", "added"), [(16, True), (24, False)])
def test_a_separable_unit_adds_its_input_where_it_fits(channels, added):
    features = torch.randn(2, 16, 8, 8)
    unit = SeparableUnit(16, channels).eval()
    inner = F.silu(unit.pointwise(unit.norm(unit.depthwise(features))))
    result = unit.projection_norm(unit.projection(inner))
    assert inner.shape == (2, 48, 8, 8)
    assert torch.equal(unit(features), features + result if added else result)


# The networks to hand in


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds", "view", "sides"),
    [
        ("reference", 174_352, 32_282_272, 51, [8, 15, 30, 32]),
        ("best", 199_856, 55_643_472, 47, [13, 15, 30, 32]),
        ("dilated", 199_856, 133_909_200, 45, [24, 28, 30, 32]),
        ("fast", 494_368, 20_350_208, 91, [4, 8, 16, 32]),
    ],
)
def test_the_size_of_a_network(name, parameters, multiply_adds, view, sides):
    network = build(name)
    assert count_parameters(network) == parameters
    assert count_multiply_adds(network) == multiply_adds
    rows = receptive_field(network)
    assert rows[-1].r_out == view
    assert sorted({row.n_out for row in rows}) == sides
    assert f"{parameters:,} parameters" in type(network).__doc__


def test_the_dilated_network_has_no_stride_and_pools_once():
    network = build("dilated")
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert {layer.stride for layer in convolutions} == {(1, 1)}
    pools = [name for name, layer in network.named_modules() if "Pool" in type(layer).__name__]
    assert pools == ["O.global_average"]
    assert all(row.s == row.j_out == 1 for row in receptive_field(network))
