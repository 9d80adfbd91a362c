"""The assignment's dataset: the augmentations, the Dataset that applies them to batches, the loaders."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from s9.data.augment import A, ToTensorV2, augment, check_transform, reseed
from s9.data.cifar10 import MEAN, STD
from s9.data.device_loader import Loader
from s9.data.sources import Data
from s9.data.sources import load as load
from s9.errors import UserError

TEST_BATCH_SIZE = 250
MOST_WORKERS = 256


def train_transform(
    mean: Sequence[float] = MEAN, std: Sequence[float] = STD, probability: float = 0.5, shift: float = 0.0625
) -> A.Compose:
    """The assignment's three augmentations, then Normalize and ToTensorV2; takes a uint8 image (32, 32, 3).

    mean, std: of the training set, per channel, in 0..1. CoarseDropout fills its hole with the mean.
    probability: of ShiftScaleRotate and of CoarseDropout, each, in 0..1.
    shift: the largest shift in each direction, as a fraction of the side, in 0..1. Albumentations truncates
    it to whole pixels: 1/16 of 32 pixels gives -1, 0 or 1, and 0 half the time; 1/8 gives -3 to 3.

    Raises ValueError for a probability outside of its range or a shift above 1, UserError as test_transform.
    """
    with warnings.catch_warnings():  # Albumentations 2 notes that Affine can do this too.
        warnings.filterwarnings("ignore", message="ShiftScaleRotate is a special case of Affine")
        shift_scale_rotate = A.ShiftScaleRotate(
            shift_limit=shift,
            scale_limit=0.1,
            rotate_limit=15,
            border_mode=cv2.BORDER_REFLECT_101,
            p=probability,
        )
    coarse_dropout = A.CoarseDropout(
        num_holes_range=(1, 1),
        hole_height_range=(16, 16),
        hole_width_range=(16, 16),
        # In the image's own range: Albumentations would truncate fractions, and take 0.49 for black.
        fill=tuple(round(255 * channel) for channel in mean),
        fill_mask=None,
        p=probability,
    )
    return A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            shift_scale_rotate,
            coarse_dropout,
            *test_transform(mean, std).transforms,
        ]
    )


def test_transform(mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> A.Compose:
    """Normalize and ToTensorV2 alone: a uint8 image (32, 32, 3) becomes a float32 tensor (3, 32, 32).

    Raises UserError unless mean and std are three numbers in 0..1 each, those of std above 0.
    """
    if not len(mean) == len(std) == 3 or not all(0 <= it <= 1 for it in (*mean, *std)) or 0 in std:
        raise UserError(f"mean and std must be three numbers in 0..1 (std above 0), got {mean} and {std}")
    return A.Compose([A.Normalize(mean=tuple(mean), std=tuple(std)), ToTensorV2()])


def augmentations_alone(
    mean: Sequence[float] = MEAN, seed: int = 0, probability: float = 0.5, shift: float = 0.0625
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """The augmentations for a figure: name -> function of a uint8 image (32, 32, 3) that returns the same.

    The original; each augmentation alone, with probability 1; all together as in training.
    seed: of the random choices. The other arguments are those of train_transform.
    """
    examples: dict[str, A.Compose] = {"Original": A.Compose([])}
    for step in train_transform(mean, shift=shift).transforms[:-2]:
        step.p = 1.0
        examples[type(step).__name__] = A.Compose([step])
    training = train_transform(mean, probability=probability, shift=shift)
    examples["All, as in training"] = A.Compose(training.transforms[:-2])
    for transform in examples.values():
        reseed(transform, seed)
    return {name: lambda image, t=transform: t(image=image)["image"] for name, transform in examples.items()}


class Batches:
    """A sampler of whole batches: of each the seed of its augmentations, and the indices of its images.

    Every random choice follows from (seed, epoch, batch number). So any number of workers, and a resumed run,
    see the same images, and no two batches share random numbers. Albumentations 2 by itself copies its
    generators into every worker: all workers then augment alike, and alike again in the next epoch.
    """

    def __init__(self, count: int, batch_size: int, seed: int, shuffle: bool) -> None:
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def size(self, number: int) -> int:
        """Images in a batch, by its number from 0; the last one may be smaller."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for number in range(self.first, len(self)):
            sequence = np.random.SeedSequence([self.seed, self.epoch, number])
            indices = order[number * self.batch_size :][: self.batch_size]
            yield int(sequence.generate_state(1, np.uint64)[0]), indices.tolist()


class Images(Dataset):
    """Images behind a transform: `images[seed, indices]` is a batch, augmented with that seed.

    images: uint8 (count, height, width, 3), labels: integers (count,); in any memory layout. A batch is uint8
    (n, height, width, 3) and int64 (n,). Raises UserError for other shapes or types.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: A.Compose | None = None) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UserError(f"images must be uint8 (n, height, width, 3), got {images.dtype} {images.shape}")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise UserError(f"labels must be {len(images)} integers, got {labels.dtype} {labels.shape}")
        # OpenCV cannot change a transposed view in place.
        self.images, self.labels = np.ascontiguousarray(images), np.ascontiguousarray(labels, np.int64)
        self.transform = transform

    def __getitem__(self, batch: tuple[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
        seed, indices = batch
        images = self.images[indices]
        if self.transform is not None:
            reseed(self.transform, seed)
            augment(images, self.transform)
        return images, self.labels[indices]


def default_workers(device: torch.device) -> int:
    """Number of worker processes for a device: 0 for the CPU, whose cores the network needs for itself.

    For a GPU, one less than the cores that this process may use, at least 1 and at most 8.
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
    """Loader of the shuffled, augmented training set, and loader of the test set in its own order.

    batch_size: training images in a batch, at least 1; the last batch of an epoch is smaller if need be.
    workers: processes that augment, 0..MOST_WORKERS; None for default_workers(device).
    device: where the batches go. transform: of the training images, see check_transform; None for
    train_transform(data.mean, data.std).
    process, processes: which part of every batch to return, see Loader.

    Raises UserError for arguments out of range, and for unfit data or transforms.
    """
    device = torch.device(device)
    workers = default_workers(device) if workers is None else workers
    for name, value, least in (("batch size", batch_size, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
    if not 0 <= workers <= MOST_WORKERS:
        raise UserError(f"workers must be in 0..{MOST_WORKERS}, got {workers}")
    left = len(data.train_images) % batch_size or batch_size
    if left < processes:
        raise UserError(f"the last batch has {left} images for {processes} processes: change --batch-size")
    transform = train_transform(data.mean, data.std) if transform is None else transform
    train = Images(data.train_images, data.train_labels, transform)
    test = Images(data.test_images, data.test_labels)
    check_transform(transform, train.images[:1], data.mean, data.std)

    where = (data.mean, data.std, device, process, processes)
    train_batches = Batches(len(data.train_labels), batch_size, seed, shuffle=True)
    test_batches = Batches(len(data.test_labels), TEST_BATCH_SIZE, seed, shuffle=False)
    return Loader(train, train_batches, *where, workers), Loader(test, test_batches, *where)
