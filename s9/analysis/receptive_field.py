"""How far each layer of a convolutional network sees.

By the arithmetic of Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285, and Araujo et al., 2019,
https://distill.pub/2019/computing-receptive-fields, on the operations that the network runs: after a window
of kernel k, stride s, padding p and dilation d

    r_out = r_in + d * (k - 1) * j_in,    j_out = j_in * s,    first_out = first_in - p * j_in

where the position at the upper left sees r pixels from the pixel `first` on, and its neighbour those from
`first + j` on. Where maps meet, a position sees from the first to the last pixel of all of them. Channels are
followed one by one.
"""

from collections import Counter
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s9.analysis.graph import BATCH, Argument, Operation, trace
from s9.errors import UserError

Size = int | tuple[int, int]
REDUCTIONS = frozenset("mean sum amax amin max min prod var std logsumexp linalg_vector_norm".split())
ADAPTIVE = ("_adaptive_avg_pool2d", "adaptive_max_pool2d")
NOTHING = torch.full((1, 2), -torch.inf)  # the reach of a channel that sees no pixel


class Row(NamedTuple):
    """A layer, or a place where branches meet, in pixels; (height, width) where the two differ."""

    layer: str  # the module's dotted name in the network, or the name of the operation, numbered
    r_in: Size  # receptive field of a position of the layer's input
    n_in: Size  # side of the layer's input
    j_in: Size  # input pixels between two neighbouring positions of it
    s: Size  # stride
    r_out: Size
    n_out: Size
    j_out: Size


class View(NamedTuple):
    """What a map sees along one axis."""

    r: int  # pixels from the first to the last that a position sees
    n: int  # positions
    j: int  # pixels between two neighbouring positions


class Map(NamedTuple):
    """What the positions of each channel of a map see along one axis, if the image has no border."""

    n: int
    j: int
    dim: int  # dimension of the positions, counted from the end
    reach: Tensor  # (channels, 2), or (1, 2) if alike: the first position sees from pixel -reach to reach

    @property
    def view(self) -> View:
        """What all its channels together see."""
        r = float(self.reach.amax(0).sum()) + 1
        if r < 1:
            raise Unknown("some channels depend on no pixel")
        return View(int(r), self.n, self.j)


class Step(NamedTuple):
    """A window over a map, or a meeting of maps, along one axis."""

    before: View
    after: View
    counts: bool  # False if each of the maps that meet sees as much as their sum


class Unknown(Exception):
    """What a network's positions see is not known; the text says why."""


def receptive_field(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Row]:
    """A row a layer, in the order of execution; the last row's `r_out` is the network's receptive field.

    network: any module that takes one image batch; left as it was.
    input_size: (channels, height, width) of an image.

    A network that ends in several branches gets a last row "output": the widest of them. A position of a map
    sees from the first to the last pixel that any of its channels sees. By the convention of Araujo et al.,
    what looks at the whole map at once is left out: global pooling and all after it, flattening for a linear
    layer, the gates of squeeze-and-excitation, the statistics of normalisation, and pooling to a fixed grid.

    Raises UserError if the network does not take images of that size, if what it does depends on their
    values, or if it holds an operation whose effect on positions is not known here, such as up-sampling.
    """
    plan = trace(network, input_size)
    try:
        (steps, end), (steps_across, end_across) = (_follow(plan, axis) for axis in (0, 1))
        if steps.keys() != steps_across.keys():
            raise Unknown("it has a map along one axis alone")
    except Unknown as error:
        raise UserError(f"receptive_field cannot measure {type(network).__name__}: {error}") from error
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


def _follow(plan: list[Operation], axis: int) -> tuple[dict[int, Step], View]:
    """The steps along an axis, by their number in the plan, and the widest map that the output sees."""
    _, channels, *sides = plan[0].after
    maps = {(0, 0): Map(sides[axis], 1, axis - 2, torch.zeros(channels, 2))}  # by operation and result
    summaries: dict[int, View] = {}  # by operation whose result is no map: the widest map before it
    steps = {}
    for number, operation in enumerate(plan[1:], 1):
        arguments = [_map(argument, maps) for argument in operation.arguments]
        seen = [one for one in arguments if one]
        made = [one for argument in operation.arguments for one in argument.made]
        views = [maps[one].view for one in made if one in maps]
        views += [summaries[source] for source, _ in made if source in summaries]
        if operation.name == "output":
            break
        if not seen and any(window.kernel > 1 for window in operation.windows):
            raise Unknown("a window slides over positions made anew from a vector")
        if not seen or _ends(operation, seen[0], axis):
            summaries[number] = max(views)
            continue
        results = _results(operation, arguments, axis)
        maps |= {(number, index): result for index, result in enumerate(results)}
        slides = bool(operation.windows) and operation.name != "constant_pad_nd"
        if operation.used and (slides or len(seen) > 1):
            before, after = {one.view for one in seen}, results[0].view
            steps[number] = Step(max(before), after, slides or before != {after})
    if not views:
        raise Unknown("its output depends on no pixel")
    return steps, max(views)


def _map(argument: Argument, maps: dict[tuple[int, int], Map]) -> Map | None:
    """The map that an argument is, if it is one.

    Raises Unknown if it is made of parts of maps, or may have changed in part since.
    """
    made, *since = (maps.get(one) for one in argument.made)
    positions = argument.shape[2:].numel()
    if not made and positions > 1 and any((writer, 0) in maps for writer in argument.writers):
        raise Unknown("a map is made anew from a vector or from parts of maps")
    if made and since:
        channels = {(*one[:3], *row) for one in (made, *since) if one for row in one.reach.tolist()}
        if None in since or len(channels) > 1:
            raise Unknown("a part of a map changes in place")
    return made


def _ends(operation: Operation, one: Map, axis: int) -> bool:
    """Whether an operation on a map looks at the whole of it at once."""
    name, after = operation.name, operation.after
    if name in REDUCTIONS:
        return one.dim in operation.dims
    if name in ("view", "squeeze"):
        return after[:1] == (BATCH,) and after[2:].numel() == 1
    whole = name == "avg_pool2d" and operation.windows[axis].kernel == one.n and after[2 + axis] == 1
    return one.dim == axis - 2 and (whole or name in ADAPTIVE)


def _results(operation: Operation, arguments: list[Map | None], axis: int) -> list[Map]:
    """What the results see of an operation that slides over a map or keeps its positions apart."""
    name, dims, after = operation.name, operation.dims, operation.after
    before = [argument.shape for argument in operation.arguments]
    seen = [one for one in arguments if one]
    n, j, dim, reach = seen[0]
    unknown = Unknown(f"what {operation.layer or name} does to positions is not known")
    if len({one[:3] for one in seen}) > 1:
        raise Unknown("maps of different sizes meet")
    if operation.pointwise and after[dim] == n:
        return [Map(n, j, dim, reduce(torch.maximum, (one.reach for one in seen)))]
    if name == "permute" and dims[0] == -4:
        return [Map(n, j, dims.index(dim) - 4, reach)]
    if len(before[0]) != 4 or dim != axis - 2:  # not (batch, channels, height, width)
        raise unknown
    if name == "cat" and dims == (-3,):
        parts = zip(arguments, before, strict=True)
        reaches = [(one.reach if one else NOTHING).expand(shape[1], 2) for one, shape in parts]
        return [Map(n, j, dim, torch.cat(reaches))]
    if len(seen) > 1 or not arguments[0]:
        raise unknown
    reach = reach.expand(before[0][1], 2)
    if name == "view" and after[2:] == before[0][2:]:  # an instance norm's
        reach = reach.expand(before[0][0], -1, -1).reshape(after[0], -1, 2).amax(0)
    elif name in REDUCTIONS and dims == (-3,):
        reach = reach.amax(0, keepdim=True)
    elif name in REDUCTIONS and dims == (-3 - dim,):  # over the other axis
        dim = dim if len(after) == 4 else -1
    elif operation.windows:
        k, s, p, d = operation.windows[axis]
        if name == "convolution":
            groups = before[0][1] // before[1][1]
            reach = reach.unflatten(0, (groups, -1)).amax(1).repeat_interleave(after[1] // groups, 0)
        n, j, reach = after[dim], j * s, reach + j * torch.tensor([p, d * (k - 1) - p])
    elif not operation.channels and (name, dims) != ("slice", (-4,)):
        raise unknown
    parts = [torch.cat([reach, NOTHING])[channels] for channels in operation.channels] or [reach]
    return [Map(n, j, dim, part) for part in parts]


def _row(name: str, down: Step, across: Step) -> Row:
    strides = down.after.j // down.before.j, across.after.j // across.before.j
    before = zip(down.before, across.before, strict=True)
    after = zip(down.after, across.after, strict=True)
    pairs = [*before, strides, *after]
    return Row._make([name, *(height if height == width else (height, width) for height, width in pairs)])
