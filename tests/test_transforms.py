"""The augmentations, seen in the pixels that come out of them."""

import albumentations as A
import numpy as np
import pytest
import torch
from made_data import the_three
from scipy.stats import binom, chi2

import dataset
import utils
from dataset import Batches, Images, augmentations_alone, train_transform
from s9 import records
from s9.data.augment import reseed
from s9.data.cifar10 import MEAN, STD
from s9.engine.hardware import Hardware
from s9.errors import UserError
from s9.settings import Settings
from tools import answers, audit

HOLE = (125, 123, 114)  # the mean colour of CIFAR-10's training set
STEPS = ["HorizontalFlip", "ShiftScaleRotate", "CoarseDropout"]
TO_TENSOR = ["Normalize", "ToTensorV2"]


def make_image() -> np.ndarray:
    """An image that shows what was done to it: red grows to the right, green downwards; blue is 0 or 254.

    In space: what blue is in between tells an image that was resampled, red the direction that is right.
    """
    y, x = np.mgrid[:32, :32]
    return np.stack([8 * x, 8 * y, 254 * ((x + y) % 2)], -1).astype(np.uint8)


def noise(seed: int = 0) -> np.ndarray:
    """Only even values, of which the hole's colour has two that are odd."""
    return np.random.default_rng(seed).integers(0, 128, (32, 32, 3), np.uint8) * 2


def what_was_done(image: np.ndarray) -> tuple[bool, bool, bool]:
    """Whether what was make_image() is flipped, was shifted (scaled, rotated), and has a hole."""
    hole = (image == HOLE).all(-1)
    rest = image[~hole].astype(float)
    columns = np.nonzero(~hole)[1]
    flipped = np.corrcoef(rest[:, 0], columns)[0, 1] < 0
    shifted = ~np.isin(rest[:, 2], (0, 254)).all()
    return bool(flipped), bool(shifted), bool(hole.sum() >= 256)


def dependence(done: list[tuple[bool, bool, bool]]) -> float:
    """The p-value of a chi-square test that the eight combinations are equally likely."""
    counts = np.bincount(np.array(done) @ (4, 2, 1), minlength=8)
    expected = len(done) / 8
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), df=7)


def test_the_steps_are_the_assignments():
    assert [type(step).__name__ for step in train_transform().transforms] == STEPS + TO_TENSOR
    assert [type(step).__name__ for step in dataset.test_transform().transforms] == TO_TENSOR
    assert [step.p for step in the_three(train_transform())] == [0.5] * 3


def test_hole_is_one_square_of_16_inside_the_image_anywhere_in_it():
    image, corners = noise(), set()
    step = the_three(train_transform())[2]
    step.p = 1.0
    transform = A.Compose([step])
    reseed(transform, 0)
    for _ in range(4_000):
        augmented = transform(image=image)["image"]
        rows, columns = np.nonzero((augmented != image).any(-1))
        top, left = rows.min(), columns.min()
        filled = image.copy()
        filled[top : top + 16, left : left + 16] = HOLE
        np.testing.assert_array_equal(augmented, filled)
        corners.add((int(top), int(left)))
    # 289 places; that 4,000 holes miss one of them has odds of 1 to 3,600.
    assert corners == {(top, left) for top in range(17) for left in range(17)}


@pytest.mark.parametrize(("shift", "pixels"), [(0.0625, 1), (0.125, 3)])
def test_shift_scale_rotate_stays_within_its_limits(shift, pixels):
    """Whole pixels: see train_transform."""
    step = train_transform(shift=shift).transforms[1]
    centre = np.array([15.5, 15.5, 1])
    drawn = [step.get_params_dependent_on_data({"shape": (32, 32, 3)}, {}) for _ in range(2_000)]
    angles = np.array([one["rotate"] for one in drawn])
    scales = np.array([[one["scale"]["x"], one["scale"]["y"]] for one in drawn])
    shifts = np.array([one["matrix"] @ centre - centre for one in drawn])[:, :2]
    assert -15 <= angles.min() < -14.8 and 14.8 < angles.max() <= 15
    assert 0.9 <= scales.min() < 0.902 and 1.098 < scales.max() <= 1.1
    values, counts = np.unique(shifts.round(6) + 0.0, return_counts=True)
    assert values.tolist() == list(range(-pixels, pixels + 1))
    low, high = binom.interval(0.9999, shifts.size, 1 / (2 * pixels + 2))
    assert all(
        low <= count <= high for count in counts[values != 0]
    )  # 0 is twice as likely: cut from both sides


@pytest.mark.parametrize("batch_size", [1, 8])
def test_augmentations_are_independent_under_the_loaders_seeds(batch_size):
    images = np.stack([make_image()] * 2_000)
    data = Images(images, np.zeros(2_000, np.int64), train_transform())
    done = []
    for batch in Batches(2_000, batch_size, seed=0, shuffle=True):
        done += [what_was_done(image) for image in data[batch][0]]
    low, high = binom.interval(0.9999, 2_000, 0.5)
    assert all(low <= hits <= high for hits in np.sum(done, axis=0))
    assert dependence(done) > 0.001


def test_albumentations_own_seeding_ties_them_together():
    transform, tied = A.Compose(the_three(train_transform())), set()
    for seed in range(200):
        transform.set_random_seed(seed)
        tied.add(what_was_done(transform(image=make_image())["image"]))
    assert tied == {(False, False, False), (True, True, True)}


def test_test_transform_is_exact_and_always_the_same():
    image = noise()
    for mean, std in ((MEAN, STD), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))):
        transform = dataset.test_transform(mean, std)
        tensor = transform(image=image)["image"]
        assert tensor.dtype == torch.float32 and tensor.shape == (3, 32, 32)
        expected = ((image / 255 - mean) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-6)
        assert torch.equal(tensor, transform(image=image)["image"])


def test_augmentations_alone():
    image = noise()
    before = image.copy()
    examples = augmentations_alone()
    assert list(examples) == ["Original", *STEPS, "All, as in training"]
    for _ in range(20):
        results = {name: transform(image) for name, transform in examples.items()}
        for result in results.values():
            assert result.shape == (32, 32, 3) and result.dtype == np.uint8
        np.testing.assert_array_equal(results["Original"], before)
        np.testing.assert_array_equal(results["HorizontalFlip"], before[:, ::-1])
        assert (results["ShiftScaleRotate"] != before).any()
        assert (results["CoarseDropout"] == HOLE).all(-1).sum() == 256
    np.testing.assert_array_equal(image, before)
    hole = augmentations_alone((0.2, 0.4, 0.6))["CoarseDropout"](np.zeros((32, 32, 3), np.uint8))
    assert hole.max((0, 1)).tolist() == [51, 102, 153]


def test_fit_trains_with_another_transform_and_records_it(tmp_path):
    """It is not resumed with another one, and not handed in as the assignment's."""
    images, labels = np.stack([noise(seed) for seed in range(40)]), np.arange(40) % 10
    data = dataset.Data("digits", tuple("0123456789"), images, labels, images, labels)
    settings = Settings(model="fast", dataset="digits", epochs=1, batch_size=20)
    options = {"settings": settings, "data": data, "hardware": Hardware("cpu", workers=0)}
    transform = A.Compose([A.PadIfNeeded(40, 40), A.RandomCrop(32, 32)])
    run = records.read(utils.fit(folder=tmp_path / "own", transform=transform, **options).folder)
    assert run.facts["transform"].startswith("Compose([ PadIfNeeded(")
    assert "transform" not in records.read(utils.fit(folder=tmp_path / "plain", **options).folder).facts
    with pytest.raises(UserError, match="began with another transform"):
        utils.fit(folder=tmp_path / "own", resume=True, **options)
    for refuse in (answers.qna, audit.print_audit):
        with pytest.raises(UserError, match="was trained with another transform"):
            refuse(run._replace(settings=Settings()))
