"""Networks to test receptive_field with, and what they see, found by experiment."""

import random

import torch
import torch.nn.functional as F
from torch import nn

from s9.analysis.receptive_field import receptive_field


class Network(nn.Module):
    """Calls `function(network, images)`, with the modules at hand as attributes.

    `neutral`: nothing but sums, so that with positive weights the gradient reaches all that is seen.
    """

    def __init__(self, function, **modules):
        super().__init__()
        self.function, self.neutral = function, False
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, images):
        return self.function(self, images)


def convolution(kernel, padding=None, **arguments):
    return nn.Conv2d(3, 3, kernel, padding=kernel // 2 if padding is None else padding, **arguments)


def last(network, input_size=(3, 32, 32)):
    return receptive_field(network, input_size)[-1]


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


# What a network sees, found by experiment


def make_positive(network):
    for parameter in network.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    for module in network.modules():
        module.neutral = True
    return network.double().eval()


def seen_by_gradient(network, size, axis):
    """For two neighbouring lines in the middle of the map: first and last line of pixels with a gradient."""
    images = torch.ones(2, 3, *size, dtype=torch.float64, requires_grad=True)
    maps = make_positive(network)(images).movedim(2 + axis, 2)
    height, width = (side // 2 for side in maps.shape[2:])
    (maps[0, :, height, width] + maps[1, :, height + 1, width]).sum().backward()
    lines = [there.nonzero()[:, 0].tolist() for there in images.grad.sum((1, 3 - axis)) != 0]
    return [(there[0], there[-1]) for there in lines]


def assert_exact(network, size=(36, 40)):
    """The last row for an image of `size` against the experiment, on a larger image."""
    row = last(network, (3, *size))
    with torch.no_grad():
        assert pair(row.n_out) == tuple(network.eval()(torch.zeros(1, 3, *size)).shape[2:])
    reach = zip(size, pair(row.r_out), pair(row.j_out), strict=True)
    large = tuple(side + 3 * r + 9 * j for side, r, j in reach)
    for axis in (0, 1):
        (first, end), (next_first, _) = seen_by_gradient(network, large, axis)
        assert first > 0 and end < large[axis] - 1, "cut by the border"
        assert end - first + 1 == pair(row.r_out)[axis]
        assert next_first - first == pair(row.j_out)[axis]


KERNELS = (1, 2, 3, 4, 5, (1, 3), (3, 1), (5, 2), (2, 3))


def residual(n, x):
    if not n.in_place:
        return x + n.a(x)
    new = n.a(x)
    new += x
    return new


def branches(n, x):
    """Of unlike reach and padding, concatenated and mixed."""
    return n.mix(torch.cat([n.a(x), n.b(x)], 1))


def alias(n, x):
    y = n.a(x)
    keep = [y, x]
    y += n.b(x)
    return n.c(keep[0])


def split(n, x):
    """Channels of unlike reach, apart; some of them."""
    p, q = torch.cat([n.a(x), n.b(x)], 1).split(3, 1)
    y = torch.cat([n.c(p), n.d(q)], 1)
    return y[:, n.start : n.start + 3]


def shortcut(n, x):
    """Option A of He et al., 2015, https://arxiv.org/abs/1512.03385."""
    y = n.a(x)
    return y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, y.shape[1] - 3))


def skip(n, x):
    y = n.a(x)
    return x[:, :, n.cut : -n.cut, n.cut : -n.cut] + y


def spatial_gate(n, x):
    greatest = x.mean(1, keepdim=True) if n.neutral else x.max(1, keepdim=True)[0]
    gate = n.a(torch.cat([x.mean(1, keepdim=True), greatest], 1))
    return x * (gate if n.neutral else torch.sigmoid(gate))


def channel_gate(n, x):
    if n.neutral:
        return x
    gate = x.mean(3).mean(2) if n.steps else F.adaptive_avg_pool2d(x, 1).flatten(1)
    return x * torch.sigmoid(n.a(gate))[:, :, None, None].expand_as(x)


def channels_last(n, x):
    return x if n.neutral else n.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def pooled(n, x):
    if n.average or n.neutral:
        return F.avg_pool2d(x, n.kernel, n.stride, n.padding)
    return F.max_pool2d(x, n.kernel, n.stride, n.padding)


def random_unit(draw, kind):
    """A layer or a few that take and give three channels."""
    kernel, dilation = draw.choice(KERNELS), draw.choice((1, 1, 2, (1, 2)))
    stride = draw.choice((1, 1, 1, 2, (2, 1), (1, 3)))
    padding = draw.choice((0, 1, 2, (0, 1), (2, 0)))
    half = tuple(side // 2 for side in pair(kernel))
    a, b, c, d = (nn.Conv2d(3, 3, draw.choice(KERNELS), padding="same", dilation=dilation) for _ in range(4))
    match kind:
        case "convolution":
            return nn.Conv2d(3, 3, kernel, stride, padding, dilation)
        case "depthwise":
            return nn.Sequential(nn.Conv2d(3, 3, kernel, stride, padding, groups=3), nn.Conv2d(3, 3, 1))
        case "zero-pad":
            return nn.Sequential(nn.ZeroPad2d([draw.randrange(-2, 4) for _ in range(4)]), a)
        case "pooling":
            average, padding = draw.random() < 0.5, draw.choice((0, half))
            return Network(pooled, average=average, kernel=kernel, stride=stride, padding=padding)
        case "residual":
            return Network(residual, a=a, in_place=draw.random() < 0.5)
        case "branches":
            return Network(branches, a=a, b=b, mix=nn.Conv2d(6, 3, 1))
        case "nested":
            inner = Network(residual, a=a, in_place=False)
            mixed = Network(branches, a=inner, b=b, mix=nn.Conv2d(6, 3, 1))
            return Network(residual, a=mixed, in_place=True)
        case "cropped-branches":  # Their centres differ: together they see more than the wider alone.
            first = nn.Sequential(nn.ZeroPad2d((2, 0, 3, 0)), convolution(3, 0))
            second = nn.Sequential(nn.ZeroPad2d((0, 2, 0, 3)), convolution(3, 0))
            return Network(branches, a=first, b=second, mix=nn.Conv2d(6, 3, 1))
        case "alias":
            return Network(alias, a=a, b=b, c=c)
        case "split":
            return Network(split, a=a, b=b, c=c, d=d, start=draw.randrange(4))
        case "slice":
            rows, columns = (slice(draw.randrange(3), None, draw.choice((1, 2, 3))) for _ in range(2))
            return Network(lambda n, x: x[:, :, rows, columns])
        case "crop":
            padding = draw.choice((0, 1))
            return Network(skip, a=convolution(5, padding), cut=2 - padding)
        case "shortcut":
            channels = draw.choice((3, 5))
            unit = Network(shortcut, a=nn.Conv2d(3, channels, 3, 2, 1))
            return nn.Sequential(unit, nn.Conv2d(channels, 3, 1))
        case "spatial-gate":
            return Network(spatial_gate, a=nn.Conv2d(2, 1, 7, padding=3))
        case "channel-gate":
            return Network(channel_gate, a=nn.Linear(3, 3), steps=draw.random() < 0.5)
        case "channels-last":
            return Network(channels_last, a=nn.LayerNorm(3))
        case "norm":
            norm = draw.choice((nn.BatchNorm2d(3), nn.GroupNorm(3, 3), nn.InstanceNorm2d(3)))
            return Network(lambda n, x: x if n.neutral else n.a(x), a=norm)
        case "activation":
            function = draw.choice(ACTIVATIONS)
            return Network(lambda n, x: x if n.neutral else function(x * 1))


ACTIVATIONS = (F.gelu, F.silu, torch.tanh, F.hardswish, lambda x: F.relu(x, inplace=True))
KINDS = """convolution depthwise zero-pad pooling residual branches nested cropped-branches alias
split slice crop shortcut spatial-gate channel-gate channels-last norm activation""".split()


def random_network(seed):
    """A chain of random units."""
    draw = random.Random(seed)
    units = [random_unit(draw, draw.choice(KINDS)) for _ in range(draw.randint(1, 6))]
    return nn.Sequential(*units, nn.Conv2d(3, 3, 1))
