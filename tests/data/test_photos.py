"""Pictures of every kind: the array they become, and the error for files that are none."""

import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from s9.data import photos
from s9.data.cifar10 import MEAN, STD
from s9.errors import UserError

SOLID = [
    ("1", 1, (255, 255, 255)),
    ("L", 100, (100, 100, 100)),
    ("LA", (0, 51), (204, 204, 204)),
    ("RGB", (10, 20, 30), (10, 20, 30)),
    ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
    ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("YCbCr", (90, 128, 128), (90, 90, 90)),
    ("I;16", 100 * 257, (100, 100, 100)),
    ("I", 100 * 257, (100, 100, 100)),
    ("I", 200, (1, 1, 1)),
]
STORED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE}
"""By EXIF orientation, how a camera stores an upright picture."""


def noise(width=32, height=32):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def quadrants(width=64, height=64):
    image = Image.new("RGB", (width, height), "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2), "lime")
    draw.rectangle((0, height // 2, width // 2, height), "blue")
    return image


def encoded(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def read(folder, content, name="photo"):
    """photos.read of a file of that content, and its warnings."""
    (folder / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = photos.read(folder / name)
    return image, [str(warning.message) for warning in caught]


def test_the_pixels_are_those_of_the_content_not_of_a_file_of_that_name(tmp_path):
    path = tmp_path / "photo.bmp"
    Image.new("L", (40, 40), 10).save(path)
    assert (photos.read(path, encoded(Image.new("L", (40, 40), 200), "BMP")) == 200).all()


@pytest.mark.parametrize(("mode", "colour", "expected"), SOLID)
@pytest.mark.parametrize("size", [(32, 32), (50, 40), (1, 3000)])
def test_every_mode_and_size_becomes_rgb_of_one_size(mode, colour, expected, size):
    image = photos.fit(Image.new(mode, size, colour))
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (abs(image - np.int64(expected)) <= 1).all()


def test_a_palettes_colours_and_its_transparent_one_are_looked_up():
    image = Image.new("P", (40, 40), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert (photos.fit(image) == (0, 0, 255)).all()
    for transparent in (1, b"\xff\x00"):
        image.info["transparency"] = transparent
        assert (photos.fit(image) == 255).all()


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_square_is_what_counts(turned):
    image = Image.new("RGB", (192, 64), "red")
    image.paste("lime", (64, 0, 128, 64))
    image = photos.fit(image.transpose(Image.Transpose.ROTATE_90) if turned else image)
    inner = image[2:-2] if turned else image[:, 2:-2]
    assert (inner == (0, 255, 0)).all()
    assert (image[..., 1] > 200).all()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_turned_photo_is_turned_back(tmp_path, orientation, kind):
    upright, exif = quadrants(64, 96), Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    image, _ = read(tmp_path, encoded(upright.transpose(STORED[orientation]), kind, exif=exif, **options))
    assert (abs(image - np.int64(photos.fit(upright))) <= 3).all()


SIX = Image.Exif()
SIX[0x0112] = 6


def segment(marker, payload):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def odd_unit():
    """Orientation 6, and the unit of the resolution as text: Pillow cannot write it back."""
    return b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack(
        "<HHI4sHHI4sI", 0x0112, 3, 1, b"\x06\0\0\0", 0x0128, 2, 4, b"dpi\0", 0
    )


ZTXT = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2_000_000)))
SEGMENTS = {
    "a tag of another type": (0xE1, odd_unit(), 6),
    "no content": (0xE1, b"Exif\0\0", 1),
    "no TIFF header": (0xE1, b"Exif\0\0nonsense", 1),
    "half a JFIF header, which Pillow cannot open": (0xE0, b"JFIF\0", 1),
    "half a Photoshop block": (0xED, b"Photoshop 3.0\x008BIM\4", 1),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_odd_metadata_never_refuses_a_picture(tmp_path, name):
    marker, payload, orientation = SEGMENTS[name]
    upright = quadrants()
    stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
    jpeg = encoded(stored, "JPEG", quality=100, subsampling=0)
    png = encoded(stored, "PNG")
    contents = [jpeg[:2] + segment(marker, payload) + jpeg[2:]]
    contents += [png[:33] + chunk(b"eXIf", payload[6:]) + png[33:]] if marker == 0xE1 else []
    for content in contents:
        image, said = read(tmp_path, content)
        assert (abs(image - np.int64(photos.fit(upright))) <= 3).all()
        assert said == []


@pytest.mark.parametrize("text", [ZTXT, ZTXT[:-1] + b"?"], ids=["long", "wrong checksum"])
@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "after them"])
def test_a_pngs_texts_do_not_refuse_it(tmp_path, text, place):
    """By default Pillow refuses texts of more than a megabyte."""
    content = encoded(quadrants().transpose(STORED[6]), "PNG", exif=SIX)
    image, _ = read(tmp_path, content[:place] + text + content[place:])
    assert (image == photos.fit(quadrants())).all()


def linear_profile():
    """sRGB's primaries, but linear light: 128 is then sRGB's 188."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        entry = profile.index(name)
        offset = int.from_bytes(profile[entry + 4 : entry + 8], "big")
        profile[offset : offset + 12] = b"curv" + bytes(8)
    return bytes(profile)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("P", "PNG"), ("RGB", "JPEG")])
def test_a_colour_profile_is_applied(tmp_path, mode, kind):
    grey = Image.new("RGB", (40, 40), (128, 128, 128)).convert(mode, palette=Image.Palette.ADAPTIVE)
    image, _ = read(tmp_path, encoded(grey, kind, icc_profile=linear_profile()))
    assert (abs(image - np.int64(188)) <= 2).all()
    for ignored in (b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()):
        image, _ = read(tmp_path, encoded(grey, kind, icc_profile=ignored))
        assert (abs(image - np.int64(128)) <= 1).all()


def test_a_jpeg_without_its_last_bytes_is_read_as_viewers_read_it(tmp_path):
    content = encoded(noise(64, 64), "JPEG")
    whole, said = read(tmp_path, content)
    assert said == []
    image, said = read(tmp_path, content[:-20])
    assert said == [f"{tmp_path / 'photo'}: the end of the file is missing: the pixels that it held are grey"]
    assert (image[:22] == whole[:22]).all()
    with pytest.raises(UserError, match="truncated"):
        read(tmp_path, content[: content.index(b"\xff\xda") + 1000])


def test_the_transform_gives_the_numbers_of_a_file(tmp_path):
    """Also after a conversion of the caller's, and in another process."""
    path = tmp_path / "photo.jpg"
    noise(16, 12).resize((800, 600), Image.Resampling.BICUBIC).save(
        path, exif=SIX, icc_profile=linear_profile()
    )
    transform = pickle.loads(pickle.dumps(photos.PhotoTransform()))
    expected = ((photos.read(path) / 255 - MEAN) / STD).transpose(2, 0, 1)
    with Image.open(path) as image:
        for opened in (image, image.convert("RGB")):
            np.testing.assert_allclose(transform(opened).numpy(), expected, atol=1e-5)


def test_16_bits_keep_their_range_and_floats_are_stretched_to_theirs(tmp_path):
    greys = np.tile(np.repeat([10, 200], 16), (32, 1))
    for values in ((greys * 257).astype(np.uint16), (greys * 257).astype(np.int32)):
        assert (photos.fit(Image.fromarray(values))[..., 0] == greys).all()
    stretched = np.where(greys == 10, 0, 255)
    for values in ((greys / 255).astype(np.float32), (greys * 257_000).astype(np.int32)):
        assert (photos.fit(Image.fromarray(values))[..., 0] == stretched).all()
    image, _ = read(tmp_path, encoded(Image.fromarray(np.full((40, 40), 100 * 257, np.uint16)), "PNG"))
    assert (image == 100).all()
    assert (photos.fit(Image.fromarray(np.full((40, 120), np.nan, np.float32))) == 0).all()


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
FAULTS = {
    "empty": (b"", r"cannot be read as a picture \(the file is empty\)"),
    "a phone's": (b"\0\0\0\x18ftypheic", r"\(unknown format: save it as JPEG\)"),
    "half a PNG": (encoded(noise(64, 64), "PNG")[:5000], "cannot be read as a picture"),
    "half a GIF": (encoded(noise(64, 64), "GIF")[:1500], "cannot be read as a picture"),
    "a header of 400 million pixels": (BOMB + chunk(b"IDAT", b""), "exceeds limit of 178956970 pixels"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_whole_picture_is_refused_by_name(tmp_path, name):
    content, message = FAULTS[name]
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, content, "photo\n\x1b[31m.jpg")
    assert str(error.value).startswith(f"{tmp_path}/photo\\n\\x1b[31m.jpg: ")
    assert str(error.value).isprintable()


def test_a_folder_gives_its_pictures_in_order_and_nothing_else(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "d.HEIC", "._b.jpg", "notes.txt", "results.pdf"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in photos.in_folder(tmp_path)] == ["a.png", "b.JPG", "c.webp", "d.HEIC"]
    for folder, message in (("inner.png", "holds no picture"), ("nowhere", "cannot be read")):
        with pytest.raises(UserError, match=message):
            photos.in_folder(tmp_path / folder)
