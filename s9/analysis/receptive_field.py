"""How far each layer of a convolutional network sees, from its traced graph.

One position of a feature map sees, on each axis, the input pixels `first` to `last`; its neighbour sees the
same, `jump` pixels on. A window of kernel k, stride s, dilation d and padding p moves these by

    first - p * jump,    last + (d * (k - 1) - p) * jump,    jump * s

(Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285; Araujo et al., 2019,
https://distill.pub/2019/computing-receptive-fields). Where branches meet, the position sees from the least
`first` to the greatest `last`: the widest path, and also what branches of unlike padding see together.

By the same convention as there, what looks at the whole map at once is left out: the global pooling at the
end and all behind it, the gates of squeeze-and-excitation, the statistics of normalisation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import fx, nn

from s9.analysis.graph import changes_its_input, function_name, trace
from s9.errors import UserError

Size = int | tuple[int, int]


class Row(NamedTuple):
    """A layer, or a place where branches meet, in pixels; (height, width) where the two differ."""

    layer: str
    """The module's dotted name in the network, or the name of the graph's node."""
    r_in: Size
    """Receptive field of a position of the layer's input."""
    n_in: Size
    """Side of the layer's input."""
    j_in: Size
    """Input pixels between two neighbouring positions of the layer's input."""
    s: Size
    """Stride."""
    r_out: Size
    n_out: Size
    j_out: Size


class View(NamedTuple):
    """What position 0 of a feature map sees on one axis: input pixels first..last, neighbours jump apart."""

    first: int
    last: int
    jump: int

    @property
    def size(self) -> int:
        """Pixels from the first to the last."""
        return self.last - self.first + 1


class Map(NamedTuple):
    """A tensor that still is a map of the image: its view per axis, and which dimensions the axes are."""

    views: tuple[View, View]
    axes: tuple[int, int]


class Window(NamedTuple):
    """A sliding window on one axis."""

    kernel: int
    stride: int
    dilation: int
    padding: int

    def over(self, view: View) -> View:
        """What position 0 behind the window sees, if position 0 before it sees `view`."""
        reach = self.dilation * (self.kernel - 1)
        return View(
            view.first - self.padding * view.jump,
            view.last + (reach - self.padding) * view.jump,
            view.jump * self.stride,
        )


POINTWISE_FAMILIES = frozenset(
    f"torch.nn.modules.{family}"
    for family in ("activation", "batchnorm", "dropout", "instancenorm", "linear", "normalization")
)
"""Where torch.nn defines the modules that leave every position where it is."""

MIXING_MODULES = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.GLU, nn.Bilinear)
"""The modules in those families that do not, or not for every `dim`."""

POINTWISE_FUNCTIONS = frozenset(
    """abs add add_ batch_norm celu clamp clone contiguous detach div div_ dropout dropout1d dropout2d elu
    exp float gelu group_norm hardsigmoid hardswish hardtanh iadd identity imul instance_norm isub itruediv
    layer_norm leaky_relu log maximum minimum mish mul mul_ neg pow prelu relu relu6 relu_ rsqrt selu
    sigmoid silu softplus softsign sqrt stochastic_depth sub sub_ tanh to truediv type""".split()
)
"""Names of functions and methods that do the same; their tensors meet position by position."""

WINDOW_MODULES = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
WINDOW_FUNCTIONS = {
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation"),
    "avg_pool2d": ("input", "kernel_size", "stride", "padding"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation"),
    "lp_pool2d": ("input", "norm_type", "kernel_size", "stride"),
}
ADAPTIVE_MODULES = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PADDING_MODULES = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)


def receptive_field(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Row]:
    """A row a layer, in the order of the graph; the last row's `r_out` is the network's receptive field.

    network: any module that torch.fx can trace and that takes one image batch; it is left as it was.
    input_size: (channels, height, width) of an image.

    A network that ends in several branches gets a last row "output": the widest of them.

    Raises UserError if the network cannot be traced, if the image does not fit it, or if it holds an
    operation whose effect on positions is not known here: never a wrong number.
    """
    return _Walk(trace(network, input_size)).rows()


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _size(values: tuple[int, int]) -> Size:
    return values[0] if values[0] == values[1] else values


def _windows(kernel: Size, stride: Size, padding: Size | str, dilation: Size) -> tuple[Window, Window]:
    kernels, dilations = _pair(kernel), _pair(dilation)
    if padding == "same":  # torch puts the odd pixel last
        padding = tuple(d * (k - 1) // 2 for k, d in zip(kernels, dilations, strict=True))
    elif padding == "valid":
        padding = 0
    return tuple(map(Window, kernels, _pair(stride), dilations, _pair(padding)))


class _Walk:
    """One pass over a traced graph. `maps` holds a Map for each node that still is one, else None."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.maps: dict[fx.Node, Map | None] = {}
        self.table: list[Row] = []

    def rows(self) -> list[Row]:
        for node in self.graph.graph.nodes:
            if node.op == "placeholder" and not self.maps:  # further ones hold default arguments
                self.maps[node] = Map((View(0, 0, 1), View(0, 0, 1)), (2, 3))
            elif node.op == "output":
                self._output(node)
            else:
                self.maps[node] = self._after(node)
        return self.table

    def _after(self, node: fx.Node) -> Map | None:
        windows = self._sliding(node)
        if not any(self.maps[source] for source in node.all_input_nodes):
            if windows and node.all_input_nodes and math.prod(self._shape(self._source(node))[2:]) > 1:
                raise self._unknown(node, "a window over positions made anew")
            return None
        if windows:
            return self._slide(node, windows)
        return self._module(node) if node.op == "call_module" else self._function(node)

    def _module(self, node: fx.Node) -> Map | None:
        module = self.graph.get_submodule(node.target)
        if isinstance(module, ADAPTIVE_MODULES):
            return self._adaptive(node)
        if isinstance(module, PADDING_MODULES):
            return self._pad(node, module.padding)
        if isinstance(module, nn.Flatten):
            return self._reshape(node)
        if isinstance(module, nn.Linear):
            return self._channels(node, -1)
        if type(module).__module__ in POINTWISE_FAMILIES and not isinstance(module, MIXING_MODULES):
            return self._meet(node)
        raise self._unknown(node, type(module).__name__)

    def _function(self, node: fx.Node) -> Map | None:
        handlers: dict[str, Callable[[fx.Node], Map | None]] = {
            **dict.fromkeys(POINTWISE_FUNCTIONS, self._meet),
            **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), self._adaptive),
            **dict.fromkeys(("mean", "sum", "amax", "amin"), self._reduce),
            **dict.fromkeys(("flatten", "view", "reshape"), self._reshape),
            **dict.fromkeys(("cat", "concat"), lambda node: self._channels(node, _dimension(node, 1, 0))),
            **dict.fromkeys(("chunk", "split"), lambda node: self._channels(node, _dimension(node, 2, 0))),
            "linear": lambda node: self._channels(node, -1),
            "pad": lambda node: self._pad(node, _argument(node, 1, "pad", None)),
            "permute": self._permute,
            "transpose": self._transpose,
            "getitem": self._item,
        }
        name = function_name(node)
        if name in handlers:
            return handlers[name](node)
        raise self._unknown(node, name)

    def _sliding(self, node: fx.Node) -> tuple[Window, Window] | None:
        """The windows that slide in a node: the layers that see further than one position."""
        if node.op == "call_module":
            module = self.graph.get_submodule(node.target)
            given = vars(module) if isinstance(module, WINDOW_MODULES) else {}
        else:
            names = WINDOW_FUNCTIONS.get(function_name(node), ())
            given = dict(zip(names, node.args, strict=False)) | node.kwargs if names else {}
        if not given:
            return None
        convolves = "weight" in given or "groups" in given
        kernel = given["kernel_size"] if "kernel_size" in given else self._shape(given["weight"])[2:]
        stride = given.get("stride") or (1 if convolves else kernel)
        return _windows(kernel, stride, given.get("padding", 0), given.get("dilation", 1))

    def _source(self, node: fx.Node) -> fx.Node:
        return node.args[0] if node.args else node.kwargs.get("input", node.all_input_nodes[0])

    def _shape(self, node: fx.Node) -> torch.Size:
        if "shape" not in node.meta:
            raise self._unknown(node, "a layer with several results")
        return node.meta["shape"]

    def _sides(self, node: fx.Node, axes: tuple[int, int]) -> tuple[int, int]:
        return tuple(self._shape(node)[axis] for axis in axes)

    def _unknown(self, node: fx.Node, what: str) -> UserError:
        return UserError(
            f"receptive_field does not know what {what} (node {node.name!r}) does to positions: "
            "use layers that it knows, or teach it this one in receptive_field.py"
        )

    def _row(self, node: fx.Node, before: Map, n_in: Size, stride: Size, after: Map) -> None:
        name = node.target if node.op == "call_module" else node.name
        r_in, r_out = (_size(tuple(view.size for view in m.views)) for m in (before, after))
        j_in, j_out = (_size(tuple(view.jump for view in m.views)) for m in (before, after))
        n_out = _size(self._sides(node, after.axes))
        self.table.append(Row(name, r_in, n_in, j_in, stride, r_out, n_out, j_out))

    def _output(self, node: fx.Node) -> None:
        """Looks back from the output to the last maps; adds a row if the table does not end in the widest."""
        ends: dict[fx.Node, Map] = {}
        queue = list(node.all_input_nodes)
        for source in queue:
            if self.maps[source]:
                ends[source] = self.maps[source]
            else:
                queue += [further for further in source.all_input_nodes if further not in queue]
        if not ends:
            return
        sizes = {end: tuple(view.size for view in m.views) for end, m in ends.items()}
        size = _size(tuple(map(max, zip(*sizes.values(), strict=True))))
        if not self.table or self.table[-1].r_out != size:
            widest = max(ends, key=sizes.get)
            side = _size(self._sides(widest, ends[widest].axes))
            jump = _size(tuple(view.jump for view in ends[widest].views))
            self.table.append(Row("output", size, side, jump, 1, size, side, jump))

    def _slide(self, node: fx.Node, windows: tuple[Window, Window]) -> Map | None:
        source = self._source(node)
        before, sides = self.maps[source], self._sides(source, (2, 3))
        if before is None or before.axes != (2, 3):
            raise self._unknown(node, "a window over other axes than height and width")
        target = self.graph.get_submodule(node.target) if node.op == "call_module" else None
        average = isinstance(target, nn.AvgPool2d) or function_name(node) == "avg_pool2d"
        covers = tuple(window.kernel for window in windows) == sides and self._sides(node, (2, 3)) == (1, 1)
        if average and covers and not self._slides_behind(node):
            return None
        after = Map(tuple(w.over(view) for w, view in zip(windows, before.views, strict=True)), before.axes)
        self._row(node, before, _size(sides), _size(tuple(window.stride for window in windows)), after)
        return after

    def _slides_behind(self, node: fx.Node) -> bool:
        """Whether a wider layer follows, so that an average over the map is not the end (small images)."""
        behind = {node}
        for later in self.graph.graph.nodes:
            if not behind.isdisjoint(later.all_input_nodes):
                behind.add(later)
                if any(window.kernel > 1 for window in self._sliding(later) or ()):
                    return True
        return False

    def _adaptive(self, node: fx.Node) -> Map | None:
        before = self.maps[self._source(node)]
        n_in, n_out = self._sides(self._source(node), (2, 3)), self._sides(node, (2, 3))
        if n_out == (1, 1):
            return None
        if n_in == n_out:
            return before
        if all(len(self._shape(user)) <= 2 for user in node.users):
            return None  # To a vector from here on: its windows follow the image's size, they are the head's.
        if any(i % o for i, o in zip(n_in, n_out, strict=True)):
            raise self._unknown(node, f"pooling of {n_in} unevenly to {n_out}")
        kernel = tuple(i // o for i, o in zip(n_in, n_out, strict=True))
        return self._slide(node, _windows(kernel, kernel, 0, 1))

    def _pad(self, node: fx.Node, padding: tuple[int, ...] | int) -> Map | None:
        before = self.maps[self._source(node)]
        left, _, top, _ = (*padding, 0, 0)[:4] if not isinstance(padding, int) else (padding,) * 4
        if before.axes != (2, 3) or (not isinstance(padding, int) and len(padding) > 4):
            raise self._unknown(node, "padding of other axes than height and width")
        views = tuple(
            View(view.first - p * view.jump, view.last - p * view.jump, view.jump)
            for view, p in zip(before.views, (top, left), strict=True)
        )
        return before._replace(views=views)

    def _meet(self, node: fx.Node) -> Map | None:
        """Tensors that meet position by position; one without a map (a gate, a number) goes along."""
        branches = {source: self.maps[source] for source in node.all_input_nodes if self.maps[source]}
        maps = list(branches.values())
        if len({(m.axes, tuple(view.jump for view in m.views)) for m in maps}) > 1:
            raise self._unknown(node, "a meeting of maps of different stride")
        if len({self._sides(source, m.axes) for source, m in branches.items()}) > 1:
            raise self._unknown(node, "a meeting of maps of different size")
        views = tuple(
            View(min(v.first for v in branch), max(v.last for v in branch), branch[0].jump)
            for branch in zip(*(m.views for m in maps), strict=True)
        )
        after = maps[0]._replace(views=views)
        if len(set(maps)) > 1:
            if changes_its_input(node) and list(self._source(node).users)[-1] is not node:
                raise self._unknown(node, "a change of a tensor that is used again")
            widest = max(maps, key=lambda m: max(view.size for view in m.views))
            self._row(node, widest, _size(self._sides(node, after.axes)), 1, after)
        return after

    def _channels(self, node: fx.Node, dimension: int) -> Map | None:
        """An operation along one dimension, which must not be height or width."""
        after = self._meet(node)
        rank = len(self._shape(node.all_input_nodes[0]))
        if dimension % rank in after.axes:
            raise self._unknown(node, f"{node.name} along height or width")
        return after

    def _permute(self, node: fx.Node) -> Map | None:
        before, order = self.maps[self._source(node)], node.kwargs.get("dims", node.args[1:])
        order = order[0] if order and not isinstance(order[0], int) else order
        order = [dimension % len(order) for dimension in order]
        return before._replace(axes=tuple(order.index(axis) for axis in before.axes))

    def _transpose(self, node: fx.Node) -> Map | None:
        before, rank = self.maps[self._source(node)], len(self._shape(node))
        a, b = (_argument(node, 1, "dim0", 0) % rank, _argument(node, 2, "dim1", 1) % rank)
        swap = {a: b, b: a}
        return before._replace(axes=tuple(swap.get(axis, axis) for axis in before.axes))

    def _item(self, node: fx.Node) -> Map | None:
        source, index = node.args
        before = self.maps[source]
        if "shape" not in source.meta:  # one of several tensors, as chunk gives them
            return before
        index = index if isinstance(index, tuple) else (index,)
        if len(index) <= min(before.axes) and all(isinstance(part, slice) for part in index):
            return before
        raise self._unknown(node, "indexing by position")

    def _reduce(self, node: fx.Node) -> Map | None:
        before, rank = self.maps[self._source(node)], len(self._shape(self._source(node)))
        over = _dimension(node, 1, None)
        over = range(rank) if over is None else over if isinstance(over, tuple | list) else (over,)
        if {dimension % rank for dimension in over} >= set(before.axes):
            return None
        raise self._unknown(node, f"{node.name} along some axes only")

    def _reshape(self, node: fx.Node) -> Map | None:
        """Keeps the last two dimensions, height and width: regroups channels. A vector: the head begins."""
        before = self.maps[self._source(node)]
        old, new = self._shape(self._source(node)), self._shape(node)
        if len(new) <= 2:
            return None
        if before.axes == (len(old) - 2, len(old) - 1) and old[-2:] == new[-2:]:
            return before._replace(axes=(len(new) - 2, len(new) - 1))
        raise self._unknown(node, f"{node.name} to {tuple(new)}")


def _argument(node: fx.Node, position: int, name: str, default: object) -> object:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _dimension(node: fx.Node, position: int, default: int | None) -> int | tuple[int, ...] | None:
    """The argument `dim`, which torch also takes under NumPy's name for it."""
    return _argument(node, position, "dim", node.kwargs.get("axis", default))
