"""Where a network is trained, and how precisely: device, precision, a batch that several processes share."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from s9.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Our names and Accelerate's."""


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """Where and how precisely to train.

    device: "auto" takes CUDA, else Apple's MPS, else the CPU.
    precision: of the convolutions in training; "auto" takes what the device computes faster than float32:
    bfloat16, or float16 on GPUs older than that; float32 where it has neither.

    Raises UserError for names that are unknown and for hardware that is not there.
    """
    there = _there()
    if device not in DEVICES:
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    if device == "auto":
        device = default_device()
    if not there[device]:
        raise UserError(f"this machine has no {device} device: use --device auto")
    fast = {"cpu": _fast_on_cpu, "cuda": _fast_on_cuda, "mps": lambda: ["float32"]}[device]()
    if precision not in ("auto", *PRECISIONS):
        raise UserError(f"unknown precision {precision!r}: choose one of auto, {', '.join(PRECISIONS)}")
    if precision != "auto" and precision not in fast:
        raise UserError(f"{device} has no fast {precision} here: choose one of auto, {', '.join(fast)}")
    # One Accelerator's choices would otherwise bind every later one of the process.
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    mixed_precision = PRECISIONS[fast[0] if precision == "auto" else precision]
    _check_launch()
    # Accelerate reads options from the environment, such as gradient accumulation, that no record shows.
    names = [name for name in os.environ if name.startswith("ACCELERATE_") and name != "ACCELERATE_USE_CPU"]
    hidden = {name: os.environ.pop(name) for name in names}
    try:
        return Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)
    finally:
        os.environ.update(hidden)


def _check_launch() -> None:
    """Raises UserError if the variables that several processes are started with are incomplete."""
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if os.environ.get("WORLD_SIZE", "1") != "1" and missing:
        raise UserError(
            f"WORLD_SIZE is set, but not {', '.join(missing)}: unset it, or start with accelerate launch"
        )


def _there() -> dict[str, bool]:
    """Which kinds of device this machine has, the fastest first."""
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def default_device() -> str:
    """The device that "auto" uses: "cuda", "mps" or "cpu"."""
    return next(name for name, there in _there().items() if there)


def precision_of(accelerator: Accelerator) -> str:
    """Our name of what it trains in, a key of PRECISIONS."""
    return next(ours for ours, theirs in PRECISIONS.items() if theirs == accelerator.mixed_precision)


def _fast_on_cpu() -> list[str]:
    """oneDNN takes bfloat16 on any CPU with AVX512; without instructions for it, at half of float32's speed.

    Intel's from Skylake to Ice Lake are such ones (https://github.com/uxlfoundation/oneDNN/issues/493). On
    other kinds of CPU, oneDNN's own answer is about the instructions.
    """
    if not torch.backends.mkldnn.is_available():
        return ["float32"]
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    fast = torch.cpu._is_avx512_bf16_supported() if x86 else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return ["bfloat16", "float32"] if fast else ["float32"]


def _fast_on_cuda() -> list[str]:
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return ["bfloat16", "float16", "float32"] if bfloat16 else ["float16", "float32"]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d that in training normalises by the whole batch, of which each process holds a part.

    torch.nn.SyncBatchNorm does so on CUDA alone; this does wherever torch.distributed works.
    """

    def forward(self, features: Tensor) -> Tensor:
        """As BatchNorm2d, on this process's images (n, channels, height, width), n at least 1."""
        if not self.training:
            return super().forward(features)
        values = features.float()
        count = all_reduce(values.new_tensor(values.numel() / values.shape[1]))
        mean = all_reduce(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            rate = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.item()
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * count / (count - 1), rate)
        scale = self.weight / (variance + self.eps).sqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)


@contextmanager
def shared_batch_norm(network: nn.Module, processes: int) -> Iterator[None]:
    """While entered, the BatchNorm2d layers of `network` normalise over all processes' images together.

    The layers themselves stay, so that the network has its own types again afterwards.
    """
    norms = [layer for layer in network.modules() if type(layer) is nn.BatchNorm2d and processes > 1]
    for norm in norms:
        norm.__class__ = SharedBatchNorm2d
    try:
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d
