"""The operations that a network runs on a batch of images."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s9.errors import UserError

BATCH = 2
"""Images in a recorded batch."""
NORMS = frozenset(("native_batch_norm", "native_group_norm", "native_layer_norm"))
POINTWISE = NORMS | frozenset(
    """_prelu_kernel hardshrink hardswish hardtanh log_sigmoid_forward softplus
    softshrink""".split()
)
"""ATen operations that leave every position where it is, besides those that torch tags as pointwise.

Norms are among them because their statistics do not count for the receptive field.
"""
LAYOUT = frozenset(("clone", "_to_copy", "as_strided"))
"""ATen operations that a tensor's strides and type call for: they are run, and not recorded."""
SHAPE_ONLY = frozenset(
    """empty_like full_like new_empty new_empty_strided new_full new_ones new_zeros ones_like rand_like
    randn_like zeros_like""".split()
)
"""ATen operations whose result depends on the shape of their argument alone."""
READS_VALUES = frozenset(("_local_scalar_dense", "equal", "nonzero"))
"""ATen operations that let the values of a tensor decide what is run."""


@dataclass
class Operation:
    """An ATen operation whose result depends on the images; the first is "images", the last "output"."""

    name: str
    """As in torch.ops.aten, without the overload and the underscore of an in-place operation."""
    layer: str
    """Dotted name of the torch.nn module that runs it; empty outside of one."""
    sources: list[int]
    """Numbers of the operations that wrote to the memory of its arguments."""
    before: list[torch.Size]
    """Shapes of its tensor arguments."""
    after: torch.Size
    """Shape of its first result."""
    kernel: tuple[int, ...] = ()
    """Sides of the window that it slides; empty if it slides none."""
    pointwise: bool = False
    used: bool = False
    """Whether the network's output depends on it."""


class Recorder(TorchDispatchMode):
    """Records each operation whose arguments depend on the images.

    Dependence follows memory: whatever reads a storage depends on all that was written to it, through any
    view, alias, list or in-place operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._layers: list[str] = []
        # The weak reference keeps the storage's address from being reused, not its memory.
        self._writers: dict[StorageWeakRef, list[int]] = {}

    def record(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Runs the network; returns the tensors of its output, in order."""
        self.operations.append(Operation("images", "", [], [], images.shape))
        self._writers[StorageWeakRef(images.untyped_storage())] = [0]
        with torch.no_grad(), self._naming_layers(network), _Plain(), self:
            results = [leaf for leaf in tree_leaves(network(images)) if isinstance(leaf, Tensor)]
        queue = [len(self.operations)]
        sources = sorted({number for result in results for number in self.writers(result)})
        shapes = [result.shape for result in results]
        self.operations.append(Operation("output", "", sources, shapes, torch.Size()))
        for number in queue:
            if not self.operations[number].used:
                self.operations[number].used = True
                queue += self.operations[number].sources
        return results

    @contextmanager
    def _naming_layers(self, network: nn.Module) -> Iterator[None]:
        def enter(name: str) -> Any:
            return lambda *_: self._layers.append(name)

        def leave(*_: Any) -> None:
            self._layers.pop()

        hooks = []
        for name, module in network.named_modules():
            if name and type(module).__module__.startswith("torch.nn.") and type(module) is not nn.Sequential:
                hooks += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def writers(self, tensor: Tensor) -> list[int]:
        """Numbers of the operations that wrote to the tensor's memory; none if it depends on no image."""
        return self._writers.get(StorageWeakRef(tensor.untyped_storage()), [])

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        schema = function._schema
        given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | (
            kwargs or {}
        )
        name = schema.name.removeprefix("aten::").removesuffix("_" if schema.is_mutable else "")
        name = name.removeprefix("_unsafe_")
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        sources = sorted({number for tensor in tensors for number in self.writers(tensor)})
        if not sources or name in SHAPE_ONLY:
            return function(*args, **(kwargs or {}))
        if name in LAYOUT:
            result = function(*args, **(kwargs or {}))
            self._writers[StorageWeakRef(result.untyped_storage())] = sources
            return result
        if name in READS_VALUES:
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
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
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
    """Makes operations independent of strides: which are run for a reshape or a linear layer depends on them.

    And a view's shape is checked where it is recorded, a reshape's before.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (Tensor.reshape, torch.reshape) and not kwargs:
            return args[0].contiguous().view(*args[1:])
        if function is torch.nn.functional.linear:
            args = (args[0].contiguous(), *args[1:])
        return function(*args, **(kwargs or {}))


def _kernel(name: str, given: dict[str, Any]) -> tuple[int, ...]:
    if name == "convolution":
        return tuple(given["weight"].shape[2:])
    kernel = given.get("kernel_size", ()) if "pool" in name else ()
    return tuple(kernel) * (given["self"].ndim - 2) if len(kernel) == 1 else tuple(kernel)


def trace(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> list[Operation]:
    """The operations that a network runs on a batch in evaluation mode, in order; it is left as it was.

    input_size: (channels, height, width) of an image.

    Raises UserError if the network cannot be copied, does not take a batch of that size, or decides by the
    values of the images what it runs.
    """
    recorder, copied = Recorder(), copy_to_try(network, input_size)
    try:
        recorder.record(copied, torch.zeros(BATCH, *input_size))
    except UserError:
        raise
    except Exception as error:
        raise _does_not_fit(network, input_size, error) from error
    return recorder.operations


def copy_to_try(network: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy in float32, on the CPU and in evaluation mode.

    Raises UserError if the network cannot be copied or does not take an image of that size.
    """
    sides = input_size if isinstance(input_size, tuple | list) else ()
    if len(sides) != 3 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise UserError(
            f"input_size must be three positive integers (channels, height, width), got {input_size!r}"
        )
    try:
        copied = copy.deepcopy(network).cpu().float().eval()
        with torch.no_grad():
            copied(torch.zeros(1, *input_size))
        return copied
    except Exception as error:
        raise _does_not_fit(network, input_size, error) from error


def _does_not_fit(network: nn.Module, input_size: tuple[int, int, int], error: Exception) -> UserError:
    message = f"{type(network).__name__} does not take an image of size {tuple(input_size)}"
    return UserError(f"{message}: {one_line(error)}")


def one_line(error: Exception) -> str:
    """The error's text in one line, or its type."""
    return " ".join(str(error).split())[:200] or type(error).__name__
