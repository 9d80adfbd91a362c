"""Batches of bytes, copied to the device and normalised and resized there.

Bytes are a quarter of what floats would be on the way from a worker to the device, and there they already lie
in the channels-last layout that convolutions are fastest in.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Float32 (n, 3, height, width) of uint8 images (n, height, width, 3): minus `mean`, divided by `std`.

    Both are per channel, in 0..1. The bytes stay where they lie, so the result is in channels-last layout.
    """
    width = images.shape[2]
    # A row at a time: three channels at a time take a CPU five times as long.
    rows = images.flatten(2).float().sub_((255 * mean).repeat(width)).div_((255 * std).repeat(width))
    return rows.view(images.shape).permute(0, 3, 1, 2)


class Loader:
    """Batches of a DataLoader of bytes, on the device.

    Yields float32 images (batch, 3, size, size) in channels-last layout, normalised to zero mean and unit
    deviation over the training set, and int64 labels (batch,). process: which of `processes` gets its part of
    each batch. Batches are copied to a CUDA device while it computes earlier steps.
    """

    def __init__(
        self,
        source: DataLoader,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.source, self.device, self.size = source, device, None
        self.sampler: Any = source.sampler
        self.process, self.processes = process, processes
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def __len__(self) -> int:
        return len(self.source)

    def batch_size(self, number: int) -> int:
        """Images in a batch, by its number from 0, over all processes."""
        return self.sampler.size(number)

    def set_epoch(self, epoch: int, size: int | None = None, first: int = 0) -> None:
        """Sets what the next iteration yields.

        epoch: from 1. size: side of the images, None for their own. first: the first batch, from 0.
        """
        self.sampler.epoch, self.sampler.first, self.size = epoch, first, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.source:
            images, labels = self._send(*batch)
            images = normalise(images, self.mean, self.std)
            if self.size not in (None, images.shape[-1]):
                images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            yield images, labels

    def _send(self, *arrays: np.ndarray) -> list[Tensor]:
        tensors = [torch.from_numpy(array) for array in arrays]
        if self.stream is None:
            return [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        # Only from pinned memory, and on another stream than the steps', does a copy not wait for the steps.
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            sent = [tensor.pin_memory().to(self.device, non_blocking=True) for tensor in tensors]
        current.wait_stream(self.stream)
        for tensor in sent:
            tensor.record_stream(current)  # Its memory is not reused before the current stream is done.
        return sent
