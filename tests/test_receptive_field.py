import random

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from errors import UserError
from model import S9Net
from receptive_field import receptive_field

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


class Network(nn.Module):
    """Calls `function(network, images)`, with the modules at hand as attributes."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, images):
        return self.function(self, images)


def convolution(kernel, padding=None, **arguments):
    return nn.Conv2d(3, 3, kernel, padding=kernel // 2 if padding is None else padding, **arguments)


def last(network, input_size=(3, 32, 32)):
    return receptive_field(network, input_size)[-1]


def test_the_reference_network():
    table = [row.split() for row in REFERENCE.strip().splitlines()]
    assert [[str(cell) for cell in row] for row in receptive_field(S9Net())] == table


# What a network sees, found by experiment: every weight is positive, so nothing cancels. An infinite pixel
# then makes all outputs infinite that depend on it, be it through a sum or through a maximum.


def make_positive(network):
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return network.double().eval()


def seen(network, size, position):
    """The first and last pixel, per axis, that the output at `position` depends on."""
    bounds = []
    with torch.no_grad():
        for axis in (0, 1):
            lines = []
            for line in range(size[axis]):
                images = torch.ones(1, 3, *size, dtype=torch.float64)
                images.select(2 + axis, line).fill_(torch.inf)
                lines.append(not network(images)[0, :, position[0], position[1]].isfinite().all())
            hit = [line for line, reached in enumerate(lines) if reached]
            bounds.append((hit[0], hit[-1]))
    return bounds


def seen_by_gradient(network, size, position):
    """The same through one backward pass; right only without max-pooling, whose gradient is sparse."""
    images = torch.ones(1, 3, *size, dtype=torch.float64, requires_grad=True)
    network(images)[0, :, position[0], position[1]].sum().backward()
    support = images.grad[0].sum(0) != 0
    return [(int(hits.nonzero()[0]), int(hits.nonzero()[-1])) for hits in (support.any(1), support.any(0))]


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def assert_exact(network, size, probe):
    """The last row against the experiment, at two neighbouring positions in the middle of the map."""
    with torch.no_grad():
        sides = tuple(make_positive(network)(torch.zeros(1, 3, *size, dtype=torch.float64)).shape[2:])
    row = last(network, (3, *size))
    assert pair(row.n_out) == sides
    middle = tuple(side // 2 for side in sides)
    here = probe(network, size, middle)
    there = probe(network, size, tuple(place + 1 for place in middle))
    for axis in (0, 1):
        assert here[axis][0] > 0 and there[axis][1] < size[axis] - 1, "the border cuts it off: larger image"
        assert here[axis][1] - here[axis][0] + 1 == pair(row.r_out)[axis]
        assert there[axis][0] - here[axis][0] == pair(row.j_out)[axis]


KERNELS = (1, 2, 3, 4, 5, (1, 3), (3, 1), (5, 2), (2, 3))


class Residual(nn.Module):
    def __init__(self, body, form):
        super().__init__()
        self.body, self.form = body, form

    def forward(self, images):
        if self.form == "function":
            return torch.add(images, self.body(images))
        if self.form == "in place":
            new = self.body(images)
            new += images
            return new
        return images + self.body(images)


class Branches(nn.Module):
    """Branches of unlike reach and padding, cut to one size, concatenated and mixed."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second, self.mix = first, second, nn.Conv2d(6, 3, 1)

    def forward(self, images):
        return self.mix(torch.cat([self.first(images), self.second(images)], 1))


class Functional(nn.Module):
    """A convolution or a pooling as a function."""

    def __init__(self, kind, kernel, stride, padding, dilation):
        super().__init__()
        self.kind, self.arguments = kind, {"stride": stride, "padding": padding}
        self.kernel, self.dilation = kernel, dilation
        if kind == "conv2d":
            self.weight = nn.Parameter(torch.ones(3, 3, *pair(kernel)))

    def forward(self, images):
        if self.kind == "conv2d":
            return F.conv2d(images, self.weight, dilation=self.dilation, **self.arguments)
        if self.kind == "avg_pool2d":
            return F.avg_pool2d(images, self.kernel, **self.arguments)
        return F.max_pool2d(images, kernel_size=self.kernel, **self.arguments)


def random_unit(draw, pooling):
    """A layer or two that take and give three channels, and never make the map larger than by padding."""
    kernel, dilation = draw.choice(KERNELS), draw.choice((1, 1, 2, (1, 2)))
    stride = draw.choice((1, 1, 1, 2, (2, 1), (1, 3)))
    padding = draw.choice((0, 1, 2, (0, 1), (2, 0)))
    half = tuple(side // 2 for side in pair(kernel))
    pooled = draw.choice((0, half))
    kinds = ["convolution", "same", "valid", "depthwise", "pad", "average", "function", "average function"]
    kinds += ["residual", "branches", "cropped branches"]
    kind = draw.choice(kinds + ["maximum", "maximum function"] * 4 * pooling)
    match kind:
        case "convolution":
            return nn.Conv2d(3, 3, kernel, stride, padding, dilation)
        case "same" | "valid":
            return nn.Conv2d(3, 3, kernel, padding=kind, dilation=dilation)
        case "depthwise":
            return nn.Sequential(nn.Conv2d(3, 3, kernel, stride, padding, groups=3), nn.Conv2d(3, 3, 1))
        case "pad":
            edges = tuple(draw.randrange(4) for _ in range(4))
            return nn.Sequential(nn.ZeroPad2d(edges), nn.Conv2d(3, 3, kernel))
        case "average":
            return nn.AvgPool2d(kernel, stride, pooled)
        case "maximum":
            return nn.MaxPool2d(kernel, stride, pooled)
        case "function":
            return Functional("conv2d", kernel, stride, padding, dilation)
        case "average function":
            return Functional("avg_pool2d", kernel, stride, pooled, 1)
        case "maximum function":
            return Functional("max_pool2d", kernel, stride, pooled, 1)
        case "residual":
            body = nn.Conv2d(3, 3, kernel, padding="same", dilation=dilation)
            return Residual(body, draw.choice(("module", "function", "in place")))
        case "branches":
            reaches = [draw.choice(KERNELS) for _ in range(2)]
            return Branches(*(nn.Conv2d(3, 3, reach, padding="same") for reach in reaches))
        case "cropped branches":  # Their centres differ: together they see more than the wider alone.
            left, right = nn.ZeroPad2d((2, 0, 3, 0)), nn.ZeroPad2d((0, 2, 0, 3))
            return Branches(nn.Sequential(left, nn.Conv2d(3, 3, 3)), nn.Sequential(right, nn.Conv2d(3, 3, 3)))


def random_network(seed, pooling):
    draw = random.Random(seed)
    units = []
    for _ in range(draw.randint(1, 5)):
        units += [random_unit(draw, pooling), nn.Identity(), nn.ReLU()]
    return nn.Sequential(*units)


@pytest.mark.parametrize("seed", range(80))
def test_a_random_network_without_max_pooling(seed):
    network = random_network(seed, pooling=False)
    assert_exact(network, (151, 167), seen_by_gradient)


@pytest.mark.parametrize("seed", range(24))
def test_a_random_network_with_max_pooling(seed):
    network = random_network(seed, pooling=True)
    assert_exact(network, (91, 97), seen)


def functional_forms(network, images):
    images = F.relu(network.a(images)).permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    left, right = images.chunk(3, dim=1)[0], torch.split(images, [1, 2], dim=1)[1]
    images = torch.cat((left, right), dim=1)
    shuffled = images.view(images.size(0), 3, 1, images.size(2), images.size(3)).transpose(1, 2)
    images = shuffled.reshape(images.shape)
    images = F.pad(images, (1, 2, images.size(2) % 2, 1))[:, :3]
    return network.b(images) * 2 + 1


EXACT = {
    "views, permutations, chunks": Network(functional_forms, a=convolution(3), b=convolution(5, 1)),
    "strides wider than kernels": nn.Sequential(
        nn.Conv2d(3, 3, 3, 2), nn.Conv2d(3, 3, 1, 3), nn.Conv2d(3, 3, 2)
    ),
    "a root that is one convolution": nn.Conv2d(3, 3, (3, 5), (2, 1), (1, 0), (1, 2)),
    "the same layer twice": Network(lambda n, x: n.a(n.a(x)), a=convolution(3)),
    "a crop": Network(lambda n, x: n.a(F.pad(x, (-2, -1, -3, -1))), a=convolution(3)),
    "branches apart": Network(
        lambda n, x: n.a(F.pad(x, (6, 0, 0, 6))) + n.a(F.pad(x, (0, 6, 6, 0))), a=convolution(3)
    ),
    "even adaptive pooling": nn.Sequential(convolution(3), nn.AdaptiveAvgPool2d((10, 12)), convolution(3)),
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
    assert_exact(EXACT[name], (60, 60), seen_by_gradient)


# Known networks

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


@pytest.mark.parametrize("name", [*KNOWN, *BY_HAND])
def test_a_known_network(name):
    side = 299 if name == "inception_v3" else 224
    expected = KNOWN[name] if name in KNOWN else by_hand(BY_HAND[name])
    assert last(torchvision_network(name), (3, side, side)).r_out == expected


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf", "resnext50_32x4d"])
def test_gates_do_not_count(name):
    """Every squeeze-and-excitation taken out leaves the same number."""
    network = torchvision_network(name)
    with_gates = last(network, (3, 64, 64)).r_out
    for block in list(network.modules()):
        for child, module in list(block.named_children()):
            if isinstance(module, torchvision.ops.SqueezeExcitation):
                setattr(block, child, nn.Identity())
    assert last(network, (3, 64, 64)).r_out == with_gates


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("resnet18", (32, 97, 224)),
        ("densenet121", (32, 256)),
        ("vgg11", (32, 448)),
        ("alexnet", (96, 256)),
    ],
)
def test_the_number_does_not_depend_on_the_image(name, sides):
    network = torchvision_network(name)
    usual = last(network, (3, 224, 224)).r_out
    assert [last(network, (3, side, side + 16)).r_out for side in sides] == [usual] * len(sides)


# Properties


def test_the_network_is_left_as_it_was():
    network = S9Net(dropout=0.1).train()
    network.C1.eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    receptive_field(network)
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("kind", [torch.float64, torch.float16])
def test_a_network_of_other_numbers(kind):
    network = S9Net().to(kind)
    assert last(network).r_out == 51
    assert {parameter.dtype for parameter in network.parameters()} == {kind}


def test_unequal_axes_are_pairs_of_height_and_width():
    row = last(nn.Sequential(nn.Conv2d(3, 3, (1, 3), stride=(1, 2))), (3, 20, 31))
    assert tuple(row) == ("0", 1, (20, 31), 1, (1, 2), (1, 3), (20, 15), (1, 2))


def test_a_layer_is_named_as_in_the_network():
    network = S9Net()
    assert all(isinstance(network.get_submodule(row.layer), nn.Conv2d) for row in receptive_field(network))


HEAD = nn.Linear(3, 10)
GLOBAL_POOLINGS = {
    "AdaptiveAvgPool2d": lambda n, x: n.head(n.adaptive(x).flatten(1)),
    "adaptive_avg_pool2d": lambda n, x: n.head(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)),
    "adaptive_max_pool2d": lambda n, x: n.head(F.adaptive_max_pool2d(x, 1).flatten(1)),
    "AvgPool2d": lambda n, x: n.head(n.pool(x).flatten(1)),
    "AvgPool2d, squeezed": lambda n, x: n.head(n.pool(x).squeeze(3).squeeze(2)),
    "avg_pool2d": lambda n, x: n.head(F.avg_pool2d(x, 32).flatten(1)),
    "avg_pool2d over x.shape": lambda n, x: n.head(F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1)),
    "avg_pool2d over x.size(2)": lambda n, x: n.head(F.avg_pool2d(x, x.size(2)).view(-1, 3)),
    "mean": lambda n, x: n.head(x.mean((2, 3))),
    "torch.mean": lambda n, x: n.head(torch.mean(x, dim=[-2, -1])),
    "mean, NumPy's way": lambda n, x: n.head(x.mean(axis=(2, 3))),
    "channels last": lambda n, x: n.head(x.permute(0, 2, 3, 1).mean((1, 2))),
    "amax": lambda n, x: n.head(x.amax((2, 3))),
    "flatten and Linear": lambda n, x: n.wide(x.flatten(1)),
    "view and Linear": lambda n, x: F.relu(n.wide(x.view(x.shape[0], -1))),
    "a 1x1 convolution behind": lambda n, x: n.point(F.adaptive_avg_pool2d(x, 1)).flatten(1),
    "log_softmax behind": lambda n, x: F.log_softmax(n.pool(x).flatten(1), dim=1),
    "LogSoftmax behind": lambda n, x: n.logarithm(n.pool(x).flatten(1)),
    "uneven grid for a Linear": lambda n, x: n.grid_head(F.adaptive_avg_pool2d(x, 7).flatten(1)),
}


@pytest.mark.parametrize("name", GLOBAL_POOLINGS)
def test_global_pooling_ends_the_table(name):
    network = Network(
        lambda n, x: GLOBAL_POOLINGS[name](n, n.layer(x)),
        layer=convolution(3),
        head=HEAD,
        wide=nn.Linear(3 * 32 * 32, 10),
        grid_head=nn.Linear(3 * 7 * 7, 10),
        pool=nn.AvgPool2d(32),
        adaptive=nn.AdaptiveAvgPool2d(1),
        point=nn.Conv2d(3, 10, 1),
        logarithm=nn.LogSoftmax(1),
    )
    assert [tuple(row) for row in receptive_field(network)] == [("layer", 1, 32, 1, 1, 3, 32, 1)]


def test_an_average_that_covers_a_small_image_is_a_layer_if_others_follow():
    network = nn.Sequential(convolution(3), nn.AvgPool2d(2), convolution(3), nn.AdaptiveAvgPool2d(1))
    assert [last(network, (3, side, side)).r_out for side in (2, 4, 32)] == [8, 8, 8]


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


def test_branches_of_unlike_shape_end_in_the_widest_of_each_axis():
    network = Network(lambda n, x: (n.a(x), n.b(x)), a=nn.Conv2d(3, 3, (7, 1)), b=nn.Conv2d(3, 3, (3, 5)))
    assert last(network).r_out == (7, 5)


# Errors


def assert_one_line(caught, capsys):
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def raw(function, **modules):
    return Network(lambda n, x: n.b(function(n, n.a(x))), a=convolution(3), b=convolution(3), **modules)


UNKNOWN = {
    "roll": raw(lambda n, x: torch.roll(x, 1, 3)),
    "interpolate": raw(lambda n, x: F.interpolate(x, scale_factor=2)),
    "Upsample": raw(lambda n, x: n.m(x), m=nn.Upsample(scale_factor=2)),
    "PixelShuffle": raw(lambda n, x: n.m(x.repeat(1, 4, 1, 1)), m=nn.PixelShuffle(2)),
    "ConvTranspose2d": raw(lambda n, x: n.m(x), m=nn.ConvTranspose2d(3, 3, 2, 2)),
    "Softmax over positions": raw(lambda n, x: n.m(x), m=nn.Softmax(dim=-1)),
    "softmax over positions": raw(lambda n, x: F.softmax(x, dim=2)),
    "GLU over the width": raw(lambda n, x: n.m(x), m=nn.GLU()),
    "attention": raw(
        lambda n, x: n.m(*[x.flatten(2).transpose(1, 2)] * 3)[0].view(1, 3, 32, 32),
        m=nn.MultiheadAttention(3, 1),
    ),
    "matmul": raw(lambda n, x: torch.matmul(x, x)),
    "Linear over the width": raw(lambda n, x: n.m(x), m=nn.Linear(32, 32)),
    "slicing": raw(lambda n, x: x[:, :, ::2]),
    "slicing behind ...": raw(lambda n, x: x[..., 1:]),
    "slicing of swapped axes": raw(lambda n, x: x.permute(0, 1, 3, 2)[:, :, :4].permute(0, 1, 3, 2)),
    "a new axis": raw(lambda n, x: x[:, None].mean(1)),
    "cat along the width": raw(lambda n, x: torch.cat([x, x], 3)),
    "cat along the width, NumPy's way": raw(lambda n, x: torch.cat([x, x], axis=3)),
    "chunk of the height": raw(lambda n, x: x.chunk(2, 2)[0]),
    "mean of channels, NumPy's way": raw(lambda n, x: x.mean(axis=1, keepdim=True).expand(1, 3, 32, 32)),
    "mean along the height": raw(lambda n, x: x.mean(2, keepdim=True)),
    "mT": raw(lambda n, x: x.mT),
    "swapped axes": raw(lambda n, x: x.transpose(2, 3)),
    "flip": raw(lambda n, x: x.flip(3)),
    "a Linear between maps": raw(lambda n, x: n.m(x.flatten(1)).view(1, 3, 32, 32), m=nn.Linear(3072, 3072)),
    "there and back": raw(lambda n, x: x.flatten(1).view(1, 3, 32, 32)),
    "uneven pooling": raw(lambda n, x: F.adaptive_avg_pool2d(x, 7)),
    "two results": raw(lambda n, x: n.m(x)[0], m=nn.MaxPool2d(2, return_indices=True)),
    "one position for all": raw(lambda n, x: x * n.m(x), m=nn.Conv2d(3, 3, 32)),
    "unlike strides": raw(
        lambda n, x: x[:, :, :][:1] + n.m(F.pad(x, (16, 16, 16, 16))), m=nn.Conv2d(3, 3, 1, 2)
    ),
    "a change of what is used again": raw(lambda n, x: (x.add_(n.m(x)), x)[1], m=convolution(7)),
    "__iadd__": raw(lambda n, x: (x.__iadd__(n.m(x)), x)[1], m=convolution(7)),
    "a patch view": raw(lambda n, x: x.view(1, 3, 16, 2, 16, 2).sum((3, 5))),
    "unfold": raw(lambda n, x: F.unfold(x, 3, padding=1).view(1, 27, 32, 32)[:, :3]),
    "Conv1d": raw(lambda n, x: n.m(x.flatten(2)).view(1, 3, 32, 32), m=nn.Conv1d(3, 3, 3, padding=1)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_operation_is_no_number(name, capsys):
    with pytest.raises(UserError) as caught:
        receptive_field(UNKNOWN[name])
    assert "receptive_field does not know" in str(caught.value) or "cannot trace" in str(caught.value)
    assert_one_line(caught, capsys)


def test_the_unknown_operation_is_named():
    with pytest.raises(UserError, match=r"what ConvTranspose2d \(node 'm'\)"):
        receptive_field(UNKNOWN["ConvTranspose2d"])


@pytest.mark.parametrize(
    "network",
    [
        Network(lambda n, x: n.a(x) if x.sum() > 0 else x, a=convolution(3)),
        Network(lambda n, x: torch.stack([row for row in x])),  # noqa: C416
        nn.Sequential(nn.utils.weight_norm(convolution(3))),
        convolution(3).to("meta"),
    ],
    ids=["a choice", "a loop", "not to be copied", "no weights"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_network_that_cannot_be_traced(network, capsys):
    with pytest.raises(UserError, match="cannot trace"):
        receptive_field(network)


@pytest.mark.parametrize("input_size", [(3, 32), (3, 32, 0), (3, -1, 32), (3, 32.0, 32), 32, None, "322", ()])
def test_an_input_size_that_is_none(input_size, capsys):
    with pytest.raises(UserError, match="three positive integers") as caught:
        receptive_field(S9Net(), input_size)
    assert_one_line(caught, capsys)


@pytest.mark.parametrize("input_size", [(1, 32, 32), (3, 1, 1), (3, 8, 8)])
def test_an_image_that_does_not_fit(input_size, capsys):
    with pytest.raises(UserError, match="S9Net does not take an image of size") as caught:
        receptive_field(S9Net(), input_size)
    assert_one_line(caught, capsys)
