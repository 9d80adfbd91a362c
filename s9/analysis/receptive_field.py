"""How far each layer of a convolutional network sees.

The network itself is run, in evaluation mode, in an arithmetic where the value of an element is the last
pixel row (or the first, the last column, the first) that it depends on: a sum, a product or an activation
is the maximum of its arguments, a convolution the maximum over its window and its group of channels, and
whatever only moves elements (slices, views, concatenations, in-place writes) is torch's own. The result is
read where the image's border does not cut it: images are enlarged along one axis until two sizes agree.

On layers alone this is Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285, and Araujo et al., 2019,
https://distill.pub/2019/computing-receptive-fields: behind a window of kernel k, stride s and dilation d

    r_out = r_in + d * (k - 1) * j_in,    j_out = j_in * s

By the same convention as there, what looks at the whole map at once is left out: global pooling and all
behind it, flattening for a linear layer, the gates of squeeze-and-excitation, the statistics of
normalisation; and pooling to a fixed grid, if no window wider than one position slides behind it.
"""

from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from torch import nn

from s9.analysis.graph import Operation, copy_to_try, one_line, trace
from s9.analysis.reach import Clipped, Reach, Step, Unknown, View
from s9.errors import UserError

Measured = tuple[dict[int, Step], View | None]
"""The steps by their number in the plan, and the widest end: what Reach.measure returns."""
Size = int | float | tuple[int | float, int | float]
ENLARGED = 192
"""Pixels by which an image grows: a multiple of the usual strides, so that maps keep their remainders."""
TIMES = (1, 2, 4, 8, 16, 32)


class Row(NamedTuple):
    """A layer, or a place where branches meet, in pixels; (height, width) where the two differ."""

    layer: str
    """The module's dotted name in the network, or the name of the operation, numbered."""
    r_in: Size
    """Receptive field of a position of the layer's input."""
    n_in: Size
    """Side of the layer's input."""
    j_in: Size
    """Input pixels between two neighbouring positions of the layer's input; a fraction behind up-sampling."""
    s: Size
    """Stride."""
    r_out: Size
    n_out: Size
    j_out: Size


def receptive_field(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Row]:
    """A row a layer, in the order of execution; the last row's `r_out` is the network's receptive field.

    network: any module that takes one image batch and runs the same operations for any image; left as it was.
    input_size: (channels, height, width) of an image.

    A network that ends in several branches gets a last row "output": the widest of them. A position of a map
    sees from the first to the last pixel that any of its channels sees.

    Raises UserError if the network does not take images of that size or somewhat larger ones, if what it does
    depends on their values, or if it holds an operation whose effect on positions is not known here.
    """
    plan = trace(network, input_size)
    try:
        return _table(plan, *(_measured(network, plan, axis) for axis in (2, 3)))
    except Unknown as error:
        raise UserError(f"receptive_field cannot measure {type(network).__name__}: {error}") from error


def _measured(network: nn.Module, plan: list[Operation], axis: int) -> Measured:
    """What Reach.measure finds along an axis, on the first two sizes of the image that give the same."""
    for times in TIMES:
        try:
            found, again = (
                Reach(plan, axis, ENLARGED * more).measure(copy_to_try(network, plan[0].after[1:]))
                for more in (times, times + 1)
            )
        except Clipped:
            continue
        except Unknown:
            raise
        except Exception as error:
            raise Unknown(f"it does not take a larger image: {one_line(error)}") from error
        if found == again:
            return found
        break
    raise Unknown("what it sees depends on the size of the image")


def _table(plan: list[Operation], vertical: Measured, horizontal: Measured) -> list[Row]:
    steps, steps_across = vertical[0], horizontal[0]
    if steps.keys() != steps_across.keys():
        raise Unknown("it has a map along one axis alone")
    table, counts = [], Counter()
    for number, step in sorted(steps.items()):
        name = plan[number].layer
        if not name:  # cat, cat_1, cat_2, ...
            kind = plan[number].name
            name = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
        across = steps_across[number]
        if step.counts or across.counts:
            table.append(_row(name, step, across))
    ends = vertical[1], horizontal[1]
    if not all(ends):
        raise Unknown("its output depends on no pixel")
    last = _row("output", *(Step(end, end, True) for end in ends))
    if not table or table[-1].r_out != last.r_out:
        table.append(last)
    return table


def _row(name: str, down: Step, across: Step) -> Row:
    def size(height: int | Fraction, width: int | Fraction) -> Size:
        height, width = (int(side) if side == int(side) else float(side) for side in (height, width))
        return height if height == width else (height, width)

    before, after = (
        list(map(size, *views)) for views in ((down.before, across.before), (down.after, across.after))
    )
    stride = size(*(step.after.j / step.before.j for step in (down, across)))
    return Row._make([name, *before, stride, *after])
