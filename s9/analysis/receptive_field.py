"""How far each layer of a convolutional network sees.

By the arithmetic of Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285, and Araujo et al., 2019,
https://distill.pub/2019/computing-receptive-fields, on the operations that the network runs: behind a window
of kernel k, stride s, padding p and dilation d

    r_out = r_in + d * (k - 1) * j_in,    j_out = j_in * s,    first_out = first_in - p * j_in

where the position at the upper left sees r pixels from the pixel `first` on, and its neighbour those from
`first + j` on. Where maps meet, a position sees from the first to the last pixel of all of them.
"""

from collections import Counter
from typing import NamedTuple

from torch import nn

from s9.analysis.graph import BATCH, Operation, trace
from s9.errors import UserError

Size = int | tuple[int, int]
REDUCTIONS = frozenset("mean sum amax amin max min prod var std logsumexp linalg_vector_norm".split())
CHANNELS = frozenset(("split", "split_with_sizes", "slice"))
"""Operations that choose channels."""
KEEP = REDUCTIONS | CHANNELS | {"cat", "view"}
"""Operations, besides pointwise ones, that keep positions apart where the result has as many."""
END = REDUCTIONS | {"view", "squeeze", "avg_pool2d"}
"""Operations that make a vector of a map where the result has a single position."""
ADAPTIVE = ("_adaptive_avg_pool2d", "adaptive_max_pool2d")


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
    """What the positions of a map see along one axis, if the image has no border."""

    r: int  # pixels from the first to the last that a position sees
    n: int  # positions
    j: int  # pixels between two neighbouring positions
    first: int  # pixel that the first position sees first; below 0 in the padding
    mixed: bool  # whether some channels see less


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
    what looks at the whole map at once is left out: global pooling and all behind it, flattening for a linear
    layer, the gates of squeeze-and-excitation, the statistics of normalisation, and pooling to a fixed grid.

    Raises UserError if the network does not take images of that size, if what it does depends on their
    values, or if it holds an operation whose effect on positions is not known here, such as up-sampling.
    """
    plan = trace(network, input_size)
    try:
        (steps, end), (steps_across, end_across) = (_follow(plan, axis) for axis in (0, 1))
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
    maps = {0: View(1, plan[0].after[2 + axis], 1, 0, False)}
    summaries: dict[int, View] = {}  # by operation whose result is no map: the widest map behind it
    steps = {}
    for number, operation in enumerate(plan[1:], 1):
        views, behind = [], []
        for shape, sources in zip(operation.before, operation.writers, strict=True):
            seen = [maps[source] for source in sources if source in maps]
            if seen and len(shape) == 4:
                views.append(_meet(seen))
            else:
                behind += seen + [summaries[source] for source in sources if source in summaries]
        if operation.name == "output":
            break
        if not views:
            if any(window.kernel > 1 for window in operation.windows):
                raise Unknown("a window slides over positions made anew from a vector")
            summaries[number] = max(behind)
        elif _ends(operation):
            summaries[number] = max(views + behind)
        else:
            maps[number] = after = _result(operation, views, axis)
            slides = bool(operation.windows) and operation.name != "constant_pad_nd"
            if operation.used and (slides or len(views) > 1):
                unlike = {view[:3] for view in views} != {after[:3]}
                steps[number] = Step(max(views), after, slides or unlike)
    if not views + behind:
        raise Unknown("its output depends on no pixel")
    return steps, max(views + behind)


def _meet(views: list[View]) -> View:
    """What all channels of some maps together see."""
    if len({(view.n, view.j) for view in views}) > 1:
        raise Unknown("maps of different sizes meet")
    first, last = min(view.first for view in views), max(view.first + view.r for view in views)
    mixed = len(set(views)) > 1 or views[0].mixed
    return views[0]._replace(r=last - first, first=first, mixed=mixed)


def _ends(operation: Operation) -> bool:
    """Whether an operation on a map looks at the whole of it at once."""
    if operation.name in ADAPTIVE:
        return True
    whole = tuple(window.kernel for window in operation.windows) in ((), operation.before[0][2:])
    vector = operation.after[:1] in ((), (BATCH,)) and operation.after[2:].numel() == 1
    return operation.name in END and whole and vector


def _result(operation: Operation, views: list[View], axis: int) -> View:
    """What the positions see after an operation that slides over a map or keeps its positions apart."""
    view, before, after = _meet(views), operation.before[0], operation.after
    if operation.pointwise:
        return view._replace(mixed=any(view.mixed for view in views))
    keeps = operation.name in KEEP and len(after) == 4 and after[2 + axis] == view.n
    chosen = operation.name in CHANNELS and view.mixed
    if chosen or not (operation.windows or keeps) or before[2 + axis] != view.n:
        raise Unknown(f"what {operation.layer or operation.name} does to positions is not known")
    if not operation.windows:
        return view
    k, s, p, d = operation.windows[axis]
    dense = operation.name == "convolution" and before[1] == operation.before[1][1]
    r, first = view.r + d * (k - 1) * view.j, view.first - p * view.j
    return View(r, after[2 + axis], view.j * s, first, view.mixed and not dense)


def _row(name: str, down: Step, across: Step) -> Row:
    strides = down.after.j // down.before.j, across.after.j // across.before.j
    before = zip(down.before[:3], across.before[:3], strict=True)
    after = zip(down.after[:3], across.after[:3], strict=True)
    pairs = [*before, strides, *after]
    return Row._make([name, *(height if height == width else (height, width) for height, width in pairs)])
