"""Pictures of every kind: what becomes of them, and what is said of those that are none."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from s9.data import photos
from s9.errors import UserError

SOLID = [
    ("1", 1, (255, 255, 255)),
    ("L", 100, (100, 100, 100)),
    ("LA", (0, 51), (204, 204, 204)),
    ("RGB", (10, 20, 30), (10, 20, 30)),
    ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
    ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
    ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("HSV", (0, 255, 255), (255, 0, 0)),
    ("YCbCr", (90, 128, 128), (90, 90, 90)),
    ("I;16", 100 * 257, (100, 100, 100)),
    ("I;16B", 100 * 257, (100, 100, 100)),
    ("I", 100 * 257, (100, 100, 100)),
    ("I", 200, (1, 1, 1)),
]
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF's orientations: how a camera stores an upright picture that it marks so."""


def noise(width=32, height=32, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
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


@pytest.mark.parametrize(("mode", "colour", "expected"), SOLID)
@pytest.mark.parametrize("size", [(1, 1), (32, 32), (50, 40), (1, 3000), (3000, 1)])
def test_every_mode_and_size_becomes_rgb_of_one_size(mode, colour, expected, size):
    image = photos.fit(Image.new(mode, size, colour))
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert (abs(image - np.int64(expected)) <= 1).all()


def test_a_palettes_colours_and_its_transparent_one_are_looked_up():
    image = Image.new("P", (40, 40), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert (photos.fit(image) == (0, 0, 255)).all()
    image.info["transparency"] = 1
    assert (photos.fit(image) == 255).all()


def test_an_image_of_the_networks_size_stays_as_it_is():
    assert (photos.fit(noise()) == np.asarray(noise())).all()


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
    path = tmp_path / "photo"
    path.write_bytes(encoded(upright.transpose(STORED[orientation]), kind, exif=exif, **options))
    assert (abs(photos.read(path) - np.int64(photos.fit(upright))) <= 3).all()


def test_16_bits_keep_their_range_and_floats_are_stretched_to_theirs():
    greys = np.tile(np.repeat([10, 200], 16), (32, 1))
    cases = {"16 bits": (greys * 257).astype(np.uint16), "32 bits": (greys * 257).astype(np.int32)}
    for name, values in cases.items():
        assert (photos.fit(Image.fromarray(values))[..., 0] == greys).all(), name
    stretched = np.where(greys == 10, 0, 255)
    for values in ((greys / 255).astype(np.float32), (greys * 257_000).astype(np.int32)):
        assert (photos.fit(Image.fromarray(values))[..., 0] == stretched).all()


def test_a_16_bit_png_is_not_all_white(tmp_path):
    values = np.full((40, 40), 100 * 257, np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    assert (photos.read(tmp_path / "grey.png") == 100).all()


def test_a_float_that_is_none_is_refused():
    values = np.zeros((40, 120), np.float32)
    for place in ((0, 0), (20, 60)):
        holed = values.copy()
        holed[place] = np.nan
        with pytest.raises(UserError, match="not finite"):
            photos.fit(Image.fromarray(holed))


def test_a_mode_that_cannot_be_converted_is_named():
    with pytest.raises(UserError, match="mode La cannot be converted: save it as RGB"):
        photos.fit(Image.new("La", (40, 40)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(tmp_path, kind):
    red, blue = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(red, kind, save_all=True, append_images=[blue], **options)
    (tmp_path / "moving").write_bytes(content)
    with Image.open(tmp_path / "moving") as image:
        assert image.n_frames == 2
    assert (photos.read(tmp_path / "moving") == (255, 0, 0)).all()


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path, monkeypatch):
    image = noise(16, 12).resize((1600, 1200), Image.Resampling.BICUBIC)
    image.save(tmp_path / "large.jpg", quality=95)
    with Image.open(tmp_path / "large.jpg") as whole:
        expected = photos.fit(whole)
    sizes = []
    fit = photos.fit
    monkeypatch.setattr(photos, "fit", lambda image: sizes.append(image.size) or fit(image))
    assert (abs(photos.read(tmp_path / "large.jpg") - np.int64(expected)) <= 8).all()
    assert sizes == [(200, 150)]


FAULTS = {
    "empty": (b"", r"cannot be read as a picture \(the file is empty\)"),
    "text": (b"no picture, only words\n" * 9, r"cannot be read as a picture \(no known format\)"),
    "half a PNG": (encoded(noise(64, 64), "PNG")[:5000], "cannot be read as a picture"),
    "half a JPEG": (encoded(noise(64, 64), "JPEG")[:1500], "cannot be read as a picture"),
    "half a GIF": (encoded(noise(64, 64), "GIF")[:1500], "cannot be read as a picture"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_whole_picture_is_refused_by_name(tmp_path, name):
    content, message = FAULTS[name]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        photos.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_path_that_leads_to_no_file_is_named(tmp_path):
    for path, message in (
        (tmp_path / "nowhere.jpg", "does not exist"),
        (tmp_path, "is no file: name a picture"),
        (tmp_path / ("x" * 300), "name too long"),
    ):
        with pytest.raises(UserError, match=message):
            photos.read(path)


def test_a_bomb_of_a_few_bytes_is_not_unpacked(tmp_path):
    """A PNG's header that promises 400 million pixels."""
    content = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b"IDAT"):
        content += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(UserError, match="has more than 178,956,970 pixels: make it smaller"):
        photos.read(tmp_path / "bomb.png")


def test_half_a_bomb_is_read_without_a_warning(tmp_path, monkeypatch, recwarn):
    noise(12, 12).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert photos.read(tmp_path / "large.png").shape == (32, 32, 3)
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA"])
def test_a_damaged_file_is_read_or_refused_but_breaks_nothing(tmp_path, kind):
    content, dice, path = encoded(noise(24, 24), kind), random.Random(0), tmp_path / "damaged"
    for _ in range(40):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(dice.choice([60, len(damaged)]))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            assert photos.read(path).shape == (32, 32, 3)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")


def test_a_folder_gives_its_pictures_in_order_and_nothing_else(tmp_path):
    for name in ("b.JPG", "a.png", "c.webp", "d.HEIC", "._b.jpg", "notes.txt", "results.pdf"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in photos.in_folder(tmp_path)] == ["a.png", "b.JPG", "c.webp", "d.HEIC"]


def test_a_phones_photo_that_pillow_cannot_read_is_told_what_to_do(tmp_path):
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(UserError, match=r"a\.HEIC: cannot be read .* \(a phone's format: save it as JPEG\)"):
        photos.read(tmp_path / "a.HEIC")


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    noise().save(tmp_path / "inner" / "a.png")
    with pytest.raises(UserError, match="holds no picture"):
        photos.in_folder(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        photos.in_folder(tmp_path / "nowhere")
