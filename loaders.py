"""The loaders: whole batches at a time, augmented as bytes, normalised on the device.

On a machine with few cores this path is the epoch: what Python does for a single image is kept to the
drawing of its random numbers, which stays Albumentations' own, and one OpenCV call for each change of pixels.
Bytes are a quarter of what floats would be on the way from a worker to the device, and there they already lie
in the channels-last layout that convolutions are fastest in.
"""

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset import A, Data, ToTensorV2, reseed, train_transform
from errors import UserError

TEST_BATCH_SIZE = 250
MOST_WORKERS = 256
"""More is a slip of the keyboard, which would bring the machine down."""


class Batch(NamedTuple):
    """What a worker is asked for: some images, and the seed of all that is random about them."""

    seed: int
    indices: list[int]


class Batches:
    """A sampler of whole batches whose every random choice follows from (seed, epoch, batch number).

    So the workers, however many, and a resumed run see the very same images as a single process would, and
    no two batches share random numbers. Albumentations 2 left alone does otherwise: its generators are copied
    into every worker, which then all augment alike, and alike again in the next epoch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, shuffle: bool) -> None:
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def size(self, number: int) -> int:
        """Images in a batch, by its number from 0: the last one holds what is left."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for number in range(self.first, len(self)):
            sequence = np.random.SeedSequence([self.seed, self.epoch, number])
            indices = order[number * self.batch_size :][: self.batch_size]
            yield Batch(int(sequence.generate_state(1, np.uint64)[0]), indices.tolist())


class Images(Dataset):
    """Arrays behind a transform: `images[batch]` is uint8 (n, 32, 32, 3) and int64 (n,), not yet normalised.

    They are held as tensors, which reach a worker as shared memory however it is started, and given as
    arrays, which come back from one in half the time.

    Of several processes, each takes every so many-th image of a batch. All of them augment all of it, so that
    an image is changed in the same way however many processes there are.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        transform: A.Compose | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.transform = transform
        self.own = slice(process, None, processes)

    def __getitem__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        images, labels = self.images[batch.indices].numpy(), self.labels[batch.indices].numpy()
        if self.transform is not None:
            reseed(self.transform, batch.seed)
            augment(images, self.transform)
        return images[self.own], labels[self.own]


def as_fetched(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The collation of batches that are whole already: none."""
    return batch


def augment(images: np.ndarray, transform: A.Compose) -> None:
    """Does to each of the uint8 images (n, height, width, 3), in place, what `transform` would do to it.

    Normalize and ToTensorV2 are left to Loader. Whether and how an image is changed is drawn by the steps of
    `transform` themselves, from their own random numbers; what costs most of the time in calling them, the
    handling of targets around each change, is gone. A step of a kind that is not known here is just called.
    """
    for step in transform.transforms:
        if not isinstance(step, A.Normalize | ToTensorV2):
            IN_PLACE.get(type(step), _call)(step, images)


def _flip(step: A.HorizontalFlip, images: np.ndarray) -> None:
    for image in images:
        if step.should_apply():
            cv2.flip(image, 1, dst=image)


def _shift_scale_rotate(step: A.ShiftScaleRotate, images: np.ndarray) -> None:
    height, width, channels = images.shape[1:]
    fill = np.broadcast_to(step.fill, channels).tolist()
    for image in images:
        if step.should_apply():
            matrix = step.get_params_dependent_on_data({"shape": (height, width)}, {})["matrix"]
            image[:] = cv2.warpAffine(
                image,
                matrix[:2],
                (width, height),
                flags=step.interpolation,
                borderMode=step.border_mode,
                borderValue=fill,
            )


def _coarse_dropout(step: A.CoarseDropout, images: np.ndarray) -> None:
    if step.num_holes_range != (1, 1) or isinstance(step.fill, str):
        return _call(step, images)
    chosen = [image for image in images if step.should_apply()]
    if not chosen:
        return None
    # Its holes are drawn independently of each other: n holes for one image are one hole for each of n.
    many = copy.copy(step)
    many.num_holes_range = (len(chosen), len(chosen))
    holes = many.get_params_dependent_on_data({"shape": images.shape[1:3]}, {})["holes"]
    fill = np.array(step.fill, images.dtype)
    for image, (left, top, right, bottom) in zip(chosen, holes.tolist(), strict=True):
        image[top:bottom, left:right] = fill
    return None


def _call(step: A.BasicTransform, images: np.ndarray) -> None:
    for image in images:
        image[:] = step(image=image)["image"]


IN_PLACE: dict[type, Callable[[A.BasicTransform, np.ndarray], None]] = {
    A.HorizontalFlip: _flip,
    A.ShiftScaleRotate: _shift_scale_rotate,
    A.CoarseDropout: _coarse_dropout,
}


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


def default_workers(device: torch.device) -> int:
    """Processes that augment: beside a GPU, all but one of the cores this process may use, 1 to 8 of them.

    None where the CPU itself trains: there a worker only takes from the cores that the network computes on.
    """
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores - 1, 1), 8)


def loaders(
    data: Data,
    batch_size: int = 128,
    seed: int = 0,
    workers: int | None = None,
    device: torch.device | str = "cpu",
    transform: A.Compose | None = None,
    process: int = 0,
    processes: int = 1,
) -> tuple[Loader, Loader]:
    """Loader of the augmented, shuffled training set, and of the test set as it is, in its order.

    batch_size: images a training batch, at least 1; the last batch of an epoch holds what is left.
    workers: processes that augment, 0 for none, at most MOST_WORKERS, None for default_workers().
    device: where the images go. transform: of the training images; None for dataset.train_transform.
    process, processes: which one of how many asks; each gets its own part of every batch.

    Raises UserError for sizes, a seed or a device that make no sense.
    """
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {device!s} is unknown or not there: give another, such as cpu") from error
    workers = default_workers(device) if workers is None else workers
    if not isinstance(batch_size, int) or batch_size < 1:
        raise UserError(f"batch size {batch_size!r} makes no sense: give 1 or more")
    if not isinstance(workers, int) or not 0 <= workers <= MOST_WORKERS:
        raise UserError(f"{workers!r} workers make no sense: give 0 (none) to {MOST_WORKERS}")
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed {seed!r} makes no sense: give a whole number, 0 or more")
    left = len(data.train_images) % batch_size or batch_size
    if left < processes:
        raise UserError(
            f"an epoch's last batch has {left} images for {processes} processes: change --batch-size"
        )
    transform = transform or train_transform(data.mean, data.std)
    part = {"process": process, "processes": processes}
    train = DataLoader(
        Images(data.train_images, data.train_labels, transform, **part),
        batch_size=None,
        sampler=Batches(len(data.train_images), batch_size, seed, shuffle=True),
        collate_fn=as_fetched,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        # Else it draws from PyTorch's own numbers, more or fewer by `workers`, and shifts Dropout's.
        generator=torch.Generator(),
    )
    test = DataLoader(
        Images(data.test_images, data.test_labels, **part),
        batch_size=None,
        sampler=Batches(len(data.test_images), TEST_BATCH_SIZE, seed, shuffle=False),
        collate_fn=as_fetched,
        generator=torch.Generator(),
    )
    first, second = (Loader(source, data.mean, data.std, device, **part) for source in (train, test))
    return first, second
