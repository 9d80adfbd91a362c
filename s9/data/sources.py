"""The data sets as arrays in memory: uint8 images (n, 32, 32, 3) and int64 labels (n,)."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from s9.data import download
from s9.data.cifar10 import CLASSES, MEAN, STD, read_folder
from s9.errors import UserError

DATASETS = ("auto", "cifar10", "digits")


VALIDATION_IMAGES = 5_000


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
        return digits()
    data_dir = data_dir or os.environ.get("CIFAR10_DIR") or None
    if data_dir is not None:
        try:
            return Data("cifar10", CLASSES, *read_folder(Path(data_dir).expanduser()))
        except (OSError, RuntimeError) as error:  # A name too long, a home that is not there.
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"data folder {data_dir} cannot be read ({reason}): give another") from error
    try:
        return Data("cifar10", CLASSES, *read_folder(download.cifar10(cache)))
    except UserError as error:
        if dataset == "cifar10":
            raise
        print(f"{error}\n\n{'!' * 78}")
        print("CIFAR-10 cannot be had: going on with the small DIGITS data set instead.")
        print(f"Its figures say nothing about CIFAR-10.\n{'!' * 78}\n", flush=True)
        return digits()


def digits() -> Data:
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
