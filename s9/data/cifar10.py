"""CIFAR-10 as arrays, from either layout of its files; CIFAR-100 from torchvision's."""

from pathlib import Path
from typing import Any

import numpy as np

# Relative, for hubconf.py; and what only reading needs is imported there.
from ..errors import UserError, one_line

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
"""Of all pixels of CIFAR-10's training set, per channel, in 0..1. The deviations in most copies of this
assignment, (0.2023, 0.1994, 0.2010), are the mean of the deviations within single images."""

PER_CLASS = {"train": 5_000, "test": 1_000}

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images and labels, test images and labels: uint8 (n, 32, 32, 3) and int64 (n,)."""


def read_folder(folder: Path) -> Arrays:
    """CIFAR-10 from a folder that holds `cifar-10-batches-py`, is it, or holds the two parquet files.

    Raises UserError if it holds neither, or not all of CIFAR-10.
    """
    from torchvision.datasets import CIFAR10

    if folder.name == CIFAR10.base_folder or (folder / CIFAR10.base_folder).is_dir():
        return read_batches(folder, CIFAR10)[1]
    if all(list(folder.glob(f"{split}-*.parquet")) for split in PER_CLASS):
        return _read_parquet(folder)
    raise UserError(
        f"data folder {folder} {'holds no CIFAR-10' if folder.exists() else 'does not exist'}: give one with "
        f"{CIFAR10.base_folder}/, or train-*.parquet and test-*.parquet (--data-dir, CIFAR10_DIR)"
    )


def read_batches(folder: Path, kind: Any) -> tuple[tuple[str, ...], Arrays]:
    """The names of the classes, and the arrays, of a folder that holds `kind.base_folder` or is it.

    kind: torchvision's CIFAR10 or CIFAR100, which compares every file with its published MD5 before it
    unpickles one. Raises UserError if one is missing or differs.
    """
    folder = folder.parent if folder.name == kind.base_folder else folder
    try:
        train, test = kind(folder, train=True), kind(folder, train=False)
    except (OSError, RuntimeError) as error:
        problem = "is missing, incomplete or damaged (MD5): delete it and get it again"
        raise UserError(f"{folder / kind.base_folder} {problem}") from error
    arrays = []
    for split in (train, test):
        arrays += [np.ascontiguousarray(split.data), np.array(split.targets, dtype=np.int64)]
    return tuple(train.classes), tuple(arrays)


def _read_parquet(folder: Path) -> Arrays:
    """The layout of the Hugging Face data set uoft-cs/cifar10, folder plain_text."""
    import pyarrow.parquet

    arrays = []
    for split, per_class in PER_CLASS.items():
        images, labels = [], []
        for path in sorted(folder.glob(f"{split}-*.parquet")):
            try:
                with pyarrow.parquet.ParquetFile(path) as file:
                    # In parts: reading a whole file at once would keep memory of its size allocated.
                    batches = file.iter_batches(500, columns=["img", "label"])
                    for row in (row for batch in batches for row in batch.to_pylist()):
                        images.append(_decode(row["img"]["bytes"]))
                        labels.append(np.int64(row["label"]))
            except Exception as error:  # Of pyarrow, of OpenCV, or of Python where a row is not as expected.
                problem = f"is damaged or not CIFAR-10's ({one_line(error)})"
                raise UserError(f"{path} {problem}: get it again") from error
        if not np.array_equal(np.sort(labels), np.repeat(np.arange(10), per_class)):
            needed = f"{per_class:,} images of each class"
            raise UserError(f"{folder}: the {split} set must have {needed}: get it again")
        arrays += [np.stack(images), np.array(labels)]
    return tuple(arrays)


def _decode(png: bytes) -> np.ndarray:
    import cv2

    # Unchanged: otherwise a grey image, or one of 16 bits a channel, would be converted without notice.
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape != (32, 32, 3) or image.dtype != np.uint8:
        raise ValueError("an image is not uint8 (32, 32, 3)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
