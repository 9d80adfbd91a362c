"""The networks. First their units, then each network as a sequence of blocks C1 C2 C3 C4 O.

Every network takes float images of shape (batch, 3, 32, 32), normalised, and returns float logits of shape
(batch, classes). The file needs torch alone.
"""

from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_unit(in_channels: int, out_channels: int, dropout: float, **convolution: int) -> nn.Sequential:
    """A 3x3 convolution (padding 1, no bias: BatchNorm has one), ReLU, BatchNorm, Dropout.

    convolution: arguments of nn.Conv2d; stride=2 halves the map, dilation=2 makes each side 2 shorter.
    """
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False, **convolution)
    return _unit(out_channels, dropout, convolution=layer)


def separable_unit(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise 1x1 convolution, ReLU, BatchNorm, Dropout.

    There is no activation between the two convolutions (Chollet, 2017, https://arxiv.org/abs/1610.02357).
    """
    depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    return _unit(out_channels, dropout, depthwise=depthwise, pointwise=pointwise)


def _unit(channels: int, dropout: float, **convolutions: nn.Module) -> nn.Sequential:
    norm = nn.BatchNorm2d(channels)
    rest = {"activation": nn.ReLU(), "norm": norm, "dropout": nn.Dropout(dropout)}
    return nn.Sequential(OrderedDict(convolutions | rest))


class GlobalAvgPool2d(nn.Module):
    """The mean of each channel's map: nn.AdaptiveAvgPool2d(1), but for rounding and the gradient's layout.

    That module's gradient is not channels_last, and the backward pass of the BatchNorm before it then takes a
    CPU five times as long.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, channels, height, width) to (batch, channels, 1, 1)."""
        return F.avg_pool2d(features, features.shape[2:])


def output(average: nn.Module, channels: int, classes: int) -> nn.Sequential:
    """The global average, then a 1x1 convolution to the classes, without bias.

    Raises ValueError if classes is less than 1.
    """
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    classifier = nn.Conv2d(channels, classes, 1, bias=False)
    return nn.Sequential(OrderedDict(global_average=average, classifier=classifier))


class BlockNet(nn.Module):
    """A network of blocks in sequence; a subclass sets them in this order: C1 C2 C3 C4 O."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of normalised images (batch, 3, height, width)."""
        features = self.C4(self.C3(self.C2(self.C1(images))))
        return self.O(features).flatten(1)


class S9Net(BlockNet):
    """The reference network: C1 C2 C3 C4 O, 174,352 parameters, receptive field 51.

    Each block has three units. The third one reduces the map: by dilation in C1 (32 to 30 pixels), by
    stride 2 in C2 (to 15) and C3 (to 8). The only pooling is the global average in O.

    dropout: probability in 0..1, after every unit. The default is 0, because the network underfits.
    classes: at least 1.

    Images must have 32 x 32 pixels. Raises ValueError if dropout or classes is out of range.
    """

    def __init__(self, dropout: float = 0.0, classes: int = 10) -> None:
        super().__init__()
        unit = partial(conv_unit, dropout=dropout)
        self.C1 = nn.Sequential(unit(3, 16), unit(16, 16), unit(16, 16, dilation=2))
        self.C2 = nn.Sequential(unit(16, 32), unit(32, 32), unit(32, 32, stride=2))
        self.C3 = nn.Sequential(separable_unit(32, 48, dropout), unit(48, 48), unit(48, 48, stride=2))
        self.C4 = nn.Sequential(unit(48, 64), unit(64, 64), unit(64, 64))
        self.O = output(nn.AvgPool2d(8), 64, classes)


class ResidualUnit(nn.Module):
    """A 3x3 convolution, BatchNorm, activation, plus the input if it has the same shape.

    Residual connections: He et al., 2015, https://arxiv.org/abs/1512.03385.

    stride=2 halves the map. With padding 1, a dilation d makes each side 2 (d - 1) shorter; with padding d
    the map keeps its size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        activation: type[nn.Module] = nn.SiLU,
        stride: int = 1,
        padding: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels, out_channels, 3, stride, padding, dilation, groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = activation()
        self.residual = in_channels == out_channels and stride == 1 and padding == dilation

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, height, width) to (batch, out_channels, ...)."""
        result = self.activation(self.norm(self.convolution(features)))
        return features + result if self.residual else result


class SeparableUnit(nn.Module):
    """A depthwise 3x3 convolution, BatchNorm, 1x1 to 3 * in_channels, SiLU, 1x1 to out_channels, BatchNorm.

    The order is ConvNeXt's (Liu et al., 2022, https://arxiv.org/abs/2201.03545), with one activation, between
    the 1x1 convolutions. The input is added if it has out_channels.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = 3 * in_channels
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.norm = nn.BatchNorm2d(in_channels)
        self.pointwise = nn.Conv2d(in_channels, inner, 1)
        self.activation = nn.SiLU()
        self.projection = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.projection_norm = nn.BatchNorm2d(out_channels)
        self.residual = in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        inner = self.activation(self.pointwise(self.norm(self.depthwise(features))))
        result = self.projection_norm(self.projection(inner))
        return features + result if self.residual else result


class GatedUnit(nn.Module):
    """A depthwise 5x5 convolution, BatchNorm, 1x1 to twice the channels, of which one half gates the other, 1x1
    back, BatchNorm, plus the input if the map keeps its size.

    The gate is a sigmoid (GLU: Dauphin et al., 2016, https://arxiv.org/abs/1612.08083). With SiLU, whose
    product grows as the square of its input, outliers overflow after some units in evaluation mode, where
    BatchNorm does not bound them.

    With padding 2, a dilation d makes each side 4 (d - 1) shorter; with padding 2 d the map keeps its size.
    """

    def __init__(self, channels: int, padding: int = 2, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, 5, padding=padding, dilation=dilation, groups=channels, bias=False
        )
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.gate = nn.Sigmoid()
        self.projection = nn.Conv2d(channels, channels, 1, bias=False)
        self.projection_norm = nn.BatchNorm2d(channels)
        self.residual = padding == 2 * dilation

    def forward(self, features: Tensor) -> Tensor:
        """Maps (batch, channels, height, width) to (batch, channels, ...)."""
        gate, values = self.pointwise(self.norm(self.depthwise(features))).chunk(2, dim=1)
        result = self.projection_norm(self.projection(self.gate(gate) * values))
        return features + result if self.residual else result


class BestNet(BlockNet):
    """The most accurate network here below the assignment's limit: C1 C2 C3 C4 O, 199,856 parameters.

    The map has 32, 30, 15 and then 13 pixels a side: C3 reduces it by dilation, not by stride 2 as in the
    reference, because three fifths of the parameters are in its last unit and later. Convolutions are dense
    up to C4, which ends in two separable units, wide for few parameters.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(ResidualUnit(3, 16), ResidualUnit(16, 16), ResidualUnit(16, 32, dilation=2))
        self.C2 = nn.Sequential(ResidualUnit(32, 32), ResidualUnit(32, 32), ResidualUnit(32, 48, stride=2))
        self.C3 = nn.Sequential(ResidualUnit(48, 48), ResidualUnit(48, 48), ResidualUnit(48, 64, dilation=2))
        self.C4 = nn.Sequential(
            ResidualUnit(64, 64, dilation=2, padding=2),
            SeparableUnit(64, 64),
            SeparableUnit(64, 72),
        )
        self.O = output(GlobalAvgPool2d(), 72, classes)


class DilatedNet(BlockNet):
    """The extra credit: no stride, no pooling but the global average; C1 C2 C3 C4 O, 199,856 parameters.

    In place of stride 2, the third convolution of C1, C2 and C3 is dilated, by 2, 2 and 3, with padding 1:
    the map has 32, 30, 28 and 24 pixels a side. In C3 and C4 other convolutions are dilated as well, with
    padding that keeps its size, so that the receptive field is 45 pixels. It has no gaps, because undilated
    convolutions fill those of dilated ones (Wang et al., 2018, https://arxiv.org/abs/1702.08502). Images must
    have at least 9 x 9 pixels.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(ResidualUnit(3, 16), ResidualUnit(16, 16), ResidualUnit(16, 32, dilation=2))
        self.C2 = nn.Sequential(ResidualUnit(32, 32), ResidualUnit(32, 32), ResidualUnit(32, 48, dilation=2))
        self.C3 = nn.Sequential(
            ResidualUnit(48, 48, dilation=2, padding=2),
            ResidualUnit(48, 48, dilation=3, padding=3),
            ResidualUnit(48, 64, dilation=3),
        )
        self.C4 = nn.Sequential(
            ResidualUnit(64, 64, dilation=4, padding=4),
            SeparableUnit(64, 64),
            SeparableUnit(64, 72),
        )
        self.O = output(GlobalAvgPool2d(), 72, classes)


class GatedNet(BlockNet):
    """For a GPU: dense in C1, as BestNet, then gated units."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(ResidualUnit(3, 16), ResidualUnit(16, 16), ResidualUnit(16, 56, dilation=2))
        self.C2 = nn.Sequential(GatedUnit(56), GatedUnit(56), ResidualUnit(56, 88, stride=2, groups=8))
        self.C3 = nn.Sequential(GatedUnit(88), GatedUnit(88), GatedUnit(88, padding=3, dilation=2))
        self.C4 = nn.Sequential(GatedUnit(88), GatedUnit(88), GatedUnit(88))
        self.O = output(GlobalAvgPool2d(), 88, classes)


class GatedWideNet(BlockNet):
    """For a GPU: gated units from C1 on."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(ResidualUnit(3, 48), GatedUnit(48), GatedUnit(48, padding=3, dilation=2))
        self.C2 = nn.Sequential(GatedUnit(48), GatedUnit(48), ResidualUnit(48, 88, stride=2, groups=8))
        self.C3 = nn.Sequential(GatedUnit(88), GatedUnit(88), GatedUnit(88, padding=3, dilation=2))
        self.C4 = nn.Sequential(GatedUnit(88), GatedUnit(88), GatedUnit(88))
        self.O = output(GlobalAvgPool2d(), 88, classes)


class FastNet(BlockNet):
    """The network of `--preset fast`, for the shortest time to 85%: C1 C2 C3 C4 O, 494,368 parameters.

    Each block has three units, the third with stride 2 in C1, C2 and C3: the map has 32, 16, 8 and 4 pixels a
    side. There are few channels where the map is large, because a channel costs most there. Training begins
    with small images. It exceeds the assignment's limit of parameters.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        unit = partial(ResidualUnit, activation=nn.ReLU)
        self.C1 = nn.Sequential(unit(3, 32), unit(32, 16), unit(16, 16, stride=2))
        self.C2 = nn.Sequential(unit(16, 32), unit(32, 32), unit(32, 32, stride=2))
        self.C3 = nn.Sequential(unit(32, 64), unit(64, 64), unit(64, 64, stride=2))
        self.C4 = nn.Sequential(unit(64, 128), unit(128, 128), unit(128, 128))
        self.O = output(GlobalAvgPool2d(), 128, classes)

    @torch.no_grad()
    def init_whitening(self, images: Tensor) -> None:
        """Initialises the first convolution to whiten the 3x3 patches of images, and freezes it.

        Its kernels are the strongest principal components of the patches, scaled to variance 1, each with
        both signs because a ReLU follows (Page, 2019, https://github.com/davidcpage/cifar10-fast; Jordan,
        2024, https://arxiv.org/abs/2404.00498).

        images: normalised float32 (n, 3, height, width).
        """
        convolution = self.C1[0].convolution
        patches = F.unfold(images, 3).transpose(1, 2).flatten(0, 1)
        variances, components = torch.linalg.eigh(patches.T @ patches / len(patches))
        count = len(convolution.weight) // 2
        kernels = (components / (variances + 5e-4).sqrt()).T.flip(0)[:count]
        convolution.weight.copy_(torch.cat([kernels, -kernels]).view_as(convolution.weight))
        convolution.weight.requires_grad_(False)


NETWORKS = {
    "reference": S9Net,
    "best": BestNet,
    "gated": GatedNet,
    "gated-wide": GatedWideNet,
    "dilated": DilatedNet,
    "fast": FastNet,
}


def build(name: str, classes: int = 10) -> nn.Module:
    """Returns a new network by its name in NETWORKS, its weights drawn from torch's global random state.

    Raises ValueError if there is no network of that name, or if classes is less than 1.
    """
    if name not in NETWORKS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](classes=classes)


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, trained or frozen, each counted once."""
    return sum(parameter.numel() for parameter in network.parameters())
