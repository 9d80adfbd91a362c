"""A loader of bytes, seen from the device: normalised there, and resized.

Bytes are a quarter of what floats would be on the way from a worker to the device, and there they already lie
in the channels-last layout that convolutions are fastest in.
"""

from collections.abc import Iterator, Sequence

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
    """A DataLoader of bytes, seen from the device.

    Gives float32 images (batch, 3, 32, 32) in channels-last layout, normalised to zero mean and unit
    deviation over the training set, and int64 labels (batch,), both on the device. `process` of `processes`
    is the one that it gives its part of each batch.
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
        self.process, self.processes = process, processes
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def __len__(self) -> int:
        return len(self.source)

    def batch_size(self, number: int) -> int:
        """Images in a batch, by its number from 0, over all processes."""
        return self.source.sampler.size(number)

    def set_epoch(self, epoch: int, size: int | None = None, first: int = 0) -> None:
        """What the next iteration is: the epoch, from 1; the side of its images, None for their own; its
        first batch, from 0, where an epoch that was broken off goes on."""
        self.source.sampler.epoch, self.source.sampler.first, self.size = epoch, first, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.source:
            images = normalise(self._send(images), self.mean, self.std)
            if self.size not in (None, images.shape[-1]):
                images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            yield images, self._send(labels)

    def _send(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":  # Else the copy would wait until the GPU is done with the step before.
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
