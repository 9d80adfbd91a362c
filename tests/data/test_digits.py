"""The bundled digits, and what every Data can do: a validation set, a fingerprint."""

import hashlib
import re

import numpy as np
import pytest
from made_data import ARRAYS, assert_well_formed, small

from s9.data.sources import Data, load


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits")


def test_digits(digits):
    assert_well_formed(digits, 1_437, 360)
    assert (digits.name, digits.classes) == ("digits", tuple(f"digit {digit}" for digit in range(10)))
    for images in (digits.train_images, digits.test_images):
        assert (images.min(), images.max()) == (0, 255)
        assert (images[..., :1] == images).all()  # grey
    pixels = digits.train_images / 255
    np.testing.assert_allclose(digits.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(digits.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_digits_split_is_fixed_stratified_and_without_overlap(digits):
    train, test = ({image.tobytes() for image in images} for images in (digits[2], digits[4]))
    assert not train & test
    shares = np.bincount(digits.test_labels) / np.bincount(np.append(digits.train_labels, digits.test_labels))
    assert (abs(shares - 0.2) < 0.005).all()
    labels = hashlib.sha256(bytes([*digits.train_labels, *digits.test_labels])).hexdigest()
    assert labels[:16] == "859da86469a170c7"


def test_validation_holds_out_the_last_training_images(made):
    held_out = made.validation()
    assert len(held_out.train_images) == 45_000 and len(held_out.test_images) == 5_000
    for kind in ("images", "labels"):
        whole = getattr(made, f"train_{kind}")
        np.testing.assert_array_equal(getattr(held_out, f"train_{kind}"), whole[:45_000])
        np.testing.assert_array_equal(getattr(held_out, f"test_{kind}"), whole[45_000:])
    few = small(200)
    np.testing.assert_array_equal(few.validation().test_images, few.train_images[-20:])


def test_fingerprint_sees_every_pixel_label_and_the_order():
    data = small(20)
    seen = {data.fingerprint()}
    assert re.fullmatch("[0-9a-f]{16}", data.fingerprint())
    assert small(20).fingerprint() in seen
    for name in ARRAYS:
        array = getattr(data, name)
        for position in (0, -1):
            changed = array.copy()
            changed.reshape(-1)[position] ^= 1
            seen.add(data._replace(**{name: changed}).fingerprint())
        seen.add(data._replace(**{name: np.roll(array, 1, axis=0)}).fingerprint())
    assert len(seen) == 1 + 4 * 3
    views = data._replace(train_images=np.asfortranarray(data.train_images))
    assert views.fingerprint() == data.fingerprint()  # the same images, otherwise laid out in memory
