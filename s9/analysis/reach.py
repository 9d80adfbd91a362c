"""Runs a network on numbers of pixels in place of colours, to find the pixels that each element depends on.

The value of an element is the number of the last pixel, along one axis, that it depends on; the second image
of the batch is numbered from the other end and gives the first pixel. A sum, a product or an activation is
the maximum of its arguments, a convolution the maximum over its window and its group of channels, and what
only moves elements (slices, views, concatenations, in-place writes) is torch's own.
"""

import math
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from s9.analysis.graph import BATCH, NORMS, Operation, Recorder, tensors_in

LONGEST_PERIOD = (
    256  # positions after which what they see must repeat, shifted: 1, or more behind up-sampling
)
MOVES = frozenset(
    """cat channel_shuffle constant_pad_nd copy fill flip im2col index index_put index_select
    pixel_shuffle pixel_unshuffle reflection_pad2d repeat replication_pad2d roll stack zero""".split()
)
"""ATen operations, besides views, that only move elements."""


class View(NamedTuple):
    """What the positions of a map see along one axis, away from the image's border."""

    r: int  # pixels from the first to the last, at the position that sees most
    n: int  # positions, for the usual image
    j: Fraction  # pixels between two neighbouring positions, on average


class Step(NamedTuple):
    """A window over a map, or a meeting of maps, along one axis."""

    before: View
    after: View
    counts: bool  # False if each of the maps that meet sees as much as their sum


class Clipped(Exception):
    """The border cuts off what the positions see: a larger image may help."""


class Unknown(Exception):
    """What a network's positions see is not known; the text says why."""


def view_of(last: Tensor, first: Tensor, size: int, n: int) -> View:
    """What half of the positions of a map see, those farthest from the border.

    last, first: number of the last pixel seen, counted from 1; of the first, counted from the far end;
    int64 (positions,), 0 where nothing is seen. size: pixels of the image. n: positions, for the usual image.

    Raises Clipped if the border cuts them, or if they do not repeat, shifted, within the image.
    """
    inside = ((last > 0) & (last < size) & (first < size)).nonzero().flatten().tolist()
    if not inside or inside[-1] - inside[0] < 3:
        raise Clipped
    start, stop = inside[0], inside[-1] + 1
    middle = slice(start + (stop - start) // 4, stop - (stop - start) // 4)
    last, first = last[middle], first[middle]
    if max(last.max(), first.max()) >= size:
        raise Clipped
    seen = last > 0
    for period in range(1, min(len(last) // 2, LONGEST_PERIOD) + 1):
        both = seen[period:] & seen[:-period]
        shifts = torch.cat([(last[period:] - last[:-period])[both], (first[:-period] - first[period:])[both]])
        shift = int(shifts[0]) if len(shifts) else 0
        if shift and (shifts == shift).all() and torch.equal(seen[period:], seen[:-period]):
            return View(int((last + first - size)[seen].max()), n, Fraction(abs(shift), period))
    raise Clipped


class Reach(Recorder):
    """Measures a network on an image that is enlarged along one axis."""

    def __init__(self, plan: list[Operation], axis: int, more: int) -> None:
        """Prepares an image with `more` additional pixels.

        plan: the operations on the usual image; axis: 2 for the height, 3 for the width.
        """
        super().__init__()
        self.plan = plan
        sides = list(plan[0].after)
        sides[axis] += more
        self.size = sides[axis]
        numbers = torch.arange(1.0, self.size + 1)
        lines = torch.stack([numbers, numbers.flip(0)]).view(BATCH, 1, *((-1, 1) if axis == 2 else (1, -1)))
        self.images = lines.expand(sides).clone()
        self.shapes: dict[int, torch.Size] = {}  # on the usual image, by the id of a tensor at hand
        self.steps: dict[int, Step] = {}
        # By operation whose result is no map: the widest of the maps that it summarises.
        self.summarised: dict[int, View | None] = {}

    def measure(self, network: nn.Module) -> tuple[dict[int, Step], View | None]:
        """The steps by their number in the plan, and the widest of the maps that the output summarises."""
        ends = []
        for result, shape in zip(self.record(network, self.images), self.plan[-1].before, strict=True):
            self.shapes = {id(result): shape}
            is_map = bool(result.any())
            ends.append(self._view(result) if is_map else self._widest_summarised(self.writers(result)))
        return self.steps, max(filter(None, ends), default=None)

    def run(self, operation: Operation, function: Any, given: dict[str, Any]) -> Any:
        """The result in numbers of pixels."""
        number, name, schema = len(self.operations), operation.name, function._schema
        if number >= len(self.plan) or self.plan[number].name != name:
            raise Unknown("it runs other operations on larger images")
        self.operation, self.usual = operation, self.plan[number]
        written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        is_view = not written and any(result.alias_info for result in schema.returns)
        given = self._without_constants(given, written)
        inputs = tensors_in(given)
        self.shapes = dict(zip(map(id, inputs), self.usual.before, strict=True))
        inputs = [tensor for tensor in inputs if tensor is not given.get("out")]
        live = [tensor for tensor in inputs if tensor.any()]
        window = max(operation.kernel, default=1) > 1
        if window and not live and math.prod(self.usual.before[0][-2:]) > 1:
            raise Unknown("a window slides over positions made anew from a vector")
        if name == "view":
            result = self._reshaped(function, given)
        elif name in MOVES or is_view:
            if isinstance(given.get("value"), int | float):  # Of padding or fill: it depends on no pixel.
                given["value"] = 0
            result = function(**given)
        elif name in RULES:
            result = RULES[name](self, given)
        elif operation.pointwise:
            inputs = inputs[:1] if name in NORMS else inputs
            known = [tensor if self.writers(tensor) else torch.zeros(tensor.shape) for tensor in inputs]
            result = reduce(torch.maximum, known, torch.zeros(()))
        else:
            raise Unknown(f"what {operation.layer or name} does to positions is not known")
        first = tensors_in(result)[0]
        self.shapes[id(first)] = self.usual.after
        if (self.usual.used or name == "view") and (written or not self.writers(first)):
            self._note(number, operation, live, first)
        if written and first is not given[written[0]]:
            result = given[written[0]].copy_(first)
        elif len(schema.returns) > 1:
            result = (first, *(first.clone() for _ in schema.returns[1:]))
        return result

    def _without_constants(self, given: dict[str, Any], written: list[str]) -> dict[str, Any]:
        """The arguments; what depends on no image becomes 0, the number of no pixel."""
        targets = [given[name] for name in written]

        def known(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or self.writers(leaf):
                return leaf
            if all(leaf is not target for target in targets):
                return torch.zeros_like(leaf)
            # Its other views must see what is written.
            torch.empty(0, dtype=leaf.dtype).set_(leaf.untyped_storage()).zero_()
            return leaf

        return tree_map(known, given)

    def _note(self, number: int, operation: Operation, live: list[Tensor], result: Tensor) -> None:
        """Keeps what an operation does to maps: slides over them, lets them meet, or summarises them."""
        window = operation.kernel or operation.name in ADAPTIVE
        meeting = len(live) > 1 and (operation.pointwise or operation.name in ("cat", "stack"))
        if not result.any():
            own = max(map(self._view, live), default=None)
            self.summarised[number] = own or self._widest_summarised(operation.sources)
        elif window or meeting:
            before, after = set(map(self._view, live)), self._view(result)
            self.steps[number] = Step(max(before), after, bool(operation.kernel) or before != {after})

    def _widest_summarised(self, numbers: list[int]) -> View | None:
        return max(filter(None, map(self.summarised.get, numbers)), default=None)

    def _view(self, tensor: Tensor) -> View:
        """What the positions of a map see."""
        dims = self._enlarged(tensor)
        if len(dims) != 1 or dims[0] == 0:
            raise Unknown("its maps do not grow with the image")
        last, first = tensor.movedim(dims[0], -1).reshape(BATCH, -1, tensor.shape[dims[0]]).amax(1).long()
        return view_of(last, first, self.size, self.shapes[id(tensor)][dims[0]])

    def _enlarged(self, tensor: Tensor) -> list[int]:
        """The dimensions that grow with the image."""
        return [dim for dim, usual in enumerate(self.shapes[id(tensor)]) if tensor.shape[dim] != usual]

    # The results of self.operation, which is self.usual on the usual image, for the arguments `given` by name

    def _reshaped(self, function: Any, given: dict[str, Any]) -> Tensor:
        """A view; from a map to a vector an image, it is the end of positions."""
        before, after = self.usual.before[0], self.usual.after
        vector = len(before) > 2 and len(after) == 2 and after[0] == BATCH and given["self"].any()
        try:
            result = function(**given)
        except RuntimeError:
            if not vector:
                raise
            return torch.zeros(after)
        positions = result.shape[0] != BATCH and before[-1] == after[1]
        return result if not vector or result.shape == after or positions else torch.zeros(after)

    def _convolution(self, given: dict[str, Any]) -> Tensor:
        x, kernel = given["input"], self.operation.kernel
        if len(kernel) != 2:
            raise Unknown(f"{self.operation.layer or 'a convolution'} is not one of height and width")
        x = x.unflatten(1, (given["groups"], -1)).amax(2)
        (up, left), (tall, wide), dilation = given["padding"], given["stride"], given["dilation"]
        down, right = up, left
        if given["transposed"]:  # A convolution with stride 1 over the positions, spread out by the stride.
            spread = x.new_zeros(*x.shape[:2], (x.shape[2] - 1) * tall + 1, (x.shape[3] - 1) * wide + 1)
            spread[:, :, ::tall, ::wide] = x
            up, left = (d * (k - 1) - p for k, d, p in zip(kernel, dilation, (up, left), strict=True))
            down, right = up + given["output_padding"][0], left + given["output_padding"][1]
            x, tall, wide = spread, 1, 1
        x = F.max_pool2d(F.pad(x, (left, right, up, down)), kernel, (tall, wide), dilation=dilation)
        shape = given["weight"].shape
        return x.repeat_interleave(shape[1] if given["transposed"] else shape[0] // given["groups"], 1)

    def _pool(self, given: dict[str, Any]) -> Tensor:
        x, kernel = given["self"], self.operation.kernel
        for dim in self._enlarged(x):
            side = dim - x.ndim
            covers = self.shapes[id(x)][dim] == self.usual.kernel[side] and self.usual.after[dim] == 1
            average = "avg" in self.operation.name and not self._slides_behind()
            if covers and (average or kernel[side] == x.shape[dim]):
                return torch.zeros(self.usual.after)
        options = given.get("padding", 0), given.get("dilation", 1), given.get("ceil_mode", False)
        return F.max_pool2d(x, kernel, given.get("stride") or kernel, *options)

    def _adaptive(self, given: dict[str, Any]) -> Tensor:
        x, sides = given["self"], list(self.usual.after[-2:])
        for dim in self._enlarged(x):
            n_in, n_out = self.usual.before[0][dim], self.usual.after[dim]
            if n_out == 1 or (n_in != n_out and not self._slides_behind()):
                return torch.zeros(self.usual.after)
            if n_in % n_out:
                raise Unknown(f"pooling of {n_in} positions unevenly to {n_out} has no fixed window")
            window = n_in // n_out
            side = sides[dim - x.ndim] = x.shape[dim] // window
            x = x.narrow(dim, 0, side * window)
        return F.adaptive_max_pool2d(x, sides)

    def _slides_behind(self) -> bool:
        """Whether a window wider than one position slides over what this operation gives.

        Over that itself: if it is a single position, it gates the larger maps that it meets.
        """
        behind, single = {len(self.operations)}, math.prod(self.usual.after[2:]) == 1
        for number, later in enumerate(self.plan):
            if not behind.isdisjoint(later.sources) and not (single and math.prod(later.after[2:]) > 1):
                behind.add(number)
                if later.used and max(later.kernel, default=1) > 1:
                    return True
        return False

    def _reduce(self, given: dict[str, Any]) -> Tensor:
        """Over channels, say; if it is over positions, it summarises a map."""
        x, over = given["self"], given.get("dim")
        over = range(x.ndim) if over is None or over == [] else [over] if isinstance(over, int) else over
        over = [dim % x.ndim for dim in over]
        result = x.amax(over, keepdim=given.get("keepdim", False))
        return result if set(over).isdisjoint(self._enlarged(x)) else torch.zeros_like(result)

    def _spread(self, given: dict[str, Any]) -> Tensor:
        """Softmax and the like: over channels."""
        x, dim = given["self"], given["dim"]
        if dim % x.ndim in self._enlarged(x):
            raise Unknown(f"{self.operation.name} over positions lets each see all")
        return x.amax(dim, keepdim=True).expand_as(x).clone()

    def _product(self, given: dict[str, Any]) -> Tensor:
        """Of matrices; if it sums over positions, it summarises a map."""
        a, b = [value for value in given.values() if isinstance(value, Tensor)][-2:]
        summed = a.ndim - 1 in self._enlarged(a) or b.ndim - 2 in self._enlarged(b)
        kept = a.ndim - 2 in self._enlarged(a), b.ndim - 1 in self._enlarged(b)
        if (summed and any(kept)) or all(kept):
            raise Unknown(f"{self.operation.name} lets each position see all")
        result = torch.maximum(a.amax(-1, keepdim=True), b.amax(-2, keepdim=True))
        return torch.zeros_like(result) if summed else result

    def _upsample(self, given: dict[str, Any]) -> Tensor:
        x, usual = given["self"], self.usual
        sides = [x.shape[dim] * usual.after[dim] // usual.before[0][dim] for dim in (2, 3)]
        return F.interpolate(x, sides)


ADAPTIVE = ("_adaptive_avg_pool2d", "adaptive_max_pool2d")
REDUCTIONS = "mean sum amax amin max min prod var std logsumexp linalg_vector_norm".split()
RULES = {
    "convolution": Reach._convolution,
    **dict.fromkeys(("avg_pool2d", "max_pool2d_with_indices"), Reach._pool),
    **dict.fromkeys(ADAPTIVE, Reach._adaptive),
    **dict.fromkeys(REDUCTIONS, Reach._reduce),
    **dict.fromkeys(("_softmax", "_log_softmax"), Reach._spread),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), Reach._product),
    "upsample_nearest2d": Reach._upsample,
}
