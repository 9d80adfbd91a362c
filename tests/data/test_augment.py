"""Whole batches are augmented as train_transform augments single images: same pixels, same distributions."""

import albumentations as A
import numpy as np
import pytest
import torch
from made_data import the_three
from scipy.stats import chi2

from dataset import loaders, train_transform
from s9.data.augment import augment, reseed
from s9.data.cifar10 import CLASSES
from s9.data.sources import Data

COUNT = 400


def noise(count: int = COUNT, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def one_by_one(transform: A.Compose, images: np.ndarray) -> np.ndarray:
    return np.stack([transform(image=image)["image"] for image in images])


def at_once(transform: A.Compose, images: np.ndarray) -> np.ndarray:
    images = images.copy()
    augment(images, transform)
    return images


def bytes_alone() -> A.Compose:
    """train_transform without Normalize and ToTensorV2."""
    return A.Compose(the_three(train_transform()))


def without_hole() -> A.Compose:
    return A.Compose(the_three(train_transform())[:2])


@pytest.mark.parametrize(
    "make",
    [
        without_hole,
        lambda: A.Compose([A.InvertImg(p=0.5), *without_hole().transforms]),
        lambda: A.Compose([*without_hole().transforms, A.CoarseDropout(num_holes_range=(2, 3), p=0.5)]),
        lambda: A.Compose([A.CoarseDropout(num_holes_range=(1, 1), fill="random", p=0.5)]),
        lambda: A.Compose([A.ShiftScaleRotate(shift_limit=0.3, rotate_limit=90, border_mode=0, fill=9, p=1)]),
    ],
    ids=["flip and shift", "unknown step", "several holes", "random fill", "black border"],
)
@pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case")
@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_pixels(make, seed):
    """Each number is drawn by the transforms themselves, in the same order."""
    transform, images = make(), noise()
    reseed(transform, seed)
    expected = one_by_one(transform, images)
    reseed(transform, seed)
    result = at_once(transform, images)
    np.testing.assert_array_equal(result, expected)
    assert (result != images).any((1, 2, 3)).mean() > 0.3


def test_the_same_parameters_give_the_same_tensors(monkeypatch):
    """All of train_transform: the holes, drawn for a whole batch at once, are dealt out one by one."""
    drawn = []
    draw = A.CoarseDropout.get_params_dependent_on_data

    def record(step, params, data):
        params = draw(step, params, data)
        drawn.extend(params["holes"])
        return params

    images, labels = noise(), np.arange(COUNT)
    data = Data("cifar10", CLASSES, images, labels, images, labels)
    monkeypatch.setattr(A.CoarseDropout, "get_params_dependent_on_data", record)
    loader, _ = loaders(data, batch_size=COUNT, seed=5)
    loader.set_epoch(1)
    (batch,) = loader.source.sampler
    result, order = next(iter(loader))
    assert 150 < len(drawn) < 250

    dealt = iter(drawn)
    monkeypatch.setattr(
        A.CoarseDropout,
        "get_params_dependent_on_data",
        lambda step, params, data: {"holes": next(dealt)[None], "seed": 0},
    )
    transform = train_transform()
    reseed(transform, batch.seed)
    expected = torch.stack([transform(image=images[index])["image"] for index in order])
    assert next(dealt, None) is None
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_whole_batches_are_hit_as_often_and_as_independently_as_single_images():
    """A quarter stays as it is, a quarter is only flipped, half is shifted; half of each has a hole."""
    transform = bytes_alone()
    reseed(transform, 1)
    images = 2 * np.random.default_rng(0).integers(0, 60, (8_000, 32, 32, 3), np.uint8)
    changed = at_once(transform, images)
    hole = (changed == (125, 123, 114)).all(-1)  # two odd values: no such pixel was there before
    alone = ((changed == images).all(-1) | hole).all((1, 2))
    flipped = ((changed == images[:, :, ::-1]).all(-1) | hole).all((1, 2))
    holed = hole.sum((1, 2)) >= 256
    kinds = (alone, flipped, ~alone & ~flipped)
    observed = np.array([[(kind & (holed == wanted)).sum() for kind in kinds] for wanted in (False, True)])
    expected = np.array([1_000, 1_000, 2_000])
    assert observed.sum() == 8_000
    assert chi2.sf(((observed - expected) ** 2 / expected).sum(), 5) > 0.001
