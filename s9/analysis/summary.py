"""What a network consists of and costs: torchsummary's table, the count of multiply-adds."""

import contextlib
import io

import torch
import torchsummary
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from s9.analysis.graph import copy_to_try


def count_multiply_adds(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> int:
    """Of the convolutions and matrix products, for one image; the usual measure of a network's cost.

    Raises UserError if the network does not take an image of that size.
    """
    tried = copy_to_try(network, input_size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tried(torch.zeros(1, *input_size))
    return counter.get_total_flops() // 2


def summary(network: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> str:
    """What torchsummary prints of the network.

    It is shown a copy, on the CPU and not in training: torchsummary sends a random batch through what it is
    given, which would shift the BatchNorm statistics of a trained network, and move torch's random state.

    Raises UserError if the network does not take an image of that size.
    """
    tried, printed = copy_to_try(network, input_size), io.StringIO()
    with contextlib.redirect_stdout(printed), torch.random.fork_rng(devices=[]):
        torchsummary.summary(tried, tuple(input_size), device="cpu")
    return printed.getvalue().strip("\n")


def receptive_field_table(network_rows: list) -> str:
    """The rows of model.receptive_field as a Markdown table."""
    header = network_rows[0]._fields
    lines = [header, tuple("-" * len(name) for name in header), *network_rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
