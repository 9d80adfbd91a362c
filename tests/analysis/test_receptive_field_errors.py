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
    "bilinear up-sampling": raw(lambda n, x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "softmax over positions": raw(lambda n, x: F.softmax(x, dim=2)),
    "GLU over the width": raw(lambda n, x: n.m(x), m=nn.GLU()),
    "attention": raw(
        lambda n, x: n.m(*[x.flatten(2).transpose(1, 2)] * 3)[0].mT.view_as(x),
        m=nn.MultiheadAttention(3, 1, batch_first=True),
    ),
    "matmul": raw(lambda n, x: torch.matmul(x, x)),
    "Linear over the width": raw(lambda n, x: n.m(x), m=nn.Linear(32, 32)),
    "mean along the height": raw(lambda n, x: x + x.mean(2, keepdim=True)),
    "a Linear between maps": raw(lambda n, x: n.m(x.flatten(1)).view(-1, 3, 32, 32), m=nn.Linear(3072, 3072)),
    "uneven pooling": raw(lambda n, x: F.adaptive_avg_pool2d(x, 7)),
    "one position for all": raw(lambda n, x: x * n.m(x), m=nn.Conv2d(3, 3, 32)),
    "unlike strides": raw(lambda n, x: x + n.m(F.pad(x, (16, 16, 16, 16))), m=nn.Conv2d(3, 3, 1, 2)),
    "both halves at each position": raw(lambda n, x: x + x.flip(3)),
    "a map of fixed size": raw(lambda n, x: x + n.m, m=nn.Parameter(torch.zeros(1, 3, 32, 32))),
    "Conv1d": raw(lambda n, x: n.m(x.flatten(2)).view_as(x), m=nn.Conv1d(3, 3, 3, padding=1)),
    "a loop over the batch": raw(lambda n, x: torch.stack([image for image in x])),  # noqa: C416
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_operation_is_no_number(name, capsys):
    with pytest.raises(UserError, match="receptive_field cannot measure Network: ") as caught:
        receptive_field(UNKNOWN[name])
    assert_one_line(caught, capsys)


def test_an_output_that_depends_on_no_pixel_is_refused():
    network = Network(lambda n, x: n.a(x)[:, :, 1::2, 1::2], a=nn.ConvTranspose2d(3, 3, 1, 2))
    with pytest.raises(UserError, match="its output depends on no pixel"):
        receptive_field(network)


def test_a_choice_by_the_values_of_an_image_is_refused():
    with pytest.raises(UserError, match="must not depend on the values"):
        receptive_field(Network(lambda n, x: n.a(x) if x.sum() > 0 else x, a=convolution(3)))


@pytest.mark.parametrize(
    "network",
    [nn.Sequential(nn.utils.weight_norm(convolution(3))), convolution(3).to("meta")],
    ids=["not to be copied", "no weights"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_network_that_cannot_be_run(network):
    with pytest.raises(UserError, match="does not take an image"):
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
