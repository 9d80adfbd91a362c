"""The operations that a network runs on a batch of images."""

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s9.errors import UserError

BATCH = 2  # images in a recorded batch
# Operations as torch.ops.aten names them. The statistics of norms do not count for the receptive field.
NORMS = frozenset(("native_batch_norm", "native_group_norm", "native_layer_norm"))
# What keeps positions apart, besides the operations that torch tags as pointwise.
POINTWISE = NORMS | set(
    "_prelu_kernel hardshrink hardswish hardtanh log_sigmoid_forward softplus softshrink".split()
)
LAYOUT = ("clone", "_to_copy", "as_strided")  # depend on a tensor's strides and type; not recorded


@dataclass
class Operation:
    """An ATen operation whose result depends on the images; the first is "images", the last "output"."""

    name: str  # as in torch.ops.aten, without the overload and the underscore of an in-place operation
    layer: str  # dotted name of the torch.nn module that runs it; empty outside of one
    sources: list[int]  # numbers of the operations that wrote to the memory of its arguments
    before: list[torch.Size]  # shapes of its tensor arguments
    after: torch.Size  # shape of its first result
    kernel: tuple[int, ...] = ()  # sides of the window that it slides; empty if it slides none
    pointwise: bool = False
    used: bool = False  # whether the network's output depends on it


class Recorder(TorchDispatchMode):
    """Records each operation whose arguments depend on the images.

    Dependence follows memory: what reads a storage depends on all operations that wrote to it, through views,
    aliases and in-place operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._layers: list[str] = []
        # The weak reference keeps the storage's address from being reused, not its memory.
        self._writers: dict[StorageWeakRef, list[int]] = {}

    def record(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Runs the network, which gets hooks; returns the tensors of its output, in order."""
        for name, module in network.named_modules():
            if name and type(module).__module__.startswith("torch.nn.") and type(module) is not nn.Sequential:
                module.register_forward_pre_hook(partial(self._enter, name))
                module.register_forward_hook(self._leave)
        self.operations.append(Operation("images", "", [], [], images.shape))
        self._writers[StorageWeakRef(images.untyped_storage())] = [0]
        with torch.no_grad(), _Plain(), self:
            results = tensors_in(network(images))
        shapes = [result.shape for result in results]
        output = Operation("output", "", self.writers(*results), shapes, torch.Size(), used=True)
        self.operations.append(output)
        for operation in reversed(self.operations):
            for number in operation.sources if operation.used else ():
                self.operations[number].used = True
        return results

    def _enter(self, name: str, *_: Any) -> None:
        self._layers.append(name)

    def _leave(self, *_: Any) -> None:
        self._layers.pop()

    def writers(self, *tensors: Tensor) -> list[int]:
        """Numbers of the operations that wrote to the tensors' memory; none if they depend on no image."""
        storages = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors]
        return sorted({number for storage in storages for number in self._writers.get(storage, ())})

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, schema = kwargs or {}, function._schema
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
        name = schema.name.removeprefix("aten::").removesuffix("_" if schema.is_mutable else "")
        name = name.removeprefix("_unsafe_")
        tensors = tensors_in(given)
        sources = self.writers(*tensors)
        if not sources or name.startswith("new_") or name.endswith("_like"):  # These read the shape alone.
            return function(*args, **kwargs)
        if name in LAYOUT:
            result = function(*args, **kwargs)
            self._writers[StorageWeakRef(result.untyped_storage())] = sources
            return result
        if name == "nonzero" or torch.Tag.data_dependent_output in function.tags:
            raise UserError("the network's layers must not depend on the values of an image")
        operation = Operation(
            name,
            self._layers[-1] if self._layers else "",
            sources,
            [tensor.shape for tensor in tensors],
            torch.Size(),
            _kernel(name, given),
            name in POINTWISE or torch.Tag.pointwise in function.tags,
        )
        result = self.run(operation, function, given)
        results = tensors_in(result)
        operation.after = results[0].shape if results else torch.Size()
        for tensor in results:
            writers = self._writers.setdefault(StorageWeakRef(tensor.untyped_storage()), [])
            if schema.is_mutable or not writers:
                writers.append(len(self.operations))
        self.operations.append(operation)
        return result

    def run(self, operation: Operation, function: Any, given: dict[str, Any]) -> Any:
        """The result of the ATen function for the arguments `given`, by name."""
        return function(**given)


class _Plain(TorchFunctionMode):
    """Makes a reshape or a linear layer run the same operations whatever the strides of its argument."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (Tensor.reshape, torch.reshape) and not kwargs:
            return args[0].contiguous().view(*args[1:])
        if function is torch.nn.functional.linear:
            args = (args[0].contiguous(), *args[1:])
        return function(*args, **(kwargs or {}))


def tensors_in(tree: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dictionaries, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _kernel(name: str, given: dict[str, Any]) -> tuple[int, ...]:
    if name == "convolution":
        return tuple(given["weight"].shape[2:])
    kernel = given.get("kernel_size", ()) if "pool" in name else ()
    return tuple(kernel) * (given["self"].ndim - 2) if len(kernel) == 1 else tuple(kernel)


def trace(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Operation]:
    """The operations that a copy of the network runs on a batch in evaluation mode, in order.

    input_size: (channels, height, width) of an image.

    Raises UserError if the network cannot be copied, does not take a batch of that size, or decides by the
    values of the images what it runs.
    """
    recorder = Recorder()
    recorder.record(copy_to_try(network, input_size), torch.zeros(BATCH, *input_size))
    return recorder.operations


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
