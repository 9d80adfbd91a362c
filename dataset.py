"""The assignment's dataset: the augmentations, the Dataset that applies them, the loaders.

The arrays come from s9/data/sources.py: uint8 images (n, 32, 32, 3) and int64 labels (n,).
"""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from s9.data.augment import A, ToTensorV2, augment, reseed
from s9.data.cifar10 import CLASSES, MEAN, STD
from s9.data.device_loader import Loader
from s9.data.sources import DATASETS, Data, load
from s9.errors import UserError

__all__ = [
    "CLASSES",
    "DATASETS",
    "MEAN",
    "STD",
    "Data",
    "augmentations_alone",
    "load",
    "loaders",
    "test_transform",
    "train_transform",
]

TEST_BATCH_SIZE = 250
MOST_WORKERS = 256
"""More is a slip of the keyboard, which would bring the machine down."""


def train_transform(
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    probability: float = 0.5,
    shift: float = 0.0625,
) -> A.Compose:
    """The assignment's three augmentations, then Normalize and ToTensorV2; takes a uint8 image (32, 32, 3).

    probability: of ShiftScaleRotate and of CoarseDropout, each, in 0..1.
    shift: the farthest to each side, in parts of the side, in 0..1. Albumentations cuts it to whole pixels,
    towards 0: 1/16 of 32 pixels means -1, 0 or 1, and 0 half the time; 1/8 means -3 to 3.
    mean, std: the training set's, per channel, in 0..1. The hole is filled with the mean in the image's own
    range, 0..255, rounded: Albumentations would cut the fraction off, and would take 0.49 for black.

    Raises UserError for values out of these ranges.
    """
    to_tensor = test_transform(mean, std).transforms
    hole = (16, 16)
    fill = tuple(round(255 * channel) for channel in mean)
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            _shift_scale_rotate(probability, shift),
            A.CoarseDropout(
                num_holes_range=(1, 1),
                hole_height_range=hole,
                hole_width_range=hole,
                fill=fill,
                fill_mask=None,
                p=probability,
            ),
            *to_tensor,
        ]
    )


def _shift_scale_rotate(probability: float, shift: float) -> A.ShiftScaleRotate:
    for name, value in (("probability", probability), ("shift", shift)):
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"augmentation {name} {value!r} makes no sense: give one in 0..1")
    with warnings.catch_warnings():  # Albumentations 2 notes that Affine can do this too.
        warnings.filterwarnings("ignore", message="ShiftScaleRotate is a special case of Affine")
        return A.ShiftScaleRotate(
            shift_limit=shift,
            scale_limit=0.1,
            rotate_limit=15,
            border_mode=cv2.BORDER_REFLECT_101,
            p=probability,
        )


def augmentations_alone(
    mean: Sequence[float] = MEAN, seed: int = 0, probability: float = 0.5, shift: float = 0.0625
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """To look at: by name, what train_transform does to a uint8 image, still uint8 (32, 32, 3) after it.

    Nothing; each augmentation alone and always; all as in training (probability, shift: see
    train_transform).

    Raises UserError for a mean out of 0..1 or a seed below 0.
    """
    together = A.Compose(train_transform(mean, probability=probability, shift=shift).transforms[:-2])
    examples: dict[str, A.Compose] = {"Original": A.Compose([])}
    for step in train_transform(mean, shift=shift).transforms[:-2]:
        step.p = 1.0
        examples[type(step).__name__] = A.Compose([step])
    examples["All, as in training"] = together
    for transform in examples.values():
        reseed(transform, seed)
    return {name: lambda image, t=transform: t(image=image)["image"] for name, transform in examples.items()}


def test_transform(mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> A.Compose:
    """Normalize and ToTensorV2 alone: a uint8 image (32, 32, 3) becomes a float32 tensor (3, 32, 32).

    Raises UserError for a mean or a deviation that is not three numbers in 0..1, the latter above 0.
    """
    for name, channels in (("mean", mean), ("std", std)):
        try:
            fits = len(channels) == 3 and all(0 <= channel <= 1 for channel in channels)
        except TypeError:
            fits = False
        if not fits or (name == "std" and 0 in channels):
            raise UserError(f"{name} {channels!r} makes no sense: give three numbers in 0..1, one a channel")
    return A.Compose([A.Normalize(mean=tuple(mean), std=tuple(std)), ToTensorV2()])


test_transform.__test__ = False  # Its name is the assignment's; pytest must not take it for a test.


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
