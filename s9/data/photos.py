"""Pictures of any kind and size, made into what the networks take: uint8 images (32, 32, 3)."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

# Relative, for hubconf.py.
from ..errors import UserError
from .cifar10 import MEAN, STD
from .device_loader import normalise

SIZE = 32
PHONES = {".heic", ".heif"}
"""Endings of photos that Pillow alone cannot read: said of each, rather than passed over in silence."""


def read(path: Path) -> np.ndarray:
    """The picture in a file, as fit() makes it. Of an animated one, the first frame.

    Raises UserError for what is no file, no picture, empty, damaged, or of more pixels than Pillow takes for
    an attack on the memory: 179 million.
    """
    try:
        if not path.is_file():
            raise UserError("is no file: name a picture" if path.exists() else "does not exist")
        return _read(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Image.DecompressionBombError as error:
        limit = f"{2 * Image.MAX_IMAGE_PIXELS:,}"
        raise UserError(f"{path}: has more than {limit} pixels: make it smaller") from error
    except Exception as error:  # Pillow has a reader for each format, and each fails as it likes.
        raise UserError(f"{path}: cannot be read as a picture ({_reason(path, error)})") from error


def _read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of odd metadata, say, or of half as many pixels as are refused.
        with Image.open(path) as image:
            # JPEG can decode a large photo at a fraction of its size, in a fraction of time and memory.
            image.draft(None, (4 * SIZE, 4 * SIZE))
            return fit(image)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        known = "a phone's format: save it as JPEG" if path.suffix.lower() in PHONES else "no known format"
        return known if path.stat().st_size else "the file is empty"
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(said.split())[:120] or type(error).__name__


def fit(image: Image.Image) -> np.ndarray:
    """The middle square of a picture of any size and mode, upright, at 32 x 32: uint8 (32, 32, 3), RGB.

    What is transparent becomes white. 16-bit greys keep their range; in floats and greater numbers there is
    none that is agreed on: the least becomes black, the greatest white.

    Raises UserError for a picture that Pillow cannot convert to RGB, and for greys that are not finite.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        image = _grey(image)
    try:
        image = image.convert("RGBA")
    except ValueError as error:
        raise UserError(f"a picture of mode {image.mode} cannot be converted: save it as RGB") from error
    small = _middle(image)
    white = Image.new("RGBA", small.size, "white")
    return np.array(Image.alpha_composite(white, small).convert("RGB"))


class PhotoTransform:
    """A Pillow image of any size and mode to a float32 tensor (3, 32, 32): fit(), then normalisation.

    mean, std: of the training set, per channel, in 0..1. It can be pickled, for the workers of a DataLoader.
    """

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Raises UserError as fit() does."""
        images = torch.from_numpy(fit(image)[None])
        return normalise(images, torch.tensor(self.mean), torch.tensor(self.std))[0]


def _middle(image: Image.Image) -> Image.Image:
    # Not the whole picture: squeezed into a square, or between two bars, it would be unlike any image of the
    # training set. The price is what stands at the ends of a long picture.
    return ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC)


def _grey(image: Image.Image) -> Image.Image:
    """Greys of more than 8 bits, in 8: Pillow itself would make everything above 255 white."""
    floats = image.convert("F")
    low, high = floats.getextrema()
    if image.mode != "F" and low >= 0 and high < 2**16:
        low, high = 0, 2**16 - 1
    small = np.asarray(_middle(floats))
    if not np.isfinite([low, high, *small.flat]).all():
        raise UserError("holds values that are not finite: save it in 8 bits")
    shares = (small - low) / ((high - low) or 1)
    return Image.fromarray((255 * shares).round().clip(0, 255).astype(np.uint8))


def in_folder(folder: Path) -> list[Path]:
    """The pictures in a folder, by the endings of their names, in order; not those in folders inside it.

    Raises UserError if there is none, or the folder cannot be read.
    """
    Image.init()
    known = PHONES | {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    try:
        # A Mac leaves a ._photo.jpg, which is none, beside each photo.jpg on a foreign disk.
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    pictures = sorted(path for path in files if path.suffix.lower() in known)
    if not pictures:
        raise UserError(f"{folder}: holds no picture (folders inside it are not searched)")
    return pictures
