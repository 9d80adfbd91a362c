"""The operations that a network runs on a batch of images."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from s9.errors import UserError, one_line

BATCH = 2  # images in a recorded batch
# What keeps positions apart, besides the operations that torch tags as pointwise; named as in torch.ops.aten.
# The statistics of norms do not count for the receptive field.
POINTWISE = frozenset(
    """native_batch_norm native_group_norm native_layer_norm _prelu_kernel hardshrink hardswish hardtanh
    log_sigmoid_forward softplus softshrink alias detach expand""".split()
)
PARTS = ("slice", "split", "split_with_sizes")  # take some of the channels, if they are told to work on those
LAYOUT = ("clone", "_to_copy")  # depend on a tensor's strides and type; not recorded


class Window(NamedTuple):
    """What an operation slides over a map, along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int


class Argument(NamedTuple):
    """A tensor that an operation takes."""

    shape: torch.Size
    writers: list[int]  # numbers of the operations that wrote to its memory; none without the images
    made: list[tuple[int, int]]  # (operation, result) that it is, then those that wrote to its memory since


@dataclass
class Operation:
    """An ATen operation whose result depends on the images; the first is "images", the last "output"."""

    name: str  # as in torch.ops.aten, without the overload and the underscore of an in-place operation
    layer: str  # dotted name of the torch.nn module that runs it; empty outside of one
    arguments: list[Argument]
    after: torch.Size  # shape of its first result
    dims: tuple[int, ...] = ()  # dimensions that it is told to work on, from the end: -1 is the last
    windows: tuple[Window, ...] = ()  # over height and width; empty if it slides none
    channels: tuple[list[int], ...] = ()  # that each result takes, -1 for a constant; empty if it takes all
    pointwise: bool = False
    used: bool = False  # whether the network's output depends on it

    @property
    def sources(self) -> set[int]:
        """Numbers of the operations that it depends on."""
        return {writer for argument in self.arguments for writer in argument.writers}


class _Recorder(TorchDispatchMode):
    """Records each operation whose arguments depend on the images.

    Dependence follows memory: what reads a storage depends on all operations that wrote to it, through views,
    aliases and in-place operations.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.operations = [Operation("images", "", [], images.shape)]
        self.layers: list[str] = []
        # The weak reference keeps the storage's address from being reused, not its memory.
        self.writers = {StorageWeakRef(images.untyped_storage()): [0]}
        self.made = WeakTensorKeyDictionary({images: [(0, 0)]})  # Argument.made when the tensor was returned

    def enter(self, name: str, *_: Any) -> None:
        """A hook: the layer begins."""
        self.layers.append(name)

    def leave(self, *_: Any) -> None:
        """A hook: it ends."""
        self.layers.pop()

    def argument(self, tensor: Tensor) -> Argument:
        """What is known of a tensor; -1 for an operation that is not recorded."""
        writers = list(self.writers.get(StorageWeakRef(tensor.untyped_storage()), ()))
        made = self.made.get(tensor, [(-1, 0)])
        since = [(writer, 0) for writer in writers if writer > made[-1][0]]
        return Argument(tensor.shape, writers, made + since)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, schema = kwargs or {}, function._schema
        result = function(*args, **kwargs)
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        name = schema.name.removeprefix("aten::").removesuffix("_" if schema.is_mutable else "")
        name = name.removeprefix("_unsafe_")
        results = _tensors_in(result)
        arguments = [self.argument(tensor) for tensor in _tensors_in(given)]
        shape_alone = name.startswith("new_") or name.endswith("_like")
        if shape_alone or not any(argument.writers for argument in arguments):
            return result
        if name in LAYOUT:
            self.writers[StorageWeakRef(result.untyped_storage())] = arguments[0].writers
            self.made[result] = arguments[0].made
            return result
        if name == "nonzero" or torch.Tag.data_dependent_output in function.tags:
            raise UserError("the network's layers must not depend on the values of an image")
        number = len(self.operations)
        for index, tensor in enumerate(results):
            self.made[tensor] = [(number, index)]
            writers = self.writers.setdefault(StorageWeakRef(tensor.untyped_storage()), [])
            if schema.is_mutable or not writers:
                writers.append(number)
        pointwise = name in POINTWISE or torch.Tag.pointwise in function.tags
        self.operations.append(
            Operation(
                name,
                self.layers[-1] if self.layers else "",
                arguments,
                results[0].shape if results else torch.Size(),
                _dims(given),
                _windows(name, given),
                _channels(name, given, function),
                pointwise and "out" not in given,
            )
        )
        return result


def _tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _dims(given: dict[str, Any]) -> tuple[int, ...]:
    dims, sides = given.get("dim", given.get("dims")), _tensors_in(given)[0].ndim
    dims = [dims] if isinstance(dims, int) else dims or []
    return tuple(dim - sides if dim >= 0 else dim for dim in dims)


def _channels(name: str, given: dict[str, Any], function: Any) -> tuple[list[int], ...]:
    """Runs the function on the numbers of the channels."""
    changed: dict[str, Any] = {"dim": -3}
    if name == "constant_pad_nd" and len(given["pad"]) > 4:
        changed = {"pad": [0, 0, 0, 0, *given["pad"][4:6]], "value": -1}
    elif name not in PARTS or _dims(given) != (-3,):
        return ()
    numbers = torch.arange(given["self"].shape[-3]).view(-1, 1, 1)
    parts = _tensors_in(function(**given | changed | {"self": numbers}))
    return tuple(part.flatten().tolist() for part in parts)


def _windows(name: str, given: dict[str, Any]) -> tuple[Window, ...]:
    if name == "convolution" and not given["transposed"]:
        sizes = given["weight"].shape[2:], given["stride"], given["padding"], given["dilation"]
    elif name in ("avg_pool2d", "max_pool2d_with_indices"):
        kernel = given["kernel_size"]
        stride, padding = given.get("stride") or kernel, given.get("padding", (0, 0))
        sizes = kernel, stride, padding, given.get("dilation", (1, 1))
    elif name == "constant_pad_nd":
        left, top = (*given["pad"][::2], 0)[:2]
        sizes = (1, 1), (1, 1), (top, left), (1, 1)
    elif name == "slice" and _dims(given) in ((-2,), (-1,)):
        side = given["self"].shape[given["dim"]]
        start, _, step = slice(given.get("start"), given.get("end"), given.get("step")).indices(side)
        part, whole = Window(1, step, -start, 1), Window(1, 1, 0, 1)
        return (part, whole) if _dims(given) == (-2,) else (whole, part)
    else:
        return ()
    return tuple(Window(*sides) for sides in zip(*sizes, strict=True))


def trace(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Operation]:
    """The operations that a copy of the network runs on a batch in evaluation mode, in order.

    input_size: (channels, height, width) of an image.

    Raises UserError if the network cannot be copied, does not take a batch of that size, or decides by the
    values of the images what it runs.
    """
    tried, images = copy_to_try(network, input_size), torch.zeros(BATCH, *input_size)
    recorder = _Recorder(images)
    for name, module in tried.named_modules():
        if name and type(module).__module__.startswith("torch.nn.") and type(module) is not nn.Sequential:
            module.register_forward_pre_hook(partial(recorder.enter, name))
            module.register_forward_hook(recorder.leave)
    with torch.no_grad(), recorder:
        results = _tensors_in(tried(images))
    operations = recorder.operations
    ends = [recorder.argument(result) for result in results]
    operations.append(Operation("output", "", ends, torch.Size(), used=True))
    for operation in reversed(operations):
        for number in operation.sources if operation.used else ():
            operations[number].used = True
    return operations


def copy_to_try(network: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy in float32, on the CPU and in evaluation mode.

    Raises UserError if the network cannot be copied or does not take a batch of that size.
    """
    try:
        copied = copy.deepcopy(network).cpu().float().eval()
        with torch.no_grad():
            copied(torch.zeros(BATCH, *input_size))
        return copied
    except Exception as error:
        message = f"{type(network).__name__} does not take an image of size {input_size}"
        raise UserError(f"{message} (channels, height, width): {one_line(error)}") from error
