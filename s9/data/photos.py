"""Photos as the networks take them: uint8 (32, 32, 3), or normalised float32 (3, 32, 32).

The pixels decide. Metadata turns a picture upright and says what its colours mean; where it is damaged it is
ignored, and a picture whose pixels can be decoded is never refused for it.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps
from torch import Tensor

# Relative, for hubconf.py.
from ..errors import UserError, printable
from .cifar10 import MEAN, STD
from .device_loader import normalise

SIZE = 32
PHONES = {".heic", ".heif"}
"""Endings of photos that Pillow cannot read without a plugin; each gets an error line."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientations, and what turns a picture upright."""


class PhotoWarning(UserWarning):
    """A photo is damaged, but can be used."""


class PhotoTransform:
    """Turns a Pillow image of any size and mode into the input of a network, as predict.py does. Picklable.

    mean, std: of the training set, per channel, in 0..1.
    """

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Image.Image) -> Tensor:
        """Normalised float32 (3, 32, 32); warns and raises as fit() does."""
        pixels = torch.from_numpy(fit(image))[None]
        return normalise(pixels, torch.tensor(self.mean), torch.tensor(self.std))[0].contiguous()


def read(path: Path) -> np.ndarray:
    """The picture in a file as fit() returns it; the first frame of an animation.

    Raises UserError if the file is missing, empty, damaged, not a picture, or has more than 179 million
    pixels, Pillow's limit against decompression bombs. Warns as fit() does.
    """
    name = printable(path)
    try:
        if not path.is_file():
            raise UserError("is no file: name a picture" if path.exists() else "does not exist")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image = _read(path)
    except Image.DecompressionBombError as error:
        limit = f"{2 * Image.MAX_IMAGE_PIXELS:,}"
        raise UserError(f"{name}: has more than {limit} pixels: make it smaller") from error
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except Exception as error:  # Pillow has a reader for each format, each with its own exceptions.
        raise UserError(f"{name}: cannot be read as a picture ({_reason(path, error)})") from error
    for warning in caught:  # Not Pillow's own, of odd metadata.
        if warning.category is PhotoWarning:
            warnings.warn(f"{name}: {warning.message}", PhotoWarning, stacklevel=2)
    return image


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return fit(image)
    except UserError:
        raise
    except (Image.UnidentifiedImageError, SyntaxError, ValueError):
        # Pillow fails on some damaged or very large metadata, which OpenCV skips. Imported here: torch.hub's
        # users may not have it.
        import cv2

        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
        if pixels is None:
            raise
        return fit(Image.fromarray(pixels[..., ::-1]))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        known = "a phone's format: save it as JPEG" if path.suffix.lower() in PHONES else "no known format"
        return known if path.stat().st_size else "the file is empty"
    text = getattr(error, "strerror", None) or str(error)
    return printable(" ".join(text.split())[:120]) or type(error).__name__


def fit(image: Image.Image) -> np.ndarray:
    """The middle square of a picture of any size and mode, upright, at 32 x 32: uint8 (32, 32, 3), sRGB.

    Transparent pixels become white. 16-bit greys keep their range; floats and wider integers have no agreed
    range, so their minimum becomes black and their maximum white. The colour profile is applied.

    Warns (PhotoWarning) if up to half of a JPEG is missing: the pixels that it held are grey, as in a viewer.
    Raises UserError for a picture that Pillow cannot convert to RGB, and for greys that are not finite;
    Pillow's own errors if the file that `image` was opened from is damaged.
    """
    image = _upright(_load(image))
    if image.mode == "F" or image.mode.startswith("I"):
        image = _grey(image)
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("L", "CMYK"):  # Whose profiles are for these modes alone.
        try:
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        except ValueError as error:
            raise UserError(f"a picture of mode {image.mode} cannot be converted: save it as RGB") from error
    small = _middle(image)
    small = (_to_srgb(small, profile) if profile else small).convert("RGBA")
    white = Image.new("RGBA", small.size, "white")
    return np.array(Image.alpha_composite(white, small).convert("RGB"))


def _load(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = lenient
        if image.convert("L").histogram()[128] > image.width * image.height / 2:
            raise  # Most of the picture is missing, which the decoder leaves at this grey.
        warnings.warn(
            "the end of the file is missing: the pixels that it held are grey", PhotoWarning, stacklevel=3
        )
    return image


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also rewrites the metadata, and fails where some other tag is odd.
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Each kind of damage has its own exception.
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """`image` in sRGB; unchanged if the profile is damaged or belongs to another mode, as in a viewer."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return image


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


def endings() -> set[str]:
    """Of the names of pictures, in lower case: ".jpg" and the others."""
    Image.init()
    return PHONES | {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def in_folder(folder: Path) -> list[Path]:
    """The pictures in a folder, by the endings of their names, sorted; subfolders are not searched.

    Raises UserError if there is none, or the folder cannot be read.
    """
    known = endings()
    try:
        # A Mac leaves a ._photo.jpg, which is no picture, beside each photo.jpg on a foreign disk.
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be read ({error.strerror})") from error
    pictures = sorted(path for path in files if path.suffix.lower() in known)
    if not pictures:
        raise UserError(f"{printable(folder)}: holds no picture (subfolders are not searched)")
    return pictures
