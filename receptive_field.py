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

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from errors import UserError

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

MIXING_MODULES = (nn.MultiheadAttention, nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Bilinear)
"""The modules in those families that do not."""

POINTWISE_FUNCTIONS = frozenset(
    """abs add add_ batch_norm celu clamp clone contiguous detach div div_ dropout dropout1d dropout2d elu
    exp float gelu group_norm hardsigmoid hardswish hardtanh iadd identity imul instance_norm isub itruediv
    layer_norm leaky_relu log maximum minimum mish mul mul_ neg pow prelu relu relu6 relu_ rsqrt selu
    sigmoid silu softplus softsign sqrt stochastic_depth sub sub_ tanh to truediv type""".split()
)
"""Names of functions and methods that do the same; their tensors meet position by position."""

POOLINGS = {
    "avg_pool2d": ("input", "kernel_size", "stride", "padding"),
    "max_pool2d": ("input", "kernel_size", "stride", "padding", "dilation"),
    "lp_pool2d": ("input", "norm_type", "kernel_size", "stride"),
}
CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation")
ADAPTIVE = {"adaptive_avg_pool2d", "adaptive_max_pool2d"}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
RESHAPES = {"flatten", "view", "reshape"}


def receptive_field(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Row]:
    """A row a layer, in the order of the graph; the last row's `r_out` is the network's receptive field.

    network: any module that torch.fx can trace and that takes one image batch; it is left as it was.
    input_size: (channels, height, width) of an image.

    Raises UserError if the network cannot be traced, if the image does not fit it, or if it holds an
    operation whose effect on positions is not known here: never a wrong number.
    """
    if len(input_size) != 3 or any(not isinstance(side, int) or side < 1 for side in input_size):
        raise UserError(
            f"input_size must be three positive integers (channels, height, width), not {input_size}"
        )
    network = copy.deepcopy(network).cpu().float().eval()
    try:
        graph = fx.symbolic_trace(network)
    except Exception as error:
        raise UserError(f"torch.fx cannot trace {type(network).__name__}: {_one_line(error)}") from error
    try:
        with torch.no_grad():
            ShapeProp(graph).propagate(torch.zeros(1, *input_size))
    except Exception as error:
        message = f"{type(network).__name__} does not take an image of size {tuple(input_size)}"
        raise UserError(f"{message}: {_one_line(error)}") from error
    return _Walk(graph).rows()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


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
        self.maybe_global: int | None = None

    def rows(self) -> list[Row]:
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.maps[node] = Map((View(0, 0, 1), View(0, 0, 1)), (2, 3))
            elif node.op == "get_attr":
                self.maps[node] = None
            elif node.op == "call_module":
                self.maps[node] = self._module(node, self.graph.get_submodule(node.target))
            elif node.op in ("call_function", "call_method"):
                self.maps[node] = self._function(node)
        head = self.maybe_global
        if head is not None and all(row.r_in == row.r_out for row in self.table[head + 1 :]):
            return self.table[:head]
        return self.table

    def _module(self, node: fx.Node, module: nn.Module) -> Map | None:
        if isinstance(module, nn.Conv2d):
            return self._slide(
                node, _windows(module.kernel_size, module.stride, module.padding, module.dilation)
            )
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d | nn.LPPool2d):
            dilation, padding = getattr(module, "dilation", 1), getattr(module, "padding", 0)
            stride = module.kernel_size if module.stride is None else module.stride
            return self._pool(node, _windows(module.kernel_size, stride, padding, dilation))
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
            return self._adaptive(node)
        if isinstance(module, nn.ZeroPad2d | nn.ConstantPad2d | nn.ReflectionPad2d | nn.ReplicationPad2d):
            return self._pad(node, module.padding)
        if isinstance(module, nn.Flatten):
            return self._reshape(node)
        if isinstance(module, nn.Linear):
            return self._channels(node, -1)
        if type(module).__module__ in POINTWISE_FAMILIES and not isinstance(module, MIXING_MODULES):
            return self._meet(node)
        raise self._unknown(node, type(module).__name__)

    def _function(self, node: fx.Node) -> Map | None:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        given = dict(zip(POOLINGS.get(name, CONVOLUTION), node.args, strict=False)) | node.kwargs
        if not any(self._inputs(node)):
            return None
        if name == "conv2d":
            kernel = _shape(node.args[1] if len(node.args) > 1 else node.kwargs["weight"])[2:]
            strides, paddings = given.get("stride", 1), given.get("padding", 0)
            return self._slide(node, _windows(kernel, strides, paddings, given.get("dilation", 1)))
        if name in POOLINGS:
            kernel = given["kernel_size"]
            stride = given.get("stride") or kernel
            windows = _windows(kernel, stride, given.get("padding", 0), given.get("dilation", 1))
            return self._pool(node, windows)
        if name in POINTWISE_FUNCTIONS:
            return self._meet(node)
        handlers: dict[str, Callable[[fx.Node], Map | None]] = {
            "cat": lambda node: self._channels(node, _argument(node, 1, "dim", 0)),
            "concat": lambda node: self._channels(node, _argument(node, 1, "dim", 0)),
            "chunk": lambda node: self._channels(node, _argument(node, 2, "dim", 0)),
            "split": lambda node: self._channels(node, _argument(node, 2, "dim", 0)),
            "linear": lambda node: self._channels(node, -1),
            "pad": lambda node: self._pad(node, _argument(node, 1, "pad", None)),
            "permute": self._permute,
            "transpose": self._transpose,
            "getitem": self._item,
            "size": lambda _: None,
            "getattr": lambda _: None,
        }
        if name in handlers:
            return handlers[name](node)
        if name in ADAPTIVE:
            return self._adaptive(node)
        if name in REDUCTIONS:
            return self._reduce(node)
        if name in RESHAPES:
            return self._reshape(node)
        raise self._unknown(node, name)

    def _inputs(self, node: fx.Node) -> list[Map | None]:
        return [self.maps[source] for source in node.all_input_nodes]

    def _only(self, node: fx.Node) -> Map | None:
        return self.maps[node.all_input_nodes[0]]

    def _unknown(self, node: fx.Node, what: str) -> UserError:
        return UserError(
            f"receptive_field does not know what {what} (node {node.name!r}) does to positions: "
            "use layers that it knows, or teach it this one in receptive_field.py"
        )

    def _row(self, node: fx.Node, before: Map, n_in: Size, stride: Size, after: Map) -> None:
        name = node.target if node.op == "call_module" else node.name
        r_in, r_out = (_size(tuple(view.size for view in m.views)) for m in (before, after))
        j_in, j_out = (_size(tuple(view.jump for view in m.views)) for m in (before, after))
        n_out = _size(tuple(_shape(node)[axis] for axis in after.axes))
        self.table.append(Row(name, r_in, n_in, j_in, stride, r_out, n_out, j_out))

    def _slide(self, node: fx.Node, windows: tuple[Window, Window]) -> Map | None:
        before = self._only(node)
        if before is None:
            return None
        if before.axes != (2, 3):
            raise self._unknown(node, "a window over permuted axes")
        after = Map(tuple(w.over(view) for w, view in zip(windows, before.views, strict=True)), before.axes)
        n_in = _size(tuple(_shape(node.all_input_nodes[0])[2:]))
        self._row(node, before, n_in, _size(tuple(window.stride for window in windows)), after)
        return after

    def _pool(self, node: fx.Node, windows: tuple[Window, Window]) -> Map | None:
        kernels = tuple(window.kernel for window in windows)
        average = "avg" in str(node.target) or isinstance(
            self.graph.get_submodule(node.target) if node.op == "call_module" else None, nn.AvgPool2d
        )
        if average and kernels == tuple(_shape(node.all_input_nodes[0])[2:]):
            # It covers the map: global, unless a wider layer follows (DenseNet on small images).
            self.maybe_global = len(self.table)
        return self._slide(node, windows)

    def _adaptive(self, node: fx.Node) -> Map | None:
        before = self._only(node)
        n_in, n_out = _shape(node.all_input_nodes[0])[2:], _shape(node)[2:]
        if before is None or tuple(n_in) == tuple(n_out) != (1, 1):
            return before
        if tuple(n_out) == (1, 1) or any(i % o for i, o in zip(n_in, n_out, strict=True)):
            return None
        kernel = tuple(i // o for i, o in zip(n_in, n_out, strict=True))
        return self._slide(node, _windows(kernel, kernel, 0, 1))

    def _pad(self, node: fx.Node, padding: tuple[int, ...] | int) -> Map | None:
        before = self._only(node)
        if before is None:
            return None
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
        maps = [m for m in self._inputs(node) if m is not None]
        if not maps:
            return None
        if len({(m.axes, tuple(view.jump for view in m.views)) for m in maps}) > 1:
            raise self._unknown(node, "a meeting of maps of different stride")
        views = tuple(
            View(min(v.first for v in branch), max(v.last for v in branch), branch[0].jump)
            for branch in zip(*(m.views for m in maps), strict=True)
        )
        after = maps[0]._replace(views=views)
        if len(set(maps)) > 1:
            widest = max(maps, key=lambda m: max(view.size for view in m.views))
            n_out = _size(tuple(_shape(node)[axis] for axis in after.axes))
            self._row(node, widest, n_out, 1, after)
        return after

    def _channels(self, node: fx.Node, dimension: int) -> Map | None:
        """An operation along one dimension, which must not be height or width."""
        after = self._meet(node)
        rank = len(_shape(node.all_input_nodes[0]))
        if after is not None and dimension % rank in after.axes:
            raise self._unknown(node, f"{node.name} along height or width")
        return after

    def _permute(self, node: fx.Node) -> Map | None:
        before, order = self._only(node), node.kwargs.get("dims", node.args[1:])
        order = order[0] if order and not isinstance(order[0], int) else order
        order = [dimension % len(order) for dimension in order]
        return before and before._replace(axes=tuple(order.index(axis) for axis in before.axes))

    def _transpose(self, node: fx.Node) -> Map | None:
        before = self._only(node)
        rank = len(_shape(node))
        a, b = (_argument(node, 1, "dim0", 0) % rank, _argument(node, 2, "dim1", 1) % rank)
        swap = {a: b, b: a}
        return before and before._replace(axes=tuple(swap.get(axis, axis) for axis in before.axes))

    def _item(self, node: fx.Node) -> Map | None:
        source, index = node.args
        if not isinstance(_meta(source), torch.Size):  # one of several tensors, as chunk gives them
            return self.maps[source]
        before = self.maps[source]
        index = index if isinstance(index, tuple) else (index,)
        kept = tuple(part for part in index if part is not None and part is not Ellipsis)
        if before is None or (
            len(kept) <= before.axes[0]
            and Ellipsis not in index
            and all(isinstance(part, slice) for part in kept)
        ):
            return before
        raise self._unknown(node, "indexing by position")

    def _reduce(self, node: fx.Node) -> Map | None:
        before = self._only(node)
        rank = len(_shape(node.all_input_nodes[0]))
        over = _argument(node, 1, "dim", tuple(range(rank)))
        over = {dimension % rank for dimension in (over if isinstance(over, tuple | list) else (over,))}
        if before is None or over >= set(before.axes):
            return None
        raise self._unknown(node, f"{node.name} along some axes only")

    def _reshape(self, node: fx.Node) -> Map | None:
        """Keeps the last two dimensions, height and width: regroups channels. A vector: the head begins."""
        before = self._only(node)
        if before is None:
            return None
        old, new = _shape(node.all_input_nodes[0]), _shape(node)
        if len(new) <= 2:
            return None
        if before.axes == (len(old) - 2, len(old) - 1) and old[-2:] == new[-2:]:
            return before._replace(axes=(len(new) - 2, len(new) - 1))
        raise self._unknown(node, f"{node.name} to {tuple(new)}")


def _meta(node: fx.Node) -> torch.Size | None:
    return getattr(node.meta.get("tensor_meta"), "shape", None)


def _shape(node: fx.Node) -> torch.Size:
    return _meta(node)


def _argument(node: fx.Node, position: int, name: str, default: object) -> object:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
