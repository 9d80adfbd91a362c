"""Whole batches are augmented as train_transform augments single images: same pixels, same distributions."""

import albumentations as A
import numpy as np
import pytest
import torch
from made_data import the_three

from dataset import loaders, train_transform
from s9.data.augment import augment, reseed
from s9.data.cifar10 import CLASSES
from s9.data.sources import Data

COUNT = 400
NOISE = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)


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
@pytest.mark.parametrize("seed", range(2))
def test_the_same_seed_gives_the_same_pixels(make, seed):
    """Each number is drawn by the transforms themselves, in the same order."""
    transform, result = make(), NOISE.copy()
    reseed(transform, seed)
    expected = np.stack([transform(image=image)["image"] for image in NOISE])
    reseed(transform, seed)
    augment(result, transform)
    np.testing.assert_array_equal(result, expected)
    assert (result != NOISE).any((1, 2, 3)).mean() > 0.3


def test_steps_within_a_step_have_random_numbers_of_their_own():
    flips = A.Compose([A.Sequential([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])])
    reseed(flips, 0)
    assert len({flips(image=NOISE[0])["image"].tobytes() for _ in range(50)}) == 4


def test_the_same_parameters_give_the_same_tensors(monkeypatch):
    """All of train_transform: the holes, drawn for a whole batch at once, are dealt out one by one."""
    drawn = []
    draw = A.CoarseDropout.get_params_dependent_on_data

    def record(step, params, data):
        params = draw(step, params, data)
        drawn.extend(params["holes"])
        return params

    labels = np.arange(COUNT)
    data = Data("cifar10", CLASSES, NOISE, labels, NOISE, labels)
    loader, _ = loaders(data, batch_size=COUNT, seed=5)
    loader.set_epoch(1)
    monkeypatch.setattr(A.CoarseDropout, "get_params_dependent_on_data", record)
    ((batch_seed, _),) = loader.sampler
    result, order = next(iter(loader))
    assert 150 < len(drawn) < 250

    dealt = iter(drawn)
    monkeypatch.setattr(
        A.CoarseDropout,
        "get_params_dependent_on_data",
        lambda step, params, data: {"holes": next(dealt)[None], "seed": 0},
    )
    transform = train_transform()
    reseed(transform, batch_seed)
    expected = torch.stack([transform(image=NOISE[index])["image"] for index in order])
    assert next(dealt, None) is None
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)
