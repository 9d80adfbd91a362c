"""Networks to test receptive_field with, and what they see, found by experiment."""

import random

import torch
import torch.nn.functional as F
from torch import nn

from s9.analysis.receptive_field import receptive_field


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
