"""Device and precision of training, and BatchNorm over the batch that several processes share."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from s9.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
"""Our names and Accelerate's."""


class Hardware(NamedTuple):
    """Where and how a run is computed; changes only the rounding of its result."""

    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    """See dataset.loaders."""
    graph: bool = True
    """Capture the training step as a CUDA graph, where one process trains on a CUDA device."""


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """The Accelerator that trains on a device in a precision; nothing else of it comes from the environment.

    device: one of DEVICES; "auto" is default_device().
    precision: of the convolutions in training, a key of PRECISIONS; "auto" is the first of fast_precisions().

    Raises UserError for unknown names, for hardware that this machine lacks, and if variables that start
    several processes are missing.
    """
    if device not in DEVICES:
        raise UserError(f"unknown device {device!r}: choose one of {', '.join(DEVICES)}")
    device = default_device() if device == "auto" else device
    if not _available()[device]:
        raise UserError(f"this machine has no {device} device: use --device auto")
    fast = fast_precisions(device)
    if precision not in ("auto", *PRECISIONS):
        raise UserError(f"unknown precision {precision!r}: choose one of auto, {', '.join(PRECISIONS)}")
    if precision != "auto" and precision not in fast:
        raise UserError(f"{device} has no fast {precision} here: choose one of auto, {', '.join(fast)}")
    _check_launch()
    # Accelerate keeps the choices of a process's first Accelerator for all later ones.
    AcceleratorState._reset_state(reset_partial_state=True)
    with unconfigured():
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=PRECISIONS[fast[0] if precision == "auto" else precision],
            # A CUDA graph must convert the weights itself; in one forward pass nothing else uses the cache.
            kwargs_handlers=[AutocastKwargs(cache_enabled=False)],
        )


@contextmanager
def unconfigured() -> Iterator[None]:
    """Hides Accelerate's variables: they change what is computed, and no record would show it."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("ACCELERATE_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _check_launch() -> None:
    """Refuses incomplete variables, with which Accelerate would wait for others, or train as one process."""
    numbers = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    given = [name for name in numbers if name in os.environ]
    missing = [name for name in (*numbers, "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    advice = "unset it, or start the processes with accelerate launch"
    if given and missing:
        raise UserError(f"{given[0]} is set, but not {', '.join(missing)}: {advice}")
    for name in (*numbers, "MASTER_PORT") if given else ():
        if not os.environ[name].isdecimal():
            raise UserError(f"{name}={os.environ[name]} is not a number: {advice}")
    if given and int(os.environ["MASTER_PORT"]) > 65_535:
        raise UserError(f"MASTER_PORT={os.environ['MASTER_PORT']} is no port: {advice}")


def _available() -> dict[str, bool]:
    return {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}


def default_device() -> str:
    """The device that "auto" uses: "cuda", else "mps", else "cpu"; after `accelerate launch --cpu` "cpu"."""
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    return next(name for name, available in _available().items() if available)


def fast_precisions(device: str) -> list[str]:
    """The precisions that a device computes fast in, the fastest first.

    oneDNN accepts bfloat16 on any x86 CPU with AVX512, but emulates it at half the speed of float32 on those
    of Intel from Skylake to Ice Lake (https://github.com/uxlfoundation/oneDNN/issues/493).
    """
    if device == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["bfloat16", "float16", "float32"] if bfloat16 else ["float16", "float32"]
    bfloat16 = False
    if device == "cpu" and torch.backends.mkldnn.is_available():
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        supported = torch.cpu._is_avx512_bf16_supported if x86 else torch.ops.mkldnn._is_mkldnn_bf16_supported
        bfloat16 = supported()
    return ["bfloat16", "float32"] if bfloat16 else ["float32"]


def precision_of(accelerator: Accelerator) -> str:
    """The precision that it trains in, a key of PRECISIONS."""
    return next(ours for ours, theirs in PRECISIONS.items() if theirs == accelerator.mixed_precision)


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Normalises, in training, over the images of all processes; torch.nn.SyncBatchNorm needs CUDA for it."""

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
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight / (variance + self.eps).sqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(features.dtype)
