"""A folder of pictures as a data set, in the layout of torchvision's ImageFolder: one folder per class.

Either FOLDER/train/CLASS/... and FOLDER/test/CLASS/... (or val), or FOLDER/CLASS/...: then a fifth of each
class, the same in every run, is the test set. A class's folder may have subfolders.
"""

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from s9.data import photos
from s9.errors import UserError, printable

TEST_PART = 5
"""One in so many pictures of a class is for the test set."""

Found = dict[str, list[Path]]
"""The pictures of each class."""


def read(folder: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The classes in alphabetical order; uint8 images (n, 32, 32, 3) and int64 labels (n,), train and test.

    The pictures are read as predict.py reads them; the training set is shuffled, always in the same way.

    Raises UserError if there are fewer than two classes, a class has too few pictures, is in the test set
    only or cannot be told from another by its name, or a picture cannot be read.
    """
    train = folder / "train" if (folder / "train").is_dir() else None
    test = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if (train is None) != (test is None):
        raise UserError(f"{folder} has only one of train/ and test/: add the other, or remove it")
    found = _find(train or folder, 1 if train else 2)
    classes = tuple(found)
    if train:
        found_test = _find(test, 1)
        if unknown := [name for name in found_test if name not in found]:
            raise UserError(
                f"{test} has the class {unknown[0]!r}, {train} has not: add it there or remove it"
            )
    else:
        found_test = {}
        for label, name in enumerate(classes):
            order = np.random.default_rng([0, label]).permutation(len(found[name]))
            paths, count = found[name], max(1, round(len(order) / TEST_PART))
            found[name], found_test[name] = (
                [paths[index] for index in sorted(part)] for part in (order[count:], order[:count])
            )
    images, labels = _load(found, classes)
    order = np.random.default_rng(0).permutation(len(labels))
    return classes, images[order], labels[order], *_load(found_test, classes)


def _find(folder: Path, least: int) -> Found:
    """By class; raises UserError if a class has fewer than `least` pictures."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        raise UserError(f"{printable(folder)} cannot be read ({error.strerror})") from error
    if len(names) < 2:
        holds = f"only the class {names[0]!r}" if names else "no class"
        raise UserError(f"{folder} holds {holds}: it needs a folder of pictures for each of two or more")
    alike: dict[str, str] = {}
    for name in names:
        if not name.isprintable():
            raise UserError(f"{folder} has a class named {name!a}: rename it, in printable characters")
        if (other := alike.setdefault(name.casefold().strip(), name)) != name:
            raise UserError(f"{folder} has the classes {other!r} and {name!r}, too alike: rename one")
    known = photos.endings()
    found = {
        name: sorted(
            Path(inside, file)
            for inside, _, files in os.walk(folder / name)
            for file in files
            if Path(file).suffix.lower() in known and not file.startswith(".")
        )
        for name in names
    }
    for name, paths in found.items():
        if len(paths) < least:
            raise UserError(f"{folder / name} holds {len(paths)} pictures: it needs {least} or more")
    return found


def _load(found: Found, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(path, label) for label, name in enumerate(classes) for path in found.get(name, ())]
    images = np.empty((len(pairs), photos.SIZE, photos.SIZE, 3), np.uint8)
    problems = []
    bar = tqdm(pairs, "Reading pictures", disable=None, leave=False)  # None: not where output is no terminal.
    for index, (path, _) in enumerate(bar):
        try:
            images[index] = photos.read(path)
        except UserError as error:
            problems.append(str(error))
    if problems:
        count = "1 picture" if len(problems) == 1 else f"{len(problems)} pictures, of which the first"
        raise UserError(f"{count} cannot be used: {problems[0]}")
    return images, np.array([label for _, label in pairs], np.int64)
