"""CIFAR-10 as arrays, from either layout of its files; CIFAR-100 from torchvision's."""

import operator
from pathlib import Path
from typing import Any

import numpy as np

# Relative, for hubconf.py; and what only reading needs is imported there.
from ..errors import UserError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
"""Of all pixels of CIFAR-10's training set, per channel, in 0..1. The deviations in most copies of this
assignment, (0.2023, 0.1994, 0.2010), are the mean of the deviations within single images."""

PIECE = 500
"""Images that are read at a time: reading a whole file at once would keep memory of its size allocated."""

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Training images and labels, test images and labels: uint8 (n, 32, 32, 3) and int64 (n,)."""


def read_folder(folder: Path) -> Arrays:
    """CIFAR-10 from a folder that holds `cifar-10-batches-py`, is it, or holds the two parquet files.

    Raises UserError if it holds neither, or not all of CIFAR-10.
    """
    from torchvision.datasets import CIFAR10

    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"data folder {folder} {problem}: give one that holds CIFAR-10 (--data-dir, CIFAR10_DIR)"
        )
    if folder.name == CIFAR10.base_folder:
        folder = folder.parent
    if (folder / CIFAR10.base_folder).is_dir():
        return _read_batches(folder, CIFAR10, 5_000, 1_000)[1]
    if all(list(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")):
        return _read_parquet(folder)
    raise UserError(
        f"data folder {folder} holds no CIFAR-10: it needs {CIFAR10.base_folder}/, or train-*.parquet "
        "and test-*.parquet"
    )


def read_cifar100(folder: Path, per_class: tuple[int, int] = (500, 100)) -> tuple[tuple[str, ...], Arrays]:
    """The names of the 100 classes, and the arrays, of a folder that holds `cifar-100-python` or is it.

    per_class: training and test images of each class. Raises UserError if it does not hold all of CIFAR-100.
    """
    from torchvision.datasets import CIFAR100

    folder = folder.parent if folder.name == CIFAR100.base_folder else folder
    if not (folder / CIFAR100.base_folder).is_dir():
        raise UserError(f"data folder {folder} holds no CIFAR-100: it needs {CIFAR100.base_folder}/")
    return _read_batches(folder, CIFAR100, *per_class)


def _read_batches(folder: Path, kind: Any, *per_class: int) -> tuple[tuple[str, ...], Arrays]:
    """Torchvision's layout; it compares every file with its published MD5 before it unpickles one."""
    try:
        train, test = kind(folder, train=True), kind(folder, train=False)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{folder / kind.base_folder} is incomplete or damaged (MD5): delete it and get it again"
        ) from error
    arrays = []
    for split in (train, test):
        arrays += [np.ascontiguousarray(split.data), np.array(split.targets, dtype=np.int64)]
    return tuple(train.classes), _checked(tuple(arrays), folder, len(train.classes), *per_class)


def _read_parquet(folder: Path) -> Arrays:
    """The layout of the Hugging Face data set uoft-cs/cifar10, folder plain_text."""
    import pyarrow
    import pyarrow.parquet

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
                        raise ValueError(f"{count} images, expected {file.metadata.num_rows}")
            except Exception as error:  # Of pyarrow, of OpenCV, or of Python where a row is not as expected.
                reason = " ".join(str(error).split())[:120]
                raise UserError(
                    f"{path} is no CIFAR-10 parquet file or is damaged ({reason}): get it again"
                ) from error
        arrays += [np.concatenate(images), np.array(labels, dtype=np.int64)]
    # Arrow keeps freed memory, which every forked worker of a loader would inherit.
    pyarrow.default_memory_pool().release_unused()
    return _checked(tuple(arrays), folder, len(CLASSES), 5_000, 1_000)


def _decode(png: bytes) -> np.ndarray:
    import cv2

    # Unchanged: otherwise a grey image, or one of 16 bits a channel, would be converted without notice.
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("an image that cannot be decoded")
    if image.shape[:2] != (32, 32):
        raise ValueError("an image of {1}x{0} pixels, not of 32x32".format(*image.shape))
    if image.shape != (32, 32, 3) or image.dtype != np.uint8:
        raise ValueError(f"an image of {image.dtype} {image.shape}, not of red, green and blue bytes")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _checked(arrays: Arrays, folder: Path, classes: int, train: int, test: int) -> Arrays:
    """The arrays, if they hold `train` training and `test` test images of each class."""
    for name, images, labels, count in (("training", *arrays[:2], train), ("test", *arrays[2:], test)):
        balanced = np.array_equal(np.sort(labels), np.repeat(np.arange(classes), count))
        if images.shape != (classes * count, 32, 32, 3) or not balanced:
            raise UserError(
                f"{folder}: the {name} set is not CIFAR-{classes}'s {classes * count:,} images of 32x32x3, "
                f"{count:,} a class (it has shape {images.shape}): give the real one, or get it again"
            )
    return arrays
