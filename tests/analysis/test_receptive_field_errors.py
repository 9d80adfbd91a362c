"""receptive_field on what it does not know: one line, never a wrong number."""

import pytest
import torch
import torch.nn.functional as F
from networks import Network, convolution
from torch import nn

from model import S9Net
from s9.analysis.receptive_field import receptive_field
from s9.errors import UserError


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
