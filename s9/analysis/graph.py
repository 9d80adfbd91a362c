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

from s9.errors import UserError

BATCH = 2  # images in a recorded batch
# What keeps positions apart, besides the operations that torch tags as pointwise; named as in torch.ops.aten.
# The statistics of norms do not count for the receptive field.
POINTWISE = frozenset(
    """native_batch_norm native_group_norm native_layer_norm _prelu_kernel hardshrink hardswish hardtanh
    log_sigmoid_forward softplus softshrink""".split()
)
LAYOUT = ("clone", "_to_copy")  # depend on a tensor's strides and type; not recorded


class Window(NamedTuple):
    """What an operation slides over a map, along one axis."""

    kernel: int
    stride: int
    padding: int
    dilation: int


@dataclass
class Operation:
    """An ATen operation whose result depends on the images; the first is "images", the last "output"."""

    name: str  # as in torch.ops.aten, without the overload and the underscore of an in-place operation
    layer: str  # dotted name of the torch.nn module that runs it; empty outside of one
    writers: list[list[int]]  # of each tensor argument: numbers of the operations that wrote to its memory
    before: list[torch.Size]  # shapes of the tensor arguments
    after: torch.Size  # shape of its first result
    windows: tuple[Window, ...] = ()  # over height and width; empty if it slides none
    pointwise: bool = False
    used: bool = False  # whether the network's output depends on it

    @property
    def sources(self) -> set[int]:
        """Numbers of the operations that it depends on."""
        return set().union(*self.writers)


class _Recorder(TorchDispatchMode):
    """Records each operation whose arguments depend on the images.

    Dependence follows memory: what reads a storage depends on all operations that wrote to it, through views,
    aliases and in-place operations.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.operations = [Operation("images", "", [], [], images.shape)]
        self.layers: list[str] = []
        # The weak reference keeps the storage's address from being reused, not its memory.
        self.writers = {StorageWeakRef(images.untyped_storage()): [0]}

    def enter(self, name: str, *_: Any) -> None:
        """A hook: the layer begins."""
        self.layers.append(name)

    def leave(self, *_: Any) -> None:
        """A hook: it ends."""
        self.layers.pop()

    def writers_of(self, tensors: list[Tensor]) -> list[list[int]]:
        """Of each tensor, the numbers of the operations that wrote to its memory; none without the images."""
        return [list(self.writers.get(StorageWeakRef(tensor.untyped_storage()), ())) for tensor in tensors]

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, schema = kwargs or {}, function._schema
        result = function(*args, **kwargs)
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        name = schema.name.removeprefix("aten::").removesuffix("_" if schema.is_mutable else "")
        name = name.removeprefix("_unsafe_")
        tensors, results = _tensors_in(given), _tensors_in(result)
        sources = self.writers_of(tensors)
        shape_alone = name.startswith("new_") or name.endswith("_like")
        if shape_alone or not any(sources):
            return result
        if name in LAYOUT:
            (self.writers[StorageWeakRef(result.untyped_storage())],) = sources
            return result
        if name == "nonzero" or torch.Tag.data_dependent_output in function.tags:
            raise UserError("the network's layers must not depend on the values of an image")
        for tensor in results:
            writers = self.writers.setdefault(StorageWeakRef(tensor.untyped_storage()), [])
            if schema.is_mutable or not writers:
                writers.append(len(self.operations))
        self.operations.append(
            Operation(
                name,
                self.layers[-1] if self.layers else "",
                sources,
                [tensor.shape for tensor in tensors],
                results[0].shape if results else torch.Size(),
                _windows(name, given),
                name in POINTWISE or torch.Tag.pointwise in function.tags or _moves_channels(name, given),
            )
        )
        return result


def _tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _moves_channels(name: str, given: dict[str, Any]) -> bool:
    """Whether it moves the channels behind the positions, as a norm over them needs, or back."""
    return name == "permute" and given["dims"] in ([0, 2, 3, 1], [0, 3, 1, 2])


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
    shapes, operations = [result.shape for result in results], recorder.operations
    operations.append(Operation("output", "", recorder.writers_of(results), shapes, torch.Size(), used=True))
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


def one_line(error: Exception) -> str:
    """The error's text in one line, or its type."""
    return " ".join(str(error).split())[:200] or type(error).__name__
