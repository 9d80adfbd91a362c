"""The audit on transforms that break a rule."""

import warnings

import albumentations as A
import pytest
from made_runs import Rule

import dataset

MEAN = tuple(round(255 * channel) for channel in dataset.MEAN)


def replaced(index, *steps):
    transforms = list(dataset.train_transform().transforms)
    return A.Compose([*transforms[:index], *steps, *transforms[index + 1 :]])


def dropout(**arguments):
    settings = {
        "num_holes_range": (1, 1),
        "hole_height_range": (16, 16),
        "hole_width_range": (16, 16),
        "fill": MEAN,
        "fill_mask": None,
        "p": 0.5,
    }
    return A.CoarseDropout(**settings | arguments)


def old_dropout():
    """Albumentations 2 ignores the names that version 1 had, with a warning, and uses its own defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return A.CoarseDropout(
            max_holes=1, max_height=16, max_width=16, min_holes=1, min_height=16, min_width=16,
            fill_value=MEAN, mask_fill_value=None, p=0.5,
        )  # fmt: skip


def shift_scale_rotate(**arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return A.ShiftScaleRotate(**arguments)


STEPS = list(dataset.train_transform().transforms)
TRANSFORMS = {
    "no flip": (Rule.FLIP, replaced(0)),
    "a flip never used": (Rule.FLIP, replaced(0, A.HorizontalFlip(p=0))),
    "a flip in a choice": (Rule.FLIP, replaced(0, A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)]))),
    "Affine": (
        Rule.SHIFT_SCALE_ROTATE,
        replaced(1, A.Affine(translate_percent=0.06, scale=(0.9, 1.1), rotate=(-15, 15), p=0.5)),
    ),
    "a shift never used": (Rule.SHIFT_SCALE_ROTATE, replaced(1, shift_scale_rotate(p=0))),
    "no shift in it": (Rule.SHIFT_SCALE_ROTATE, replaced(1, shift_scale_rotate(shift_limit=0))),
    "no rotation in it": (Rule.SHIFT_SCALE_ROTATE, replaced(1, shift_scale_rotate(rotate_limit=0))),
    "one or two holes": (Rule.COARSE_DROPOUT, replaced(2, dropout(num_holes_range=(1, 2)))),
    "8 to 16": (Rule.COARSE_DROPOUT, replaced(2, dropout(hole_height_range=(8, 16)))),
    "the mean in 0..1": (Rule.COARSE_DROPOUT, replaced(2, dropout(fill=dataset.MEAN))),
    "the mean backwards": (Rule.COARSE_DROPOUT, replaced(2, dropout(fill=(114, 123, 125)))),
    "the mask filled": (Rule.COARSE_DROPOUT, replaced(2, dropout(fill_mask=0))),
    "a hole never used": (Rule.COARSE_DROPOUT, replaced(2, dropout(p=0))),
    "names of version 1": (Rule.COARSE_DROPOUT, replaced(2, old_dropout())),
    "two dropouts": (Rule.COARSE_DROPOUT, replaced(2, dropout(), dropout())),
    "a hole in normalised images": (
        Rule.COARSE_DROPOUT,
        A.Compose([*STEPS[:2], STEPS[3], STEPS[2], STEPS[4]]),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_that_breaks_a_rule(name, audited):
    requirement, transform = TRANSFORMS[name]
    assert set(audited(transform=transform)) == {requirement}


def test_the_same_said_in_another_way(audited):
    """What counts is what happens to the pixels: half of 32 is 16."""
    half = (0.5, 0.5)
    assert audited(transform=replaced(2, dropout(hole_height_range=half, hole_width_range=half, p=1))) == {}
    assert audited(transform=replaced(0, A.HorizontalFlip(p=1), A.RandomBrightnessContrast())) == {}


@pytest.mark.parametrize("transform", ["nothing", A.Compose([]), A.Compose(STEPS, p=0)])
def test_something_that_transforms_nothing(transform, audited):
    assert set(audited(transform=transform)) == {Rule.FLIP, Rule.SHIFT_SCALE_ROTATE, Rule.COARSE_DROPOUT}
