"""torchsummary's table, the number of multiply-adds, and the receptive field as a Markdown table."""

import contextlib
import io

import torch
import torchsummary
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from s9.analysis.graph import copy_to_try
from s9.analysis.receptive_field import Row
from s9.errors import UserError, one_line


def count_multiply_adds(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Multiply-adds of the convolutions and matrix products for one image.

    Raises UserError if the network does not take an image of that size.
    """
    tried = copy_to_try(network, input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tried(torch.zeros(1, *input_size))
    return counter.get_total_flops() // 2


def summary(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> str:
    """The table that torchsummary prints of the network, made of a copy on the CPU in evaluation mode.

    torchsummary counts a shared layer at each call, and only parameters named weight or bias. Where its total
    differs from the number of parameters, a last line gives that number.

    Raises UserError if the network does not take an image of that size, or if a module in it returns
    something other than a tensor or a tuple of tensors, which torchsummary cannot show.
    """
    tried, printed = copy_to_try(network, input_size), io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
            torchsummary.summary(tried, tuple(input_size), device="cpu")
    except Exception as error:
        raise UserError(
            f"torchsummary cannot show {type(network).__name__}: its modules must take and return tensors "
            f"({one_line(error)})"
        ) from error
    table = printed.getvalue().strip("\n")
    count = sum(parameter.numel() for parameter in network.parameters())
    if f"Total params: {count:,}\n" not in table:
        table += f"\nParameters, each counted once, in all modules: {count:,}"
    return table


def receptive_field_table(network_rows: list[Row]) -> str:
    """The rows of receptive_field as a Markdown table."""
    header = network_rows[0]._fields
    lines = [header, tuple("-" * len(name) for name in header), *network_rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
