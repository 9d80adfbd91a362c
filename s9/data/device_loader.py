"""Batches of bytes, a quarter of what floats would be; normalised and resized on the device."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Float32 (n, 3, height, width) of uint8 images (n, height, width, 3): minus `mean`, divided by `std`.

    Both are per channel, in 0..1. The bytes stay where they lie, so the result is in channels-last layout.
    """
    width = images.shape[2]
    # A row at a time: three channels at a time take a CPU five times as long.
    rows = images.flatten(2).float().sub_((255 * mean).repeat(width)).div_((255 * std).repeat(width))
    return rows.view(images.shape).permute(0, 3, 1, 2)


def _pinned(array: np.ndarray) -> Tensor:
    """A copy in memory that a CUDA device can read by itself.

    One thread makes it, NumPy's: PyTorch would take all, and wait for those whose cores the workers use.
    """
    like = torch.from_numpy(array)
    pinned = torch.empty_like(like, memory_format=torch.contiguous_format, pin_memory=True)
    np.copyto(pinned.numpy(), array)
    return pinned


class Loader(DataLoader):
    """Batches of bytes, made by `workers` processes, normalised and resized on the device.

    dataset, sampler: `dataset[batch]`, for each batch that the sampler draws, is uint8 images (n, height,
    width, 3) and int64 labels (n,). mean, std: of the training set, per channel, in 0..1.

    Yields float32 images (n, 3, size, size) in channels-last layout, and int64 labels (n,). Of each batch,
    every processes-th image from the process-th on; the others are augmented too, so that an image is the
    same for any number of processes. Batches are copied to a CUDA device while it computes earlier steps.
    """

    sampler: Any

    def __init__(
        self,
        dataset: Dataset,
        sampler: Any,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        process: int = 0,
        processes: int = 1,
        workers: int = 0,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            collate_fn=tuple,  # A batch is whole already.
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            # Otherwise it draws from PyTorch's default generator, as often as there are workers: Dropout
            # would depend on their number.
            generator=torch.Generator(),
        )
        self.device, self.process, self.processes, self.size = device, process, processes, None
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.mean, self.std = torch.tensor(mean, device=device), torch.tensor(std, device=device)

    def set_epoch(self, epoch: int, size: int | None = None, first: int = 0) -> None:
        """Sets what the next iteration yields.

        epoch: from 1. size: side of the images, None for their own. first: the first batch, from 0.
        """
        self.sampler.epoch, self.sampler.first, self.size = epoch, first, size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in super().__iter__():
            images, labels = self._send([array[self.process :: self.processes] for array in batch])
            images = normalise(images, self.mean, self.std)
            if self.size not in (None, images.shape[-1]):
                images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
            yield images, labels

    def _send(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        if self.stream is None:
            return [torch.from_numpy(array).to(self.device) for array in arrays]
        # Only from pinned memory, and on another stream than the steps', does a copy not wait for the steps.
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.stream):
            sent = [_pinned(array).to(self.device, non_blocking=True) for array in arrays]
        current.wait_stream(self.stream)
        for tensor in sent:
            tensor.record_stream(current)  # Its memory is not reused before the current stream is done.
        return sent
