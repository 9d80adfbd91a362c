"""Albumentations on whole batches of bytes, in place.

Albumentations samples every parameter; one OpenCV call an image changes the pixels, which is faster.
"""

import copy
import os
from collections.abc import Callable, Sequence

# Importing Albumentations would ask PyPI for a newer version, and warn wherever it gets no answer.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2

from s9.errors import UserError

cv2.setNumThreads(0)  # The images are tiny: OpenCV's threads would only compete with the workers.


def reseed(transform: A.BaseCompose, seed: int) -> None:
    """Gives each step of `transform` a generator of its own, seeded from `seed`.

    `transform.set_random_seed(seed)` would give all steps the same seed: they would draw the same numbers, so
    that a flipped image would always be shifted and have a hole too.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(transform.transforms), np.uint64)
    for step, own_seed in zip(transform.transforms, seeds.tolist(), strict=True):
        step.set_random_seed(own_seed)
        if isinstance(step, A.BaseCompose):
            reseed(step, own_seed)


def augment(images: np.ndarray, transform: A.Compose) -> None:
    """Applies `transform` to each of the uint8 images (n, height, width, 3), in place.

    Normalize and ToTensorV2 are left to the Loader. Each step samples its parameters in the order of the
    images. If one of them is not in IN_PLACE, all are called as Albumentations does, image by image.

    Raises UserError if an image comes out with another shape or type.
    """
    steps = [step for step in transform.transforms if not isinstance(step, A.Normalize | ToTensorV2)]
    if all(_in_place(step) for step in steps):
        for step in steps:
            IN_PLACE[type(step)](step, images)
        return
    for image in images:
        changed = image
        for step in steps:
            changed = step(image=changed)["image"]
        if changed.shape != image.shape or changed.dtype != image.dtype:
            got = f"{changed.dtype} {tuple(changed.shape)}"
            raise UserError(f"the transform must return uint8 {image.shape}, got {got}")
        image[:] = changed


def check_transform(
    transform: A.Compose, images: np.ndarray, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Tries a transform on copies of the images; raises UserError for one that the loaders cannot apply.

    It must be an Albumentations Compose with p=1 of any steps that return uint8 images of the same shape.
    Normalize and ToTensorV2 may follow as the last ones: the loader does their work on the device, so
    Normalize must have the data's mean and std.
    """
    if not isinstance(transform, A.Compose) or transform.p != 1:
        raise UserError(f"the transform must be an albumentations.Compose with p=1, got {transform!r:.80}")
    last = [isinstance(step, A.Normalize | ToTensorV2) for step in transform.transforms]
    if last != sorted(last):
        raise UserError("Normalize and ToTensorV2 must be the last steps of the transform")
    for step in transform.transforms:
        if isinstance(step, A.Normalize):
            usual = (step.normalization, step.max_pixel_value, step.p) == ("standard", 255, 1)
            pairs = (step.mean, mean), (step.std, std)
            equal = all(np.size(own) in (1, 3) and np.allclose(own, figure) for own, figure in pairs)
            if not (usual and equal):
                figures = f"the data's mean {tuple(mean)} and std {tuple(std)}"
                raise UserError(f"Normalize must have {figures}, max_pixel_value=255 and p=1")
    augment(images.copy(), transform)


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
                image, matrix[:2], (width, height), None, step.interpolation, step.border_mode, fill
            )


def _coarse_dropout(step: A.CoarseDropout, images: np.ndarray) -> None:
    chosen = [image for image in images if step.should_apply()]
    if not chosen:
        return
    # Holes are sampled independently: n holes for one image are one hole for each of n images.
    many = copy.copy(step)
    many.num_holes_range = (len(chosen), len(chosen))
    holes = many.get_params_dependent_on_data({"shape": images.shape[1:3]}, {})["holes"]
    fill = np.array(step.fill, images.dtype)
    for image, (left, top, right, bottom) in zip(chosen, holes.tolist(), strict=True):
        image[top:bottom, left:right] = fill


IN_PLACE: dict[type, Callable[[A.BasicTransform, np.ndarray], None]] = {
    A.HorizontalFlip: _flip,
    A.ShiftScaleRotate: _shift_scale_rotate,
    A.CoarseDropout: _coarse_dropout,
}


def _in_place(step: A.BasicTransform) -> bool:
    if isinstance(step, A.CoarseDropout) and (step.num_holes_range != (1, 1) or isinstance(step.fill, str)):
        return False
    return type(step) in IN_PLACE
