"""How far each layer of a convolutional network sees.

On layers alone this is Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285, and Araujo et al., 2019,
https://distill.pub/2019/computing-receptive-fields: behind a window of kernel k, stride s and dilation d

    r_out = r_in + d * (k - 1) * j_in,    j_out = j_in * s
"""

from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from torch import nn

from s9.analysis.graph import Operation, copy_to_try, one_line, trace
from s9.analysis.reach import Clipped, Reach, Step, Unknown, View
from s9.errors import UserError

Measured = tuple[dict[int, Step], View | None]  # what Reach.measure returns
Size = int | float | tuple[int | float, int | float]
ENLARGED = 192  # pixels that an image grows by: a multiple of usual strides, so that maps keep remainders
TIMES = (1, 2, 4, 8, 16, 32)


class Row(NamedTuple):
    """A layer, or a place where branches meet, in pixels; (height, width) where the two differ."""

    layer: str  # the module's dotted name in the network, or the name of the operation, numbered
    r_in: Size  # receptive field of a position of the layer's input
    n_in: Size  # side of the layer's input
    j_in: Size  # input pixels between two neighbouring positions of it; a fraction behind up-sampling
    s: Size  # stride
    r_out: Size
    n_out: Size
    j_out: Size


def receptive_field(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Row]:
    """A row a layer, in the order of execution; the last row's `r_out` is the network's receptive field.

    network: any module that takes one image batch and runs the same operations for any image; left as it was.
    input_size: (channels, height, width) of an image.

    A network that ends in several branches gets a last row "output": the widest of them. A position of a map
    sees from the first to the last pixel that any of its channels sees. By the convention of Araujo et al.,
    what looks at the whole map at once is left out: global pooling and all behind it, flattening for a linear
    layer, the gates of squeeze-and-excitation, the statistics of normalisation; and pooling to a fixed grid,
    if no window wider than one position slides behind it.

    Raises UserError if the network does not take images of that size or somewhat larger ones, if what it does
    depends on their values, or if it holds an operation whose effect on positions is not known here.
    """
    plan = trace(network, input_size)
    try:
        return _table(plan, *(_measured(network, plan, axis) for axis in (2, 3)))
    except Unknown as error:
        raise UserError(f"receptive_field cannot measure {type(network).__name__}: {error}") from error


def _measured(network: nn.Module, plan: list[Operation], axis: int) -> Measured:
    """What Reach.measure finds along an axis, read where the border of the image cuts nothing off.

    The image is enlarged until two sizes give the same.
    """
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


def _table(plan: list[Operation], down: Measured, across: Measured) -> list[Row]:
    (steps, end), (steps_across, end_across) = down, across
    if steps.keys() != steps_across.keys():
        raise Unknown("it has a map along one axis alone")
    if not (end and end_across):
        raise Unknown("its output depends on no pixel")
    table, counts = [], Counter()
    for number, step in steps.items():
        name = plan[number].layer
        if not name:  # cat, cat_1, cat_2, ...
            kind = plan[number].name
            name = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
        if step.counts or steps_across[number].counts:
            table.append(_row(name, step, steps_across[number]))
    last = _row("output", Step(end, end, True), Step(end_across, end_across, True))
    if not table or table[-1].r_out != last.r_out:
        table.append(last)
    return table


def _row(name: str, down: Step, across: Step) -> Row:
    before, after = (map(_size, *views) for views in zip(down[:2], across[:2], strict=True))
    stride = _size(down.after.j / down.before.j, across.after.j / across.before.j)
    return Row._make([name, *before, stride, *after])


def _size(height: int | Fraction, width: int | Fraction) -> Size:
    height, width = (int(side) if side == int(side) else float(side) for side in (height, width))
    return height if height == width else (height, width)
