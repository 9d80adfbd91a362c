"""Photos as the networks take them: uint8 (32, 32, 3), or normalised float32 (3, 32, 32).

The pixels decide: a picture that can be decoded is never refused for damaged metadata.
"""

import io
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps
from torch import Tensor

# Relative, for hubconf.py.
from ..errors import UserError, one_line, printable
from .cifar10 import MEAN, STD
from .device_loader import normalise

SIZE = 32


class PhotoWarning(UserWarning):
    """A photo is damaged, but can be used."""


class PhotoTransform:
    """Turns a Pillow image of any size and mode into the input of a network of CIFAR-10. Picklable."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Float32 (3, 32, 32), normalised as predict.py does; warns and raises as fit() does."""
        pixels = torch.from_numpy(fit(image))[None]
        return normalise(pixels, torch.tensor(MEAN), torch.tensor(STD))[0].contiguous()


def read(path: Path, content: bytes | None = None) -> np.ndarray:
    """The picture in a file as fit() returns it; the first frame of an animation.

    content: of the file, if it is in memory already.

    Raises UserError if the file is missing, damaged, not a picture, or has more than 179 million pixels,
    Pillow's limit against decompression bombs. Warns as fit() does.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # Of odd metadata.
            return _read(path, path.read_bytes() if content is None else content)
    except Exception as error:  # Pillow has a reader for each format, each with its own exceptions.
        reason = getattr(error, "strerror", None) or one_line(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "unknown format: save it as JPEG"
        raise UserError(printable(f"{path}: cannot be read as a picture ({reason})")) from error


def read_all(paths: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray | UserError]]:
    """The path of each picture, also of those in folders, and what read() returns for it or raises."""
    for path in paths:
        try:
            # Not path.is_dir(): it raises where a name is too long or a folder above may not be entered.
            if os.path.isdir(path):  # noqa: PTH112
                yield from read_all(in_folder(path))
            else:
                yield path, read(path)
        except UserError as error:
            yield path, error


def _read(path: Path, content: bytes) -> np.ndarray:
    if not content:
        raise EOFError("the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return fit(image, path)
    except (Image.UnidentifiedImageError, SyntaxError, ValueError):
        # Pillow fails on some damaged or very large metadata, which OpenCV skips. Imported here: torch.hub's
        # users may not have it.
        import cv2

        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise
        return fit(Image.fromarray(pixels[..., ::-1]))


def fit(image: Image.Image, name: Path | None = None) -> np.ndarray:
    """The middle square of a picture of any size and mode, upright, at 32 x 32: uint8 (32, 32, 3), sRGB.

    Transparent pixels become white. 16-bit greys keep their range; floats and wider integers have no agreed
    range, so their minimum becomes black and their maximum white. The colour profile is applied.

    Warns (PhotoWarning) if up to half of a JPEG is missing: the pixels that it held are grey, as in a viewer.
    name: of the photo in that warning, by default the file's that Pillow opened.
    Raises Pillow's own errors for a damaged file and for modes that it cannot convert to RGB.
    """
    # Not image.filename = name: Pillow would take some formats' pixels from a file of that name.
    image = _upright(_load(image, name or getattr(image, "filename", "") or "photo"))
    if image.mode == "F" or image.mode.startswith("I"):
        image = _grey(image)
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("L", "CMYK"):  # Whose profiles are for these modes alone.
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small = _middle(image)
    small = (_to_srgb(small, profile) if profile else small).convert("RGBA")
    white = Image.new("RGBA", small.size, "white")
    return np.array(Image.alpha_composite(white, small).convert("RGB"))


def _load(image: Image.Image, name: Path | str) -> Image.Image:
    try:
        image.load()
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
            raise
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        if image.convert("L").histogram()[128] > image.width * image.height / 2:
            raise  # Most of the picture is missing, which the decoder leaves at this grey.
        problem = "the end of the file is missing: the pixels that it held are grey"
        warnings.warn(f"{printable(name)}: {problem}", PhotoWarning, stacklevel=3)
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Each kind of damage has its own exception.
        return image
    # A copy with no other metadata: exif_transpose rewrites them, and fails where some tag is odd.
    image = image.copy()
    image.info = {key: image.info[key] for key in ("icc_profile", "transparency") if key in image.info}
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(image)


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
    values = np.nan_to_num(np.asarray(image.convert("F")), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    if image.mode != "F" and low >= 0 and high < 2**16:
        low, high = 0, 2**16 - 1
    shares = (np.asarray(_middle(Image.fromarray(values))) - low) / ((high - low) or 1)
    return Image.fromarray((255 * shares).round().clip(0, 255).astype(np.uint8))


def among(paths: Iterable[Path]) -> list[Path]:
    """The pictures among some paths, by the endings of their names, sorted."""
    readable = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    endings = readable | {".heic", ".heif"}  # A phone's, which Pillow cannot read: they get an error.
    pictures = [path for path in paths if path.suffix.lower() in endings and path.is_file()]
    # A Mac leaves a ._photo.jpg, which is no picture, beside each photo.jpg on a foreign disk.
    return sorted(path for path in pictures if not path.name.startswith("."))


def in_folder(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted; subfolders are not searched.

    Raises UserError if there is none, or the folder cannot be read.
    """
    try:
        pictures = among(folder.iterdir())
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be read ({error.strerror})") from error
    if not pictures:
        raise UserError(f"{printable(folder)}: holds no picture (subfolders are not searched)")
    return pictures
