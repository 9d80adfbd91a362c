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


def small(count: int = 10) -> Data:
    images, labels = make_images(count), np.arange(count) % 10
    return Data("cifar10", CLASSES, images, labels, images[::-1], labels)


def write_parquet(path: Path, images: list, labels: list) -> None:
    """As in the Hugging Face data set; `images` are files' contents."""
    rows = [{"bytes": image, "path": None} for image in images]
    table = pyarrow.table({"img": rows, "label": labels})
    pyarrow.parquet.write_table(table, path, row_group_size=7)


def write_torchvision(root: Path, kind: type, contents: dict[str, dict], monkeypatch) -> Path:
    """A data set of torchvision's, whose checksums its class expects until the test ends; returns `root`.

    contents: by name, of the files for training, of that for the test, and of that with the classes' names.
    """
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    sums = []
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums.append([name, hashlib.md5(pickle.dumps(content)).hexdigest()])
    monkeypatch.setattr(kind, "train_list", sums[:-2])
    monkeypatch.setattr(kind, "test_list", sums[-2:-1])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[-1][1]})
    return root


def write_batches(root: Path, data: Data, monkeypatch) -> Path:
    """CIFAR-10 as torchvision has it."""

    def content(images: np.ndarray, labels: np.ndarray) -> dict:
        return {"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), "labels": labels.tolist()}

    parts = np.array_split(np.arange(len(data.train_labels)), 5)
    contents = {
        f"data_batch_{number}": content(data.train_images[part], data.train_labels[part])
        for number, part in enumerate(parts, 1)
    }
    contents["test_batch"] = content(data.test_images, data.test_labels)
    contents["batches.meta"] = {"label_names": list(CLASSES)}
    return write_torchvision(root, CIFAR10, contents, monkeypatch)


def assert_well_formed(data: Data, train: int, test: int) -> None:
    """The module's promise on shapes and types; contiguous, without which augmenting is far slower."""
    for split, count in (("train", train), ("test", test)):
        images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        assert images.shape == (count, 32, 32, 3) and images.dtype == np.uint8
        assert labels.shape == (count,) and labels.dtype == np.int64
        assert images.flags.c_contiguous
        assert set(labels) == set(range(10))
