"""The data: CIFAR-10 (or the bundled digits) as arrays, and the augmentations.

Arrays are uint8 images (n, 32, 32, 3) and int64 labels (n,). loaders.py makes batches of them.
"""

import hashlib
import operator
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# Importing Albumentations would ask PyPI for a newer version, and warn wherever it gets no answer.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
from albumentations.pytorch import ToTensorV2
from torchvision.datasets import CIFAR10

import download
from errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
"""Of all pixels of CIFAR-10's training set, per channel, in 0..1. The deviations that most copies of this
assignment carry, (0.2023, 0.1994, 0.2010), are a mean over the deviations within single images."""

DATASETS = ("auto", "cifar10", "digits")
VALIDATION_IMAGES = 5_000
PIECE = 500
"""Images that are read at a time: a whole file at once would leave its size in free memory behind."""

cv2.setNumThreads(0)  # The images are tiny: OpenCV's own threads only get in the workers' way.


class Data(NamedTuple):
    """A data set in memory."""

    name: str
    """"cifar10" or "digits"."""
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over all images and labels, in their order."""
        digest = hashlib.sha256()
        for array in self[2:6]:
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]

    def facts(self) -> dict:
        """What a record says of the data."""
        return {
            "fingerprint": self.fingerprint(),
            "train": len(self.train_images),
            "test": len(self.test_images),
        }

    def validation(self) -> "Data":
        """The training set alone: its last 5,000 images stand in for the test set, which stays unseen."""
        count = min(VALIDATION_IMAGES, len(self.train_images) // 10)
        images, labels = self.train_images, self.train_labels
        return self._replace(
            train_images=images[:-count],
            train_labels=labels[:-count],
            test_images=images[-count:],
            test_labels=labels[-count:],
        )


def load(dataset: str = "auto", data_dir: str | Path | None = None, cache: Path | None = None) -> Data:
    """The named data set.

    dataset: "cifar10", "digits", or "auto": CIFAR-10 where it can be had, else digits, and says so.
    data_dir: folder that holds CIFAR-10, as `cifar-10-batches-py` or as two parquet files; if None, the
    environment variable CIFAR10_DIR; if that is not set either, it is downloaded, once, into `cache`.

    Raises UserError for an unknown name, for a folder that was given but holds no whole CIFAR-10, and for one
    given for the digits: what was asked for by name is never silently replaced.
    """
    if dataset not in DATASETS:
        raise UserError(f"unknown dataset {dataset!r}: choose one of {', '.join(DATASETS)}")
    if dataset == "digits":
        if data_dir:
            raise UserError(f"the digits need no data folder: leave out {data_dir}, or ask for cifar10")
        return _digits()
    data_dir = data_dir or os.environ.get("CIFAR10_DIR") or None
    if data_dir is not None:
        try:
            return _read_folder(Path(data_dir).expanduser())
        except (OSError, RuntimeError) as error:  # A name too long, a home that is not there.
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"data folder {data_dir} cannot be read ({reason}): give another") from error
    try:
        return _read_folder(download.cifar10(cache))
    except UserError as error:
        if dataset == "cifar10":
            raise
        print(f"{error}\n\n{'!' * 78}")
        print("CIFAR-10 cannot be had: going on with the small DIGITS data set instead.")
        print(f"Its figures say nothing about CIFAR-10.\n{'!' * 78}\n", flush=True)
        return _digits()


def _read_folder(folder: Path) -> Data:
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"data folder {folder} {problem}: give one that holds CIFAR-10 (--data-dir, CIFAR10_DIR)"
        )
    if folder.name == CIFAR10.base_folder:
        folder = folder.parent
    if (folder / CIFAR10.base_folder).is_dir():
        return _read_batches(folder)
    if all(list(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")):
        return _read_parquet(folder)
    raise UserError(
        f"data folder {folder} holds no CIFAR-10: it needs {CIFAR10.base_folder}/, or train-*.parquet "
        "and test-*.parquet"
    )


def _read_batches(folder: Path) -> Data:
    """Torchvision's layout; it compares every file with its published MD5 before it unpickles one."""
    try:
        train, test = CIFAR10(folder, train=True), CIFAR10(folder, train=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{folder / CIFAR10.base_folder} is incomplete or damaged (MD5): delete it and get it again"
        ) from error
    arrays = []
    for split in (train, test):
        # Its images are a view of planes; OpenCV takes nearly twice as long over one.
        arrays += [np.ascontiguousarray(split.data), np.array(split.targets, dtype=np.int64)]
    return _checked(Data("cifar10", CLASSES, *arrays), folder)


def _read_parquet(folder: Path) -> Data:
    """The layout of the Hugging Face data set uoft-cs/cifar10, folder plain_text."""
    arrays = []
    for split in ("train", "test"):
        images, labels = [], []
        for path in sorted(folder.glob(f"{split}-*.parquet")):
            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    images.append(np.empty((file.metadata.num_rows, 32, 32, 3), np.uint8))
                    count = 0
                    for rows in file.iter_batches(PIECE, columns=["img", "label"]):
                        labels += [operator.index(label) for label in rows["label"].to_pylist()]
                        for row in rows["img"].to_pylist():
                            images[-1][count] = _decode(row["bytes"])
                            count += 1
                    if count != file.metadata.num_rows:
                        raise ValueError(f"{count} images, where it speaks of {file.metadata.num_rows}")
            except (
                OSError,
                ValueError,
                TypeError,
                LookupError,
                MemoryError,
                cv2.error,
                pyarrow.ArrowException,
            ) as error:
                reason = " ".join(str(error).split())[:120]
                raise UserError(
                    f"{path} is no CIFAR-10 parquet file or is damaged ({reason}): get it again"
                ) from error
        arrays += [np.concatenate(images), np.array(labels, dtype=np.int64)]
    # Arrow keeps what it freed, and every worker of a loader would take it over.
    pyarrow.default_memory_pool().release_unused()
    return _checked(Data("cifar10", CLASSES, *arrays), folder)


def _decode(png: bytes) -> np.ndarray:
    # Unchanged: else a grey image, or one of 16 bits a channel, would come out as if it were one of these.
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("an image that cannot be decoded")
    if image.shape[:2] != (32, 32):
        raise ValueError("an image of {1}x{0} pixels, not of 32x32".format(*image.shape))
    if image.shape != (32, 32, 3) or image.dtype != np.uint8:
        raise ValueError(f"an image of {image.dtype} {image.shape}, not of red, green and blue bytes")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _checked(data: Data, folder: Path) -> Data:
    expected = {
        "train": (data.train_images, data.train_labels, 5_000),
        "test": (data.test_images, data.test_labels, 1_000),
    }
    for split, (images, labels, per_class) in expected.items():
        balanced = np.array_equal(np.sort(labels), np.repeat(np.arange(10), per_class))
        if images.shape != (10 * per_class, 32, 32, 3) or not balanced:
            raise UserError(
                f"{folder}: the {split} set is not CIFAR-10's {10 * per_class:,} images of 32x32x3, "
                f"{per_class:,} a class (it has shape {images.shape}): give the real one, or get it again"
            )
    return data


def _digits() -> Data:
    """Scikit-learn's 1,797 handwritten digits, 8x8 in 17 greys, as 32x32 RGB; a fifth of each to test."""
    # Here: it takes a second to import, and nothing else needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    greys = (digits.images * (255 / 16)).round().astype(np.uint8)
    large = [
        cv2.cvtColor(cv2.resize(grey, (32, 32), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
        for grey in greys
    ]
    train_images, test_images, train_labels, test_labels = train_test_split(
        np.stack(large), digits.target.astype(np.int64), test_size=0.2, random_state=0, stratify=digits.target
    )
    mean, std = (train_images / 255.0).mean((0, 1, 2)), (train_images / 255.0).std((0, 1, 2))
    classes = tuple(f"digit {digit}" for digit in range(10))
    arrays = train_images, train_labels, test_images, test_labels
    return Data("digits", classes, *arrays, tuple(mean.tolist()), tuple(std.tolist()))


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


def reseed(transform: A.Compose, seed: int) -> None:
    """Gives each transform of `transform` random numbers of its own, all drawn from `seed`.

    `transform.set_random_seed(seed)` would hand every transform the same seed: they would then draw the same
    numbers, and a flipped image would be a shifted and a holed one too.

    Raises UserError for a seed that is no whole number from 0.
    """
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed {seed!r} makes no sense: give a whole number, 0 or more")
    seeds = np.random.SeedSequence(seed).generate_state(len(transform.transforms), np.uint64)
    for step, own_seed in zip(transform.transforms, seeds.tolist(), strict=True):
        step.set_random_seed(own_seed)
