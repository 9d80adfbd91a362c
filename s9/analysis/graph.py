"""The graph of a network, as torch.fx traces it, with the shape of every result."""

import copy

import torch
from torch import fx, nn

from s9.errors import UserError


def trace(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> fx.GraphModule:
    """The graph of a copy of the network, without what its output does not depend on.

    Every node whose result is a tensor has that tensor's shape, for one image, in meta["shape"].

    Raises UserError if the network cannot be traced or if the image does not fit it.
    """
    _check_size(input_size)
    try:
        graph = fx.symbolic_trace(copy.deepcopy(network).cpu().float().eval())
    except Exception as error:
        raise UserError(f"torch.fx cannot trace {type(network).__name__}: {_one_line(error)}") from error
    try:
        with torch.no_grad():
            _Trial(graph).run(torch.zeros(1, *input_size))
    except Exception as error:
        raise _does_not_fit(network, input_size, error) from error
    for node in graph.graph.nodes:
        node.args, node.kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda source: source.meta.get("value", source)
        )
    graph.graph.eliminate_dead_code(
        lambda node: node.op in ("placeholder", "output") or changes_its_input(node)
    )
    return graph


def copy_to_try(network: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """A copy on the CPU, not in training. Raises UserError if it does not take an image of that size."""
    _check_size(input_size)
    try:
        tried = copy.deepcopy(network).cpu().eval()
        with torch.no_grad():
            tried(torch.zeros(1, *input_size))
        return tried
    except Exception as error:
        raise _does_not_fit(network, input_size, error) from error


def _check_size(input_size: tuple[int, int, int]) -> None:
    sides = input_size if isinstance(input_size, tuple | list) else ()
    if len(sides) != 3 or any(not isinstance(side, int) or side < 1 for side in sides):
        raise UserError(
            f"input_size must be three positive integers (channels, height, width), not {input_size!r}"
        )


def _does_not_fit(network: nn.Module, input_size: tuple[int, int, int], error: Exception) -> UserError:
    message = f"{type(network).__name__} does not take an image of size {tuple(input_size)}"
    return UserError(f"{message}: {_one_line(error)}")


class _Trial(fx.Interpreter):
    """Runs a graph once. Its nodes then know their shape or, if they give no tensor, their value."""

    def run_node(self, node: fx.Node) -> object:
        result = super().run_node(node)
        if isinstance(result, torch.Tensor):
            node.meta["shape"] = result.shape
        elif isinstance(result, int | float | bool | torch.Size | torch.dtype | torch.device):
            node.meta["value"] = result
        return result


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def function_name(node: fx.Node) -> str:
    """The name of the function or method that a node calls; empty for other nodes."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return node.target if isinstance(node.target, str) else node.target.__name__


def changes_its_input(node: fx.Node) -> bool:
    """Whether a node calls one of torch's in-place operations: their names end in _; += is `iadd`."""
    name = function_name(node)
    return name.endswith("_") or name in ("iadd", "isub", "imul", "itruediv")
