"""A folder of pictures as a data set, in the layout of torchvision's ImageFolder: one folder per class.

Either FOLDER/train/CLASS/... and FOLDER/test/CLASS/... (or val), or FOLDER/CLASS/...: then a fifth of each
class, the same in every run, is the test set. A class's folder may have subfolders.
"""

from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from s9.data import photos
from s9.errors import UserError, printable


def read(folder: Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The classes in alphabetical order; uint8 images (n, 32, 32, 3) and int64 labels (n,), train and test.

    The pictures are read as predict.py reads them; the training set is shuffled, always in the same way.

    Raises UserError if there are fewer than two classes, a class has too few pictures, is only in the test
    set, or has almost the name of another, or a picture cannot be read.
    """
    train, *tests = (folder / name for name in ("train", "test", "val"))
    test = next((path for path in tests if train.is_dir() and path.is_dir()), None)
    found = _find(train if train.is_dir() else folder, least=1 if test else 2)
    classes, found_test = tuple(found), _find(test, least=1) if test else {}
    for name in found_test.keys() - found.keys():
        raise UserError(f"{test} has the class {name!r}, but {train} does not: add it or remove it")
    if not test:
        for label, name in enumerate(classes):
            paths = np.random.default_rng([0, label]).permutation(found[name])
            count = max(1, round(len(paths) / 5))
            found_test[name], found[name] = paths[:count], paths[count:]
    images, labels = _load(found, classes)
    order = np.random.default_rng(0).permutation(len(labels))
    return classes, images[order], labels[order], *_load(found_test, classes)


def _find(folder: Path, least: int) -> dict[str, list[Path]]:
    """The pictures of each class; raises UserError if one has fewer than `least`."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        raise UserError(f"{printable(folder)} cannot be read ({error.strerror})") from error
    if len(names) < 2:
        holds = f"only the class {names[0]!r}" if names else "no class"
        raise UserError(f"{folder} holds {holds}: it needs a folder of pictures for each of two or more")
    alike, count = Counter(name.casefold().strip() for name in names).most_common(1)[0]
    if count > 1:
        raise UserError(f"{folder} has {count} classes named {alike!r}, but for case and spaces: rename them")
    known = photos.endings()
    found = {
        name: sorted(
            path
            for path in (folder / name).rglob("*")
            if path.suffix.lower() in known and path.name[0] != "." and path.is_file()
        )
        for name in names
    }
    for name, paths in found.items():
        if len(paths) < least:
            raise UserError(f"{folder / name} holds {len(paths)} pictures: it needs at least {least}")
    return found


def _load(found: dict[str, list[Path]], classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(path, label) for label, name in enumerate(classes) for path in found.get(name, ())]
    images, problems = np.empty((len(pairs), photos.SIZE, photos.SIZE, 3), np.uint8), []
    bar = tqdm(pairs, "Reading pictures", disable=None, leave=False)  # None: no bar outside of a terminal.
    for index, (path, _) in enumerate(bar):
        try:
            images[index] = photos.read(path)
        except UserError as error:
            problems.append(error)
    if problems:
        raise UserError(f"{len(problems)} of {len(pairs)} pictures cannot be used, the first: {problems[0]}")
    return images, np.array([label for _, label in pairs], np.int64)
