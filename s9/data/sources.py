"""The data sets as arrays in memory: uint8 images (n, 32, 32, 3) and int64 labels (n,)."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from torchvision.datasets import CIFAR100
from tqdm import tqdm

from s9.data import download, photos
from s9.data.cifar10 import CLASSES, MEAN, STD, read_batches, read_folder
from s9.errors import UserError, printable

DATASETS = ("auto", "cifar10", "cifar100", "digits")
FOLDER = "folder-"
"""How the name of a data set from a folder begins."""


class Data(NamedTuple):
    """A data set in memory: images uint8 (n, 32, 32, 3), labels int64 (n,) from 0 to len(classes) - 1."""

    name: str
    """Letters, digits, '.', '_' and '-'. That of a folder of pictures begins with "folder-"."""
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    folder: str = ""
    """Where the pictures of a folder are."""

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over all images and labels, in their order."""
        digest = hashlib.sha256()
        for array in self[2:6]:
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]

    def facts(self) -> dict:
        """The data's entry in the record of a run."""
        return {
            "fingerprint": self.fingerprint(),
            "train": len(self.train_images),
            "test": len(self.test_images),
            "classes": list(self.classes),
            "mean": list(self.mean),
            "std": list(self.std),
        } | ({"folder": self.folder} if self.folder else {})

    def validation(self) -> "Data":
        """The training set alone: its last 5,000 images, a tenth if fewer, replace the test set."""
        count = min(5_000, max(len(self.train_images) // 10, 1))
        images, labels = self.train_images, self.train_labels
        return self._replace(
            train_images=images[:-count],
            train_labels=labels[:-count],
            test_images=images[-count:],
            test_labels=labels[-count:],
        )


def load(dataset: str = "auto", data_dir: str | Path | None = None, cache: Path | None = None) -> Data:
    """The named data set.

    dataset: "cifar10", "cifar100" or "digits"; "auto" for CIFAR-10 if it is available, else, with a warning,
    the digits; or the path of a folder of pictures, see pictures().
    data_dir: folder that holds CIFAR-10, as `cifar-10-batches-py` or as two parquet files; by default the
    environment variable CIFAR10_DIR; if that is not set either, it is downloaded, once, into `cache`.
    For CIFAR-100, the folder that holds `cifar-100-python`.

    Raises UserError for an unknown name, and for a data_dir that is not needed or incomplete.
    """
    if dataset not in DATASETS and not os.path.isdir(dataset):  # noqa: PTH112, it takes any text.
        names = ", ".join(DATASETS)
        raise UserError(f"unknown dataset {dataset!r}: choose one of {names}, or a folder of pictures")
    if data_dir and (dataset == "digits" or dataset not in DATASETS):
        raise UserError(f"the dataset {dataset} needs no data folder: leave out {data_dir}")
    if dataset == "digits":
        return digits()
    if dataset not in DATASETS:
        return pictures(Path(dataset))
    if dataset == "cifar100" and not data_dir:
        raise UserError("CIFAR-100 is not downloaded: name the folder that holds it (--data-dir)")
    if data_dir := data_dir or os.environ.get("CIFAR10_DIR"):
        try:
            folder = Path(data_dir).expanduser()
            if dataset == "cifar100":
                classes, arrays = read_batches(folder, CIFAR100)
                return Data("cifar100", classes, *arrays, *statistics(arrays[0]))
            return Data("cifar10", CLASSES, *read_folder(folder))
        except (OSError, RuntimeError) as error:  # A name too long, a home that is not there.
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"data folder {data_dir} cannot be read ({reason}): give another") from error
    try:
        return Data("cifar10", CLASSES, *read_folder(download.cifar10(cache)))
    except UserError as error:
        if dataset == "cifar10":
            raise
        print(f"{error}\n\n{'!' * 78}")
        print("CIFAR-10 is not available: using the small DIGITS data set instead.")
        print(f"Results on it say nothing about CIFAR-10.\n{'!' * 78}\n", flush=True)
        return digits()


def load_recorded(dataset: str, facts: dict, data_dir: str | Path | None = None) -> Data:
    """The data of a run. dataset, facts: settings.dataset and facts["data"] of its record.

    data_dir: see load(); for a folder of pictures, where it is now. Raises UserError as load() does, and if a
    folder holds other pictures than the run's.
    """
    if not dataset.startswith(FOLDER):
        return load(dataset, data_dir)
    folder = Path(data_dir or facts.get("folder") or dataset)
    if not os.path.isdir(folder):  # noqa: PTH112, it takes any text.
        raise UserError(f"the pictures of the run are not in {folder}: name their folder (--data-dir)")
    data = pictures(folder)._replace(name=dataset)
    if facts.get("fingerprint") not in (data.fingerprint(), data.validation().fingerprint()):
        raise UserError(f"{folder} holds other pictures than the run's: name their folder (--data-dir)")
    return data


def description(dataset: str, facts: dict) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Classes, mean and std of a run's data, from its record; arguments as for load_recorded().

    Raises UserError if they are missing or damaged.
    """
    if "classes" not in facts and dataset == "cifar10":  # Older records.
        return CLASSES, MEAN, STD
    try:
        classes, mean, std = (tuple(facts[key]) for key in ("classes", "mean", "std"))
        names = {name for name in classes if isinstance(name, str)}
        in_range = 0 < min(std) <= max(*mean, *std) <= 1
        if len(names) == len(classes) and len(mean) == len(std) == 3 and in_range:
            return classes, mean, std
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(f"the record lacks classes, mean or std of the data set {dataset}: train again")


def pictures(folder: Path) -> Data:
    """A folder of pictures, in the layout of torchvision's ImageFolder, read as predict.py reads them.

    Either FOLDER/train/CLASS/... and FOLDER/test/CLASS/... (or val), or FOLDER/CLASS/...: then a fifth of
    each class, the same in every run, is the test set. A class's folder may have subfolders. The classes are
    in alphabetical order; the training set is shuffled, always in the same way.

    Raises UserError if there are fewer than two classes, a class has too few pictures, is only in the test
    set, or has almost the name of another, or a picture cannot be read.
    """
    train, *tests = (folder / name for name in ("train", "test", "val"))
    is_folder = os.path.isdir  # Path.is_dir() raises where a folder above may not be entered.
    test = next((path for path in tests if is_folder(train) and is_folder(path)), None)
    found = _find_pictures(train if is_folder(train) else folder, least=1 if test else 2)
    classes, found_test = tuple(found), _find_pictures(test, least=1) if test else {}
    for name in found_test.keys() - found.keys():
        raise UserError(f"{test} has the class {name!r}, but {train} does not: add it or remove it")
    if not test:
        for label, name in enumerate(classes):
            paths = np.random.default_rng([0, label]).permutation(found[name])
            count = max(1, round(len(paths) / 5))
            found_test[name], found[name] = paths[:count], paths[count:]
    images, labels = _read_pictures(found, classes)
    order = np.random.default_rng(0).permutation(len(labels))
    arrays = images[order], labels[order], *_read_pictures(found_test, classes)
    name = FOLDER + re.sub(r"[^\w.-]+", "_", folder.resolve().name)
    mean, std = statistics(images)
    return Data(name, classes, *arrays, mean=mean, std=std, folder=str(folder))


def _files(folder: Path) -> Iterator[Path]:
    """The files in `folder` and below. Raises OSError for a folder that cannot be read: rglob() skips it."""

    def fail(error: OSError) -> None:
        raise error

    for place, _, names in os.walk(folder, onerror=fail):
        yield from (Path(place, name) for name in names)


def _find_pictures(folder: Path, least: int) -> dict[str, list[Path]]:
    """The pictures of each class; raises UserError if one has fewer than `least`."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
        found = {name: photos.among(_files(folder / name)) for name in names}
    except OSError as error:
        raise UserError(f"{printable(error.filename or folder)} cannot be read ({error.strerror})") from error
    if len(names) < 2:
        holds = f"only the class {names[0]!r}" if names else "no class"
        raise UserError(f"{folder} holds {holds}: it needs a folder of pictures for each of two or more")
    alike, count = Counter(name.casefold().strip() for name in names).most_common(1)[0]
    if count > 1:
        raise UserError(f"{folder} has {count} classes named {alike!r}, but for case and spaces: rename them")
    for name, paths in found.items():
        if len(paths) < least:
            raise UserError(f"{folder / name} holds {len(paths)} pictures: it needs at least {least}")
    return found


def _read_pictures(found: dict[str, list[Path]], classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    counts = [len(found.get(name, ())) for name in classes]
    paths = [path for name in classes for path in found.get(name, ())]
    bar = tqdm(paths, "Reading pictures", disable=None, leave=False)  # None: no bar outside of a terminal.
    images = [image for _, image in photos.read_all(bar)]
    if problems := [image for image in images if isinstance(image, UserError)]:
        raise UserError(f"{len(problems)} of {len(paths)} pictures cannot be used, the first: {problems[0]}")
    return np.stack(images), np.arange(len(classes), dtype=np.int64).repeat(counts)


def statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in 0..1, of uint8 images (n, height, width, 3).

    Raises UserError if a channel has the same value everywhere.
    """
    if not np.ptp(images, axis=(0, 1, 2)).all():
        raise UserError("all training images have one colour: use other pictures")
    mean, std = (values.ravel() / 255 for values in cv2.meanStdDev(images.reshape(-1, images.shape[2], 3)))
    return tuple(mean.tolist()), tuple(std.tolist())


def digits() -> Data:
    """Scikit-learn's 1,797 handwritten digits, 8x8 in 17 greys, as 32x32 RGB; a fifth of each to test."""
    # Imported here, because it takes a second.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    greys = (digits.images * (255 / 16)).round().astype(np.uint8)
    large = np.stack([cv2.resize(grey, (32, 32), interpolation=cv2.INTER_CUBIC) for grey in greys])
    images, labels = large[..., None].repeat(3, axis=-1), digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    classes = tuple(f"digit {digit}" for digit in range(10))
    pixels = train_images / 255
    mean, std = tuple(pixels.mean((0, 1, 2)).tolist()), tuple(pixels.std((0, 1, 2)).tolist())
    return Data("digits", classes, train_images, train_labels, test_images, test_labels, mean, std)
