"""The networks, smallest part first: a convolutional unit, a block, a network.

Every network takes float images of shape (batch, 3, 32, 32) and returns logits of shape (batch, 10).
It needs torch alone: copied into an empty folder, it builds every network.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "NETWORKS",
    "BestNet",
    "DilatedNet",
    "FastNet",
    "S9Net",
    "build",
    "count_parameters",
]


def conv_unit(in_channels: int, out_channels: int, dropout: float, **convolution: int) -> nn.Sequential:
    """A 3x3 convolution (padding 1, no bias: BatchNorm has one), ReLU, BatchNorm, Dropout.

    `convolution` is passed on: stride=2 halves the map, dilation=2 trims it by 2 and widens the view.
    """
    return nn.Sequential(
        OrderedDict(
            convolution=nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False, **convolution),
            activation=nn.ReLU(),
            norm=nn.BatchNorm2d(out_channels),
            dropout=nn.Dropout(dropout),
        )
    )


def separable_unit(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    """A depthwise separable convolution: 3x3 on each channel alone, then 1x1 across channels.

    Nothing stands between the two, as in Xception (Chollet, 2017, https://arxiv.org/abs/1610.02357).
    """
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
            pointwise=nn.Conv2d(in_channels, out_channels, 1, bias=False),
            activation=nn.ReLU(),
            norm=nn.BatchNorm2d(out_channels),
            dropout=nn.Dropout(dropout),
        )
    )


def classifier(channels: int, classes: int) -> nn.Conv2d:
    """A 1x1 convolution without bias. Raises ValueError for less than one class."""
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}")
    return nn.Conv2d(channels, classes, 1, bias=False)


class S9Net(nn.Module):
    """The reference network: C1 C2 C3 C4 O, 174,352 parameters, receptive field 51.

    Each block is three convolutional units; where the map shrinks, the third does it: by dilation in C1
    (32 to 30 pixels), by stride 2 in C2 (to 15) and C3 (to 8). No pooling but the global average in O.

    dropout: probability in 0..1 after every unit. 0 by default: so small a network underfits, and on a CPU
    the random numbers cost a good part of a training step. The summary is the same for any value.

    Raises ValueError for a dropout outside of 0..1.
    """

    def __init__(self, dropout: float = 0.0, classes: int = 10) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ValueError(f"dropout must be in 0..1, got {dropout}")
        self.C1 = nn.Sequential(
            conv_unit(3, 16, dropout),
            conv_unit(16, 16, dropout),
            conv_unit(16, 16, dropout, dilation=2),
        )
        self.C2 = nn.Sequential(
            conv_unit(16, 32, dropout),
            conv_unit(32, 32, dropout),
            conv_unit(32, 32, dropout, stride=2),
        )
        self.C3 = nn.Sequential(
            separable_unit(32, 48, dropout),
            conv_unit(48, 48, dropout),
            conv_unit(48, 48, dropout, stride=2),
        )
        self.C4 = nn.Sequential(
            conv_unit(48, 64, dropout),
            conv_unit(64, 64, dropout),
            conv_unit(64, 64, dropout),
        )
        self.O = nn.Sequential(
            OrderedDict(
                global_average=nn.AvgPool2d(8),
                classifier=classifier(64, classes),
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of normalised images (batch, 3, 32, 32)."""
        features = self.C4(self.C3(self.C2(self.C1(images))))
        return self.O(features).flatten(1)


class ResidualUnit(nn.Module):
    """A 3x3 convolution, BatchNorm, activation; the input is added where it fits (He et al., 2015).

    `convolution` is passed on, its padding 1 if not given: stride=2 halves the map, dilation=2 trims it by 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        activation: type[nn.Module] = nn.ReLU,
        **convolution: int,
    ) -> None:
        super().__init__()
        how = {"stride": 1, "padding": 1, "dilation": 1, **convolution}
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, bias=False, **how)
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = activation()
        keeps_size = how["stride"] == 1 and how["padding"] == how["dilation"]
        self.residual = in_channels == out_channels and keeps_size

    def forward(self, features: Tensor) -> Tensor:
        """Of a map (batch, in_channels, height, width), one (batch, out_channels, ...)."""
        result = self.activation(self.norm(self.convolution(features)))
        return features + result if self.residual else result


class SeparableUnit(nn.Module):
    """A depthwise 3x3 convolution, BatchNorm, then across channels: three times as many, SiLU, out_channels.

    The order is ConvNeXt's (Liu et al., 2022, https://arxiv.org/abs/2201.03545): one activation, where the
    channels are many, and none behind the sum. The input is added where it fits.
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
        """Of a map (batch, in_channels, height, width), one (batch, out_channels, height, width)."""
        inner = self.activation(self.pointwise(self.norm(self.depthwise(features))))
        result = self.projection_norm(self.projection(inner))
        return features + result if self.residual else result


def output(channels: int, classes: int) -> nn.Sequential:
    """The global average over a map of any size, and the classifier."""
    return nn.Sequential(
        OrderedDict(
            global_average=nn.AdaptiveAvgPool2d(1),
            classifier=classifier(channels, classes),
        )
    )


class BestNet(nn.Module):
    """The most accurate network here below the assignment's limit: C1 C2 C3 C4 O, 199,856 parameters.

    The reference's skeleton, 32 to 30 to 15 pixels, but then to 13 by dilation, where the reference halves
    the map again: three fifths of the parameters lie there and behind, and are worth more on more pixels.
    Dense convolutions up to C4, which are quicker than separable ones for their worth, then two separable
    units, which are wide for few parameters.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(
            ResidualUnit(3, 16, nn.SiLU),
            ResidualUnit(16, 16, nn.SiLU),
            ResidualUnit(16, 32, nn.SiLU, dilation=2),
        )
        self.C2 = nn.Sequential(
            ResidualUnit(32, 32, nn.SiLU),
            ResidualUnit(32, 32, nn.SiLU),
            ResidualUnit(32, 48, nn.SiLU, stride=2),
        )
        self.C3 = nn.Sequential(
            ResidualUnit(48, 48, nn.SiLU),
            ResidualUnit(48, 48, nn.SiLU),
            ResidualUnit(48, 64, nn.SiLU, dilation=2),
        )
        self.C4 = nn.Sequential(
            ResidualUnit(64, 64, nn.SiLU, dilation=2, padding=2),
            SeparableUnit(64, 64),
            SeparableUnit(64, 72),
        )
        self.O = output(72, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of normalised images (batch, 3, height, width)."""
        features = self.C4(self.C3(self.C2(self.C1(images))))
        return self.O(features).flatten(1)


class DilatedNet(nn.Module):
    """The extra credit: no stride, no pooling but the global average; C1 C2 C3 C4 O, 199,856 parameters.

    In place of stride 2, the third convolution of C1, C2 and C3 is dilated, by 2, 3 and 3, and not padded:
    it takes 4 or 6 pixels off the map, 32 to 28 to 22 to 16. To take off more would be quicker, and worse: it
    is the image's border that goes. Without stride no layer widens the view of those behind it, so
    convolutions in between are dilated as well, and padded: the receptive field is 45 pixels. The dilations
    rise from 1 to 3, so that no pixel is passed over (Wang et al., 2018, https://arxiv.org/abs/1702.08502).
    It takes images of at least 17 x 17.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(
            ResidualUnit(3, 16, nn.SiLU),
            ResidualUnit(16, 16, nn.SiLU),
            ResidualUnit(16, 32, nn.SiLU, dilation=2, padding=0),
        )
        self.C2 = nn.Sequential(
            ResidualUnit(32, 32, nn.SiLU),
            ResidualUnit(32, 32, nn.SiLU, dilation=2, padding=2),
            ResidualUnit(32, 48, nn.SiLU, dilation=3, padding=0),
        )
        self.C3 = nn.Sequential(
            ResidualUnit(48, 48, nn.SiLU, dilation=2, padding=2),
            ResidualUnit(48, 48, nn.SiLU, dilation=2, padding=2),
            ResidualUnit(48, 64, nn.SiLU, dilation=3, padding=0),
        )
        self.C4 = nn.Sequential(
            ResidualUnit(64, 64, nn.SiLU, dilation=3, padding=3),
            SeparableUnit(64, 64),
            SeparableUnit(64, 72),
        )
        self.O = output(72, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of normalised images (batch, 3, height, width)."""
        features = self.C4(self.C3(self.C2(self.C1(images))))
        return self.O(features).flatten(1)


class FastNet(nn.Module):
    """The network of `--preset fast`, for the shortest time to 85%: C1 C2 C3 C4 O again, 494,368 parameters.

    Three units a block, the third with stride 2 in C1, C2 and C3: 32, 16, 8, 4 pixels. It is narrow where the
    map is large, because there a channel costs most. It takes any image of at least 8 x 8, so that training
    can begin with small ones, and it is above the assignment's limit of parameters: fast, not for handing in.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.C1 = nn.Sequential(ResidualUnit(3, 32), ResidualUnit(32, 16), ResidualUnit(16, 16, stride=2))
        self.C2 = nn.Sequential(ResidualUnit(16, 32), ResidualUnit(32, 32), ResidualUnit(32, 32, stride=2))
        self.C3 = nn.Sequential(ResidualUnit(32, 64), ResidualUnit(64, 64), ResidualUnit(64, 64, stride=2))
        self.C4 = nn.Sequential(ResidualUnit(64, 128), ResidualUnit(128, 128), ResidualUnit(128, 128))
        self.O = output(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of normalised images (batch, 3, height, width)."""
        features = self.C4(self.C3(self.C2(self.C1(images))))
        return self.O(features).flatten(1)

    @torch.no_grad()
    def init_whitening(self, images: Tensor) -> None:
        """Makes the first convolution whiten the patches of `images` (n, 3, height, width), and freezes it.

        Its kernels are the patches' strongest principal components, each scaled to variance 1 and taken with
        both signs for the ReLU behind it, so that the next layers start from decorrelated colours and edges
        (Page, 2019, https://github.com/davidcpage/cifar10-fast; Jordan, 2024, https://arxiv.org/abs/2404.00498).
        """
        convolution = self.C1[0].convolution
        patches = F.unfold(images, 3).transpose(1, 2).flatten(0, 1)
        variances, components = torch.linalg.eigh(patches.T @ patches / len(patches))
        count = len(convolution.weight) // 2
        kernels = (components / (variances + 5e-4).sqrt()).T.flip(0)[:count]
        convolution.weight.copy_(torch.cat([kernels, -kernels]).view_as(convolution.weight))
        convolution.weight.requires_grad_(False)


NETWORKS = {"reference": S9Net, "best": BestNet, "dilated": DilatedNet, "fast": FastNet}


def build(name: str, classes: int = 10) -> nn.Module:
    """A new network by its name in NETWORKS, its weights drawn from torch's global random state.

    Raises ValueError for another name, or if classes is less than 1.
    """
    if name not in tuple(NETWORKS):
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(NETWORKS)}")
    return NETWORKS[name](classes=classes)


def count_parameters(network: nn.Module) -> int:
    """Every parameter, trained or not: what the assignment's limit of 200,000 is about."""
    return sum(parameter.numel() for parameter in network.parameters())
