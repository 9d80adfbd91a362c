"""Albumentations on whole batches of bytes, in place.

On a machine with few cores augmenting is the epoch: what Python does for a single image is kept to the
sampling of its parameters, which stays Albumentations' own, and one OpenCV call for each change of pixels.
"""

import copy
import os
from collections.abc import Callable

# Importing Albumentations would ask PyPI for a newer version, and warn wherever it gets no answer.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2

from s9.errors import UserError

cv2.setNumThreads(0)  # The images are tiny: OpenCV's own threads only get in the workers' way.


def reseed(transform: A.Compose, seed: int) -> None:
    """Gives each transform of `transform` random numbers of its own, all drawn from `seed`.

    `transform.set_random_seed(seed)` would hand every transform the same seed: they would then draw the same
    numbers, and a flipped image would be a shifted and a holed one too.

    Raises UserError for a seed that is no whole number from 0.
    """
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"seed {seed!r} makes no sense: give a whole number, 0 or more")
    seeds = np.random.SeedSequence(seed).generate_state(len(transform.transforms), np.uint64)
    for step, own_seed in zip(transform.transforms, seeds.tolist(), strict=True):
        step.set_random_seed(own_seed)


def augment(images: np.ndarray, transform: A.Compose) -> None:
    """Does to each of the uint8 images (n, height, width, 3), in place, what `transform` would do to it.

    Normalize and ToTensorV2 are left to Loader. Whether and how an image is changed is drawn by the steps of
    `transform` themselves, from their own random numbers; what costs most of the time in calling them, the
    handling of targets around each change, is gone. A step of a kind that is not known here is just called.
    """
    for step in transform.transforms:
        if not isinstance(step, A.Normalize | ToTensorV2):
            IN_PLACE.get(type(step), _call)(step, images)


def _flip(step: A.HorizontalFlip, images: np.ndarray) -> None:
    for image in images:
        if step.should_apply():
            cv2.flip(image, 1, dst=image)


def _shift_scale_rotate(step: A.ShiftScaleRotate, images: np.ndarray) -> None:
    height, width, channels = images.shape[1:]
    fill = np.broadcast_to(step.fill, channels).tolist()
    for image in images:
        if step.should_apply():
            matrix = step.get_params_dependent_on_data({"shape": (height, width)}, {})["matrix"]
            image[:] = cv2.warpAffine(
                image,
                matrix[:2],
                (width, height),
                flags=step.interpolation,
                borderMode=step.border_mode,
                borderValue=fill,
            )


def _coarse_dropout(step: A.CoarseDropout, images: np.ndarray) -> None:
    if step.num_holes_range != (1, 1) or isinstance(step.fill, str):
        return _call(step, images)
    chosen = [image for image in images if step.should_apply()]
    if not chosen:
        return None
    # Its holes are drawn independently of each other: n holes for one image are one hole for each of n.
    many = copy.copy(step)
    many.num_holes_range = (len(chosen), len(chosen))
    holes = many.get_params_dependent_on_data({"shape": images.shape[1:3]}, {})["holes"]
    fill = np.array(step.fill, images.dtype)
    for image, (left, top, right, bottom) in zip(chosen, holes.tolist(), strict=True):
        image[top:bottom, left:right] = fill
    return None


def _call(step: A.BasicTransform, images: np.ndarray) -> None:
    for image in images:
        image[:] = step(image=image)["image"]


IN_PLACE: dict[type, Callable[[A.BasicTransform, np.ndarray], None]] = {
    A.HorizontalFlip: _flip,
    A.ShiftScaleRotate: _shift_scale_rotate,
    A.CoarseDropout: _coarse_dropout,
}
