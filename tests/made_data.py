"""Data like CIFAR-10, made up, in both layouts of files."""

import hashlib
import pickle
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
from torchvision.datasets import CIFAR10

from s9.data.cifar10 import CLASSES
from s9.data.sources import Data

THREE = (A.HorizontalFlip, A.ShiftScaleRotate, A.CoarseDropout)
SIZES = {"train": 50_000, "test": 10_000}
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


def the_three(transform: A.Compose) -> list[A.BasicTransform]:
    """The assignment's steps of a train_transform, whatever else is in it."""
    return [step for step in transform.transforms if type(step) in THREE]


def make_images(count: int) -> np.ndarray:
    """Images that differ from one another, and from their own mirror images in space and colour."""
    blocks = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def make_data() -> Data:
    """As many images and labels as CIFAR-10 has, 500 different images in a fixed disorder."""
    random = np.random.default_rng(1)
    images, arrays = make_images(500), []
    for count in SIZES.values():
        arrays += [images[random.integers(0, 500, count)], random.permutation(np.arange(count) % 10)]
    return Data("cifar10", CLASSES, *arrays)


def small(count: int = 10) -> Data:
    images, labels = make_images(count), np.arange(count) % 10
    return Data("cifar10", CLASSES, images, labels, images[::-1], labels)


def write_parquet(path: Path, images: list, labels: list) -> None:
    """As in the Hugging Face data set; `images` are files' contents."""
    rows = [{"bytes": image, "path": None} for image in images]
    table = pyarrow.table({"img": rows, "label": labels})
    pyarrow.parquet.write_table(table, path, row_group_size=4_321)


def write_batches(root: Path, data: Data, monkeypatch) -> Path:
    """Torchvision's layout, whose checksums torchvision expects until the test ends; returns `root`."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    size = -(-len(data.train_images) // 5)
    batches = {
        f"data_batch_{number + 1}": (data.train_images[start:][:size], data.train_labels[start:][:size])
        for number, start in enumerate(range(0, 5 * size, size))
    }
    batches["test_batch"] = (data.test_images, data.test_labels)
    sums = []
    for name, (images, labels) in batches.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3 * 32 * 32)
        content = pickle.dumps({"data": planes, "labels": labels.tolist()})
        (folder / name).write_bytes(content)
        sums.append([name, hashlib.md5(content).hexdigest()])
    content = pickle.dumps({"label_names": list(CLASSES)})
    (folder / "batches.meta").write_bytes(content)
    meta = {
        "filename": "batches.meta",
        "key": "label_names",
        "md5": hashlib.md5(content).hexdigest(),
    }
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return root


def assert_same(first: Data, second: Data) -> None:
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert (first.name, first.classes, first.mean, first.std) == (
        second.name,
        second.classes,
        second.mean,
        second.std,
    )


def assert_well_formed(data: Data, train: int, test: int) -> None:
    """The module's promise on shapes and types; contiguous, without which augmenting is far slower."""
    for split, count in (("train", train), ("test", test)):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        assert images.shape == (count, 32, 32, 3) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert set(labels) == set(range(10))
